//! Who somebody is and what he may, by the API server's word, kept as long as a kubelet keeps it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use beehive::Clock;
use beehive::link::accept_limiter::{RateLimiter, address_prefix};
use contract::NodeName;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::{Api, PostParams};
use nodecalls::Needs;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::cache::{Cache, Key};
use crate::credentials::User;
use crate::error::ReviewError;

/// 2 min for who has a token, also for nobody (`authentication.webhook.cacheTTL`).
const TOKEN_KEPT: Duration = Duration::from_secs(120);
/// 5 min for a yes (`authorization.webhook.cacheAuthorizedTTL`).
const YES_KEPT: Duration = Duration::from_secs(300);
/// 30 s for a no (`authorization.webhook.cacheUnauthorizedTTL`).
const NO_KEPT: Duration = Duration::from_secs(30);
/// 4096 answers of each kind: scrapers and people are few, and strangers' tokens push out one another's.
const KEPT_MAX: usize = 4096;
/// 32 questions on their way at once: strangers with ever new tokens are not to flood the API server. One that waits for its next
/// try leaves its turn to others.
const AT_ONCE: usize = 32;
/// 2 tokens a second that are not known yet, and 60 at once, from one address: a scraper's is asked about every 2 min.
const UNKNOWN_PER_SECOND: f64 = 2.0;
const UNKNOWN_AT_ONCE: f64 = 60.0;
/// 10 s for an answer to one try.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// 5 tries, the first pause 500 ms and each 1.5 times the one before, as a kubelet's.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);
/// 30 s for a question with its tries and all that it waits for: whoever asks gives up no sooner (an API server's own requests to a
/// kubelet have 60 s).
const SAID_WITHIN: Duration = Duration::from_secs(30);

/// Asks the API server.
pub(crate) struct Reviews {
    client: kube::Client,
    clock: Arc<dyn Clock>,
    turns: Semaphore,
    unknown_tokens: Mutex<RateLimiter<IpAddr>>,
    users: Mutex<Cache<Option<User>>>,
    answers: Mutex<Cache<bool>>,
    /// The questions that somebody asks now: whoever has the same waits and finds the answer.
    asked: Mutex<BTreeMap<Key, Weak<tokio::sync::Mutex<()>>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reviews {
    pub(crate) fn new(client: kube::Client, clock: Arc<dyn Clock>) -> Self {
        Reviews {
            client,
            clock,
            turns: Semaphore::new(AT_ONCE),
            unknown_tokens: Mutex::new(RateLimiter::new(UNKNOWN_PER_SECOND, UNKNOWN_AT_ONCE)),
            users: Mutex::new(Cache::new(KEPT_MAX)),
            answers: Mutex::new(Cache::new(KEPT_MAX)),
            asked: Mutex::default(),
        }
    }

    /// Whose token it is, that came from this address. `None`: nobody's.
    pub(crate) async fn user_of(&self, token: &str, from: IpAddr) -> Result<Option<User>, ReviewError> {
        let key: Key = Sha256::digest(token).into();
        if let Some(known) = lock(&self.users).get(&key, self.clock.now()) {
            return Ok(known);
        }
        let review = self.review_token(key, token, from);
        self.in_time("TokenReview", review).await
    }

    async fn review_token(&self, key: Key, token: &str, from: IpAddr) -> Result<Option<User>, ReviewError> {
        let question = self.question(key);
        let _alone = question.lock().await;
        if let Some(known) = lock(&self.users).get(&key, self.clock.now()) {
            return Ok(known);
        }
        let may_ask = lock(&self.unknown_tokens).take(&address_prefix(from), self.clock.now());
        may_ask.map_err(ReviewError::TooManyTokens)?;
        let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: None };
        let asked = TokenReview { spec, ..TokenReview::default() };
        let answered = self.ask("TokenReview", &asked).await?;
        let status = answered.status.ok_or(ReviewError::Empty("TokenReview"))?;
        let user = status.user.filter(|_| status.authenticated == Some(true)).and_then(|user| {
            let name = user.username.filter(|name| !name.is_empty())?;
            let (uid, groups) = (user.uid.unwrap_or_default(), user.groups.unwrap_or_default());
            let extra = user.extra.unwrap_or_default();
            Some(User { name, uid, groups, extra }.authenticated())
        });
        lock(&self.users).put(key, user.clone(), TOKEN_KEPT, self.clock.now());
        Ok(user)
    }

    /// Whether the user may: the first subresource that is granted decides.
    ///
    /// # Errors
    /// With the subresource of which nobody could say.
    pub(crate) async fn may(
        &self,
        user: &User,
        node: &NodeName,
        needs: &Needs,
    ) -> Result<bool, (&'static str, ReviewError)> {
        for subresource in &needs.subresources {
            let granted = self.grants(user, node, needs.verb, subresource).await;
            if granted.map_err(|error| (*subresource, error))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn grants(
        &self,
        user: &User,
        node: &NodeName,
        verb: &str,
        subresource: &str,
    ) -> Result<bool, ReviewError> {
        let User { name, uid, groups, extra } = user;
        let question = json!([name, uid, groups, extra, node.as_str(), verb, subresource]);
        let key: Key = Sha256::digest(question.to_string()).into();
        if let Some(known) = lock(&self.answers).get(&key, self.clock.now()) {
            return Ok(known);
        }
        let review = self.review_access(key, (user, node), verb, subresource);
        self.in_time("SubjectAccessReview", review).await
    }

    async fn review_access(
        &self,
        key: Key,
        (user, node): (&User, &NodeName),
        verb: &str,
        subresource: &str,
    ) -> Result<bool, ReviewError> {
        let asked_now = self.question(key);
        let _alone = asked_now.lock().await;
        if let Some(known) = lock(&self.answers).get(&key, self.clock.now()) {
            return Ok(known);
        }
        let User { name, uid, groups, extra } = user;
        let attributes = ResourceAttributes {
            verb: Some(verb.to_owned()),
            version: Some("v1".to_owned()),
            resource: Some("nodes".to_owned()),
            subresource: Some(subresource.to_owned()),
            name: Some(node.as_str().to_owned()),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            user: Some(name.clone()),
            uid: (!uid.is_empty()).then(|| uid.clone()),
            groups: Some(groups.clone()),
            extra: (!extra.is_empty()).then(|| extra.clone()),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        };
        let asked = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let answered = self.ask("SubjectAccessReview", &asked).await?;
        let status = answered.status.ok_or(ReviewError::Empty("SubjectAccessReview"))?;
        let allowed = status.allowed && status.denied != Some(true);
        let kept = if allowed { YES_KEPT } else { NO_KEPT };
        lock(&self.answers).put(key, allowed, kept, self.clock.now());
        Ok(allowed)
    }

    /// The turn of all who have this question.
    fn question(&self, key: Key) -> Arc<tokio::sync::Mutex<()>> {
        let mut asked = lock(&self.asked);
        asked.retain(|_, question| question.strong_count() > 0);
        if let Some(question) = asked.get(&key).and_then(Weak::upgrade) {
            return question;
        }
        let question = Arc::default();
        asked.insert(key, Arc::downgrade(&question));
        question
    }

    async fn in_time<T>(
        &self,
        kind: &'static str,
        review: impl Future<Output = Result<T, ReviewError>>,
    ) -> Result<T, ReviewError> {
        tokio::select! {
            said = review => said,
            () = self.clock.sleep(SAID_WITHIN) => Err(ReviewError::Late(kind)),
        }
    }

    /// Asks, again where an error may pass.
    async fn ask<T>(&self, kind: &'static str, question: &T) -> Result<T, ReviewError>
    where
        T: kube::Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
    {
        let api: Api<T> = Api::all(self.client.clone());
        let mut pause = PAUSE;
        for tries_left in (0..TRIES).rev() {
            let params = PostParams::default();
            // It is never closed.
            let turn = self.turns.acquire().await;
            let failed = tokio::select! {
                answered = api.create(&params, question) => match answered {
                    Ok(answered) => return Ok(answered),
                    Err(source) => ReviewError::Api { kind, source },
                },
                () = self.clock.sleep(ANSWER_WITHIN) => ReviewError::Late(kind),
            };
            drop(turn);
            if tries_left == 0 || is_final(&failed) {
                return Err(failed);
            }
            self.clock.sleep(pause).await;
            pause = pause * 3 / 2;
        }
        Err(ReviewError::Late(kind))
    }
}

/// Whether asking again gains nothing: the API server has understood, and says no.
fn is_final(error: &ReviewError) -> bool {
    match error {
        ReviewError::Api { source: kube::Error::Api(status), .. } => {
            (400..500).contains(&status.code) && status.code != 429
        }
        ReviewError::Api { .. } | ReviewError::Late(_) => false,
        ReviewError::Empty(_) | ReviewError::TooManyTokens(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use beehive::TokioClock;
    use futures::future::join_all;
    use http::{Request, Response};
    use http_body_util::BodyExt as _;
    use kube::client::Body;

    use super::*;

    const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    /// Reviews by an API server that says nothing of tokens that begin with `slow`, and knows every other after a second. Answers how
    /// often it was asked, too. The clock is tokio's.
    fn reviews() -> (Arc<Reviews>, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let service = tower::service_fn(move |request: Request<Body>| {
            let count = Arc::clone(&count);
            async move {
                count.fetch_add(1, Ordering::SeqCst);
                let review = request.into_body().collect().await.unwrap().to_bytes();
                let mut review: serde_json::Value = serde_json::from_slice(&review).unwrap();
                if review["spec"]["token"].as_str().unwrap().starts_with("slow") {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                review["status"] = json!({ "authenticated": true, "user": { "username": "kate" } });
                Ok::<_, Infallible>(Response::new(Body::from(review.to_string().into_bytes())))
            }
        });
        let client = kube::Client::new(service, "default");
        let clock = Arc::new(TokioClock::paused_from(std::time::SystemTime::UNIX_EPOCH));
        (Arc::new(Reviews::new(client, clock)), asked)
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_show_the_same_token_at_once_are_one_question() {
        let (reviews, asked) = reviews();
        let users = join_all((0..200).map(|_| reviews.user_of("scraper", FROM))).await;
        for user in users {
            assert_eq!(user.unwrap().unwrap().name, "kate");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        assert!(lock(&reviews.asked).len() <= 1, "and nothing is kept for each of them");
    }

    #[tokio::test(start_paused = true)]
    async fn questions_without_an_answer_leave_their_turns_to_others_and_have_an_end() {
        let (reviews, _) = reviews();
        let begun = tokio::time::Instant::now();
        let slow: Vec<_> = (0..AT_ONCE)
            .map(|number| {
                let reviews = Arc::clone(&reviews);
                tokio::spawn(async move { reviews.user_of(&format!("slow-{number}"), FROM).await })
            })
            .collect();
        tokio::task::yield_now().await;
        // All turns are taken; one is free when the first tries are over.
        let user = reviews.user_of("kate", FROM).await.unwrap().unwrap();
        assert_eq!(user.name, "kate");
        let took = begun.elapsed();
        assert!(took < ANSWER_WITHIN + Duration::from_secs(2), "{took:?}");
        for slow in slow {
            let said = slow.await.unwrap();
            assert!(matches!(said, Err(ReviewError::Late("TokenReview"))), "{said:?}");
        }
        let took = begun.elapsed();
        assert!(took < SAID_WITHIN + Duration::from_secs(1), "{took:?}");
    }
}
