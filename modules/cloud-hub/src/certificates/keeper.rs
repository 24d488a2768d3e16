//! The actor that keeps the CA and CloudCore's own certificates good.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use beehive::{Actor, Address, Clock, Context, Fault, Message, Sample};
use contract::cloudhub::CloudHubMsg;
use pki::{CurrentAuthorities, validity_of};

use super::clock_doubt::ClockDoubt;
use super::rotation::AuthorityLives;
use super::server_certificate::ServerCertificate;
use crate::events;
use crate::store::SecretStore;

/// 60 s between looks at the Secret, and less where certificates live for minutes: what another CloudCore has written is known long
/// before it matters.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// A look is this part of the shortest life.
const LOOKS_IN_A_LIFE: u32 = 20;
/// 1 s between looks at the least.
const LOOK_LEAST: Duration = Duration::from_secs(1);
/// 10 s for the API server: the next look is soon.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The seconds of a day.
const DAY: f64 = 86_400.0;

/// Messages to the keeper: from itself.
#[derive(Debug)]
pub enum CertificatesMsg {
    /// Time to see whether something is due.
    Reconcile,
}

impl Message for CertificatesMsg {
    fn name(&self) -> &'static str {
        match self {
            CertificatesMsg::Reconcile => "Reconcile",
        }
    }
}

/// What a keeper is made of.
#[derive(Clone)]
pub struct KeeperDependencies {
    /// Where the CA is.
    pub secrets: SecretStore,
    /// How long CAs live.
    pub lives: AuthorityLives,
    /// Where everybody reads which CAs are good.
    pub authorities: CurrentAuthorities,
    /// What is shown by them.
    pub server: Rc<ServerCertificate>,
    /// CloudHub, which tells nodes.
    pub hub: Address<CloudHubMsg>,
    /// Whether this machine's clock is in doubt.
    pub doubt: ClockDoubt,
}

/// See the module.
pub struct CertificateKeeper {
    dependencies: KeeperDependencies,
    clock: Option<Arc<dyn Clock>>,
    /// It was said that the clock is in doubt, and is still.
    is_doubt_said: bool,
}

impl CertificateKeeper {
    /// One that begins with what is in `dependencies`.
    pub fn new(dependencies: KeeperDependencies) -> Self {
        CertificateKeeper { dependencies, clock: None, is_doubt_said: false }
    }

    /// How long until the next look.
    fn pause(&self) -> Duration {
        let AuthorityLives { own, lead, trail } = self.dependencies.lives;
        let shortest = own.min(lead).min(trail).min(self.dependencies.server.life());
        LOOK_EVERY.min(shortest / LOOKS_IN_A_LIFE).max(LOOK_LEAST)
    }

    /// Compares this machine's clock with the API server's. Where that does not answer, what was found before counts.
    async fn look_at_clock(&mut self, cx: &Context<CertificatesMsg>) {
        let KeeperDependencies { secrets, doubt, .. } = &self.dependencies;
        let looked = cx.env().timeout(ANSWER_WITHIN, secrets.compare_clocks(doubt, cx.env())).await;
        let Some(Ok(())) = looked else { return };
        let clock = cx.env().clock();
        let is_doubt = doubt.is(&*clock);
        if is_doubt && !self.is_doubt_said {
            events::clock_doubted(cx.env(), &doubt.says(&*clock).unwrap_or_default());
        } else if !is_doubt && self.is_doubt_said {
            tracing::info!("this machine's clock and the API server's agree again");
        }
        self.is_doubt_said = is_doubt;
    }

    /// Reads the CAs, and takes the step that is due.
    async fn look_at_authorities(&self, cx: &Context<CertificatesMsg>) {
        let KeeperDependencies { secrets, lives, authorities, .. } = &self.dependencies;
        let known = authorities.get();
        let looked = cx.env().timeout(ANSWER_WITHIN, secrets.rotate(lives, &known, cx.env())).await;
        let found = match looked {
            Some(Ok((found, step))) => {
                events::authority_step(cx.env(), step);
                found
            }
            Some(Err(error)) => {
                return events::authority_unread(cx.env(), &Fault::from_error(&error).reason);
            }
            None => return events::authority_unread(cx.env(), "the API server did not answer within 10 s"),
        };
        if authorities.replace(found) {
            let trusted = authorities.get().trusted().len();
            events::authorities_changed(cx.env(), trusted);
            let _ = self.dependencies.hub.tell(CloudHubMsg::TrustChanged).await;
        }
    }

    fn renew_server(&self, cx: &Context<CertificatesMsg>) {
        match self.dependencies.server.renew(cx.env()) {
            Ok(failed) => {
                events::server_certificate_renewed(cx.env());
                for (place, reason) in failed {
                    events::server_certificate_not_shown(cx.env(), place, &reason);
                }
            }
            Err(error) => {
                events::server_certificate_not_renewed(cx.env(), &Fault::from_error(&error).reason);
            }
        }
    }
}

impl Actor for CertificateKeeper {
    type Message = CertificatesMsg;

    async fn started(&mut self, cx: &mut Context<CertificatesMsg>) -> Result<(), Fault> {
        self.clock = Some(cx.env().clock());
        // An earlier incarnation may have ended between a change and its telling.
        let _ = self.dependencies.hub.tell(CloudHubMsg::TrustChanged).await;
        // What is in doubt is looked at first.
        let is_doubt = self.dependencies.doubt.is(&*cx.env().clock());
        cx.after(if is_doubt { Duration::ZERO } else { self.pause() }, CertificatesMsg::Reconcile);
        Ok(())
    }

    async fn handle(
        &mut self,
        message: CertificatesMsg,
        cx: &mut Context<CertificatesMsg>,
    ) -> Result<(), Fault> {
        match message {
            CertificatesMsg::Reconcile => {
                self.look_at_clock(cx).await;
                self.look_at_authorities(cx).await;
                if self.dependencies.server.is_due(&*cx.env().clock()) {
                    self.renew_server(cx);
                }
                cx.after(cx.env().jitter(self.pause()), CertificatesMsg::Reconcile);
            }
        }
        Ok(())
    }

    fn snapshot(&self) -> serde_json::Value {
        let authorities = self.dependencies.authorities.get();
        let ends = |at: Option<SystemTime>| {
            at.and_then(|at| jiff::Timestamp::try_from(at).ok()).map(|at| at.to_string())
        };
        serde_json::json!({
            "trustedAuthorities": authorities.trusted().len(),
            "authorityEnds": ends(self.authority_ends()),
            "serverCertificateEnds": ends(self.dependencies.server.not_after()),
        })
    }

    fn samples(&self) -> Vec<Sample> {
        let Some(now) = self.clock.as_ref().map(|clock| clock.wall()) else { return Vec::new() };
        let of = |what: &str, ends: Option<SystemTime>| {
            Some(Sample::new("kubehive_certificate_days_left", days_left(ends?, now)).of("certificate", what))
        };
        let server = self.dependencies.server.not_after();
        [of("ca", self.authority_ends()), of("server", server)].into_iter().flatten().collect()
    }
}

impl CertificateKeeper {
    fn authority_ends(&self) -> Option<SystemTime> {
        let authorities = self.dependencies.authorities.get();
        validity_of(authorities.signing().cert_der()).ok().map(|validity| validity.not_after)
    }
}

/// Less than nothing when it has ended.
pub(crate) fn days_left(ends: SystemTime, now: SystemTime) -> f64 {
    match ends.duration_since(now) {
        Ok(left) => left.as_secs_f64() / DAY,
        Err(over) => -over.duration().as_secs_f64() / DAY,
    }
}

#[cfg(test)]
mod tests {
    use beehive::testing::Probe;
    use beehive::{Capacity, Env, Hive, Policy};
    use harness::MemoryApi;
    use pki::SubjectAltNames;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);
    const DAY: Duration = Duration::from_secs(86_400);

    #[actix_rt::test]
    async fn a_clock_in_doubt_is_looked_at_before_anything_is_waited_for() {
        let (env, api) = (Env::real(), MemoryApi::start().await);
        let (secrets, doubt) = (SecretStore::new(api.client()), ClockDoubt::default());
        let lives = AuthorityLives { own: 3650 * DAY, lead: 30 * DAY, trail: 120 * DAY };
        let authorities = CurrentAuthorities::new(secrets.authorities(&lives, &env).await.unwrap());
        let server =
            ServerCertificate::new(authorities.clone(), SubjectAltNames::default(), DAY, doubt.clone());
        let (_told, hub) = Probe::<CloudHubMsg>::new(&env, 16);
        let server = Rc::new(server);
        let keeper = KeeperDependencies { secrets, lives, authorities, server, hub, doubt: doubt.clone() };
        let mut hive = Hive::new("test", env.clone());
        let mailbox = hive.mailbox("certificates", Capacity::new(1, "one look at a time"));
        hive.supervise(mailbox, Policy::default(), move || CertificateKeeper::new(keeper.clone()));
        assert!(doubt.is(&*env.clock()));
        hive.open().unwrap();
        let compared = async {
            while doubt.is(&*env.clock()) {
                env.sleep(Duration::from_millis(10)).await;
            }
        };
        // Looks are a minute apart.
        assert!(env.timeout(LONG, compared).await.is_some());
    }
}
