//! Three CloudCores share one CA, on a clock that a test sets.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use beehive::{Clock, Moment};
use futures::future::BoxFuture;
use harness::MemoryApi;

use super::*;

const DAY: u64 = 86_400;

/// A clock that stands where it was set.
#[derive(Default)]
struct SetClock(Mutex<Duration>);

impl Clock for SetClock {
    fn now(&self) -> Moment {
        Moment(*self.0.lock().unwrap())
    }
    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000) + *self.0.lock().unwrap()
    }
    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

const LIVES: AuthorityLives = AuthorityLives {
    own: Duration::from_secs(100 * DAY),
    lead: Duration::from_secs(5 * DAY),
    trail: Duration::from_secs(20 * DAY),
};

#[actix_rt::test]
async fn three_cloudcores_agree_at_each_step_of_many_cas() {
    let api = MemoryApi::start().await;
    let clock = Arc::new(SetClock::default());
    let env = Env::seeded(7).with_clock(Arc::clone(&clock) as Arc<dyn Clock>);
    let stores: Vec<SecretStore> = (0..3).map(|_| SecretStore::new(api.client())).collect();
    let mut known = stores[0].authorities(&LIVES, &env).await.unwrap();
    let (mut signed, mut trusted_since) = (Vec::new(), BTreeMap::new());
    let mut steps = 0;
    for day in 0..500_u64 {
        *clock.0.lock().unwrap() = Duration::from_secs(day * DAY);
        let looks = stores.iter().map(|store| store.rotate(&LIVES, &known, &env));
        let seen: Vec<_> = futures::future::join_all(looks).await.into_iter().map(Result::unwrap).collect();
        // One of them takes the step; whoever came later reads it or the one before it.
        let taken = seen.iter().filter(|(_, step)| *step != RotationStep::Nothing).count();
        assert!(taken <= 1, "day {day}: {taken} steps");
        steps += taken;
        let now = stores[0].authorities(&LIVES, &env).await.unwrap();
        let trusted = now.trusted();
        assert!(trusted.len() <= 2, "day {day}");
        for authority in &trusted {
            trusted_since.entry(authority.clone()).or_insert(day);
        }
        let signing = now.signing().cert_der().to_vec();
        if signed.last() != Some(&signing) {
            assert!(!signed.contains(&signing), "one that has signed before does not come back");
            let since = trusted_since[&signing];
            assert!(day == 0 || day - since >= 5, "it signs {} days after it was first trusted", day - since);
            signed.push(signing);
        }
        let ends = pki::validity_of(now.signing().cert_der()).unwrap().not_after;
        assert!(ends > clock.wall() + LIVES.trail, "day {day}: what it signs now is good until its end");
        known = now;
    }
    // A CA of 100 days is replaced after 75, and its successor signs 5 days later.
    assert_eq!((signed.len(), steps), (7, 18), "CAs that signed, and steps");
    assert_eq!(api.count("secrets").await, 1);
}

#[actix_rt::test]
async fn a_wish_for_another_ca_is_fulfilled_once_by_whoever_comes_first() {
    let api = MemoryApi::start().await;
    let clock = Arc::new(SetClock::default());
    let env = Env::seeded(7).with_clock(Arc::clone(&clock) as Arc<dyn Clock>);
    let stores: Vec<SecretStore> = (0..3).map(|_| SecretStore::new(api.client())).collect();
    let known = stores[0].authorities(&LIVES, &env).await.unwrap();
    let first = known.signing().cert_der().to_vec();
    let (_, mut secret) = stores[0].made_for(&LIVES, &env).await.unwrap();
    let data = secret.data.as_mut().unwrap();
    data.insert("rotate".to_owned(), ByteString(b"now".to_vec()));
    data.insert("of-somebody".to_owned(), ByteString(b"else".to_vec()));
    stores[0].secrets.replace(CA_SECRET, &PostParams::default(), &secret).await.unwrap();
    let looks = stores.iter().map(|store| store.rotate(&LIVES, &known, &env));
    let seen: Vec<_> = futures::future::join_all(looks).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(seen.iter().filter(|(_, step)| *step == RotationStep::Prepare).count(), 1);
    let (record, secret) = stores[1].made_for(&LIVES, &env).await.unwrap();
    assert!(!record.is_asked_for && record.next.is_some());
    assert!(secret.data.unwrap().contains_key("of-somebody"), "what is not the CA's stays");
    assert_eq!(record.authorities().unwrap().signing().cert_der(), first, "the elder signs still");
}

/// An API that answers everything but the version, and says the time with that.
fn client_saying(api: &MemoryApi, date: &'static str) -> kube::Client {
    let inner = api.client();
    let answer = move |request: Request<Body>| {
        let inner = inner.clone();
        async move {
            if request.uri().path() != "/version" {
                return inner.send(request).await;
            }
            let answer = http::Response::builder().header(DATE, date).body(Body::empty());
            answer.map_err(kube::Error::HttpError)
        }
    };
    kube::Client::new(tower::service_fn(answer), "default")
}

#[actix_rt::test]
async fn by_a_clock_that_the_api_server_contradicts_no_ca_gives_way() {
    let api = MemoryApi::start().await;
    let clock = Arc::new(SetClock::default());
    let env = Env::seeded(7).with_clock(Arc::clone(&clock) as Arc<dyn Clock>);
    // 1,900,000,000 s after 1970 begin on this day at 17:46:40.
    let store = SecretStore::new(client_saying(&api, "Sun, 17 Mar 2030 17:00:00 GMT"));
    let known = store.authorities(&LIVES, &env).await.unwrap();
    assert_eq!(store.rotate(&LIVES, &known, &env).await.unwrap().1, RotationStep::Nothing);
    let written = api.client();
    let before = Api::<Secret>::namespaced(written.clone(), NAMESPACE).get(CA_SECRET).await.unwrap();
    *clock.0.lock().unwrap() = Duration::from_secs(90 * DAY);
    let refused = store.rotate(&LIVES, &known, &env).await.err().unwrap();
    assert!(matches!(refused, SecretError::Clock { seconds } if seconds > 89 * DAY), "{refused}");
    let after = Api::<Secret>::namespaced(written, NAMESPACE).get(CA_SECRET).await.unwrap();
    assert_eq!(before.metadata.resource_version, after.metadata.resource_version, "nothing was written");
    // The server's own clock agrees.
    let store = SecretStore::new(client_saying(&api, "Sat, 15 Jun 2030 17:00:00 GMT"));
    assert_eq!(store.rotate(&LIVES, &known, &env).await.unwrap().1, RotationStep::Prepare);
}

#[actix_rt::test]
async fn a_secret_that_is_deleted_or_replaced_while_cloudcore_runs_shuts_nobody_out() {
    let api = MemoryApi::start().await;
    let env = Env::seeded(7).with_clock(Arc::new(SetClock::default()) as Arc<dyn Clock>);
    let store = SecretStore::new(api.client());
    let known = store.authorities(&LIVES, &env).await.unwrap();
    store.secrets.delete(CA_SECRET, &Default::default()).await.unwrap();
    let gone = store.rotate(&LIVES, &known, &env).await.err().unwrap();
    assert!(matches!(gone, SecretError::Gone(_)), "{gone}");
    assert_eq!(api.count("secrets").await, 0, "no second CA is made");
    // A CloudCore that starts makes one, which is not taken over.
    let other = store.authorities(&LIVES, &env).await.unwrap();
    let foreign = store.rotate(&LIVES, &known, &env).await.err().unwrap();
    assert!(matches!(foreign, SecretError::Foreign(_)), "{foreign}");
    assert_eq!(store.rotate(&LIVES, &other, &env).await.unwrap().1, RotationStep::Nothing);
}

#[actix_rt::test]
async fn the_first_ca_of_a_clock_that_is_ahead_begins_when_the_api_server_says_that_it_is() {
    let api = MemoryApi::start().await;
    let clock = Arc::new(SetClock::default());
    // A month ahead.
    *clock.0.lock().unwrap() = Duration::from_secs(30 * DAY);
    let env = Env::seeded(7).with_clock(Arc::clone(&clock) as Arc<dyn Clock>);
    let doubt = ClockDoubt::default();
    let client = client_saying(&api, "Sun, 17 Mar 2030 17:46:40 GMT");
    let store = SecretStore::new(client).doubting(doubt.clone());
    store.compare_clocks(&doubt, &env).await.unwrap();
    assert!(doubt.is(&*env.clock()));
    let made = store.authorities(&LIVES, &env).await.unwrap();
    let begins = pki::validity_of(made.signing().cert_der()).unwrap().not_before;
    assert!(begins < SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000), "{begins:?}");
    // The stand-alone API says no time: its clock is this one.
    SecretStore::new(api.client()).compare_clocks(&doubt, &env).await.unwrap();
    assert!(!doubt.is(&*env.clock()));
}
