//! The certificate that an administrator has a signer of the cluster sign: asked for by a CertificateSigningRequest, shown when it is
//! approved, kept across restarts, and asked for anew before it ends. CloudCore approves nothing.
//!
//! Until there is one, and where it has ended, that of CloudCore's own CA is shown.

mod folder;
mod plan;

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use beehive::{Context, Env, Fault};
use contract::cloudstream::CloudStreamMsg;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::api::{Api, PostParams};
use pki::{ServerKey, SubjectAltNames, check_server_certificate};

use crate::certificate::Issued;
use crate::checks::{Check, Checks};
use crate::error::SigningError;
use crate::events;
use folder::{CURRENT, Folder, PENDING};
use plan::Decision;

/// 2 s, doubled at each time up to 30 s, between looks at a request that is not decided or could not be made.
const LOOK_AFTER: Duration = Duration::from_secs(2);
const LOOK_MAX: Duration = Duration::from_secs(30);
/// 6 h before a signer is asked again that refused, or whose certificate was not usable; a restart asks at once.
const REFUSED_PAUSE: Duration = Duration::from_secs(6 * 3600);
/// 1 h: the longest time between looks at the clock while a certificate is good: it may be set.
const CLOCK_LOOK: Duration = Duration::from_secs(3600);
/// 1 min between two certificates at the least, however short their lives are.
const LEAST_LIFE: Duration = Duration::from_secs(60);
/// 10 min between two lines of the log about what goes on.
const SAY_EVERY: Duration = Duration::from_secs(600);

/// The certificate that was signed, for who shows it. `None`: there is none.
pub(crate) type Signed = Rc<RefCell<Option<Issued>>>;

/// Whom to ask, and where to keep what comes of it.
#[derive(Debug, Clone)]
pub struct Signer {
    /// The `signerName`.
    pub name: String,
    /// A folder of CloudCore's own.
    pub folder: PathBuf,
}

/// A certificate that is shown, and how long it is.
struct Good {
    renew_at: SystemTime,
    not_after: SystemTime,
}

/// What became of a look at the request.
enum SigningState {
    Signed(Good),
    Waits(String),
    Refused(String),
}

struct Keeper {
    signer: Signer,
    alt_names: SubjectAltNames,
    api: Api<CertificateSigningRequest>,
    checks: Checks,
    signed: Signed,
    env: Env,
}

/// Keeps `signed` for as long as the incarnation lives, and tells the actor of each change.
pub(crate) fn keep(
    (signer, alt_names): (Signer, SubjectAltNames),
    client: kube::Client,
    checks: Checks,
    signed: Signed,
    cx: &Context<CloudStreamMsg>,
) {
    let env = cx.env().clone();
    let keeper = Keeper { signer, alt_names, api: Api::all(client), checks, signed, env };
    let myself = cx.myself();
    cx.spawn(async move {
        let mut said = None;
        let folder = keeper.open(&mut said).await;
        let mut good = keeper.kept(&folder, &mut said).await;
        if good.is_some() {
            let _ = myself.tell(CloudStreamMsg::CertificateChanged).await;
        }
        let mut pause = LOOK_AFTER;
        loop {
            let now = keeper.env.wall();
            if good.as_ref().is_some_and(|good| now >= good.not_after) {
                good = None;
                keeper.signed.replace(None);
                events::signed_certificate_ended(&keeper.env);
                let _ = myself.tell(CloudStreamMsg::CertificateChanged).await;
            }
            if let Some(left) = good.as_ref().and_then(|good| good.renew_at.duration_since(now).ok()) {
                keeper.env.sleep(left.clamp(Duration::from_secs(1), CLOCK_LOOK)).await;
                continue;
            }
            let wait = match keeper.look(&folder).await {
                Ok(SigningState::Signed(signed)) => {
                    keeper.checks.passed(Check::KubeletEndpointCertificate);
                    events::certificate_signed(&keeper.env, &keeper.signer.name);
                    (good, pause, said) = (Some(signed), LOOK_AFTER, None);
                    let _ = myself.tell(CloudStreamMsg::CertificateChanged).await;
                    LEAST_LIFE
                }
                Ok(SigningState::Waits(words)) => {
                    keeper.say(&words, &mut said);
                    doubled(&mut pause)
                }
                Ok(SigningState::Refused(words)) => {
                    keeper.say(&words, &mut said);
                    REFUSED_PAUSE
                }
                Err(error) => {
                    keeper.say(&Fault::from_error(&error).reason, &mut said);
                    doubled(&mut pause)
                }
            };
            // What is shown may end before.
            let left = good.as_ref().and_then(|good| good.not_after.duration_since(keeper.env.wall()).ok());
            let wait = left.map_or(wait, |left| wait.min(left + Duration::from_secs(1)));
            keeper.env.sleep(keeper.env.jitter(wait)).await;
        }
    });
}

/// The pause, which is twice as long the next time.
fn doubled(pause: &mut Duration) -> Duration {
    let next = (2 * *pause).min(LOOK_MAX);
    std::mem::replace(pause, next)
}

/// What was said last, and when.
type LastSaid = Option<(String, beehive::Moment)>;

impl Keeper {
    /// In `/healthz` always; in the log when it is news, and now and then.
    fn say(&self, words: &str, last: &mut LastSaid) {
        self.checks.failed(Check::KubeletEndpointCertificate, words);
        let now = self.env.now();
        let is_news = last.as_ref().is_none_or(|(said, at)| said != words || now.since(*at) >= SAY_EVERY);
        if is_news {
            events::certificate_unsigned(&self.env, words);
            *last = Some((words.to_owned(), now));
        }
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, folder::FolderError> + Send + 'static,
    ) -> Result<T, SigningError> {
        let done = self.env.blocking(work).await.map_err(|fault| SigningError::Folder(fault.reason))?;
        done.map_err(|error| SigningError::Folder(error.to_string()))
    }

    async fn open(&self, said: &mut LastSaid) -> Arc<Folder> {
        loop {
            let path = self.signer.folder.clone();
            match self.on_disk(move || Folder::open(&path)).await {
                Ok(folder) => return Arc::new(folder),
                Err(error) => self.say(&error.to_string(), said),
            }
            self.env.sleep(self.env.jitter(LOOK_MAX)).await;
        }
    }

    async fn read(&self, folder: &Arc<Folder>, name: &'static str) -> Result<Option<String>, SigningError> {
        let folder = Arc::clone(folder);
        self.on_disk(move || folder.read(name)).await
    }

    /// What was signed in an earlier life, if it may be shown still.
    async fn kept(&self, folder: &Arc<Folder>, said: &mut LastSaid) -> Option<Good> {
        let text = match self.read(folder, CURRENT).await {
            Ok(text) => text?,
            Err(error) => {
                self.say(&error.to_string(), said);
                return None;
            }
        };
        let key = ServerKey::from_pem(&text).ok()?;
        // The key stands before the chain.
        let chain = text.find("-----BEGIN CERTIFICATE-----").and_then(|at| text.get(at..))?;
        self.show(&key, chain).inspect_err(|why| events::kept_certificate_unfit(&self.env, why)).ok()
    }

    /// Takes a chain for what is shown from now on, if it fits.
    fn show(&self, key: &ServerKey, chain: &str) -> Result<Good, String> {
        let validity = check_server_certificate(chain, key, &self.alt_names, self.env.wall())
            .map_err(|unfit| unfit.to_string())?;
        let issued = Issued::of(chain.to_owned(), key.pem());
        // What TLS does not take is shown to nobody.
        issued.tls(None).map_err(|error| Fault::from_error(&error).reason)?;
        self.signed.replace(Some(issued));
        let part = self.env.random_below(1000) as f64 / 1000.0;
        Ok(Good { renew_at: validity.renew_at(part), not_after: validity.not_after })
    }

    /// The key of the request that is not decided: the same one until something came of it.
    async fn pending_key(&self, folder: &Arc<Folder>) -> Result<ServerKey, SigningError> {
        let kept = self.read(folder, PENDING).await?;
        if let Some(key) = kept.and_then(|pem| ServerKey::from_pem(&pem).ok()) {
            return Ok(key);
        }
        let key = ServerKey::new()?;
        let (folder, pem) = (Arc::clone(folder), key.pem());
        self.on_disk(move || folder.write(PENDING, &pem)).await?;
        Ok(key)
    }

    /// Makes the request if it is not there, and does what its status says.
    async fn look(&self, folder: &Arc<Folder>) -> Result<SigningState, SigningError> {
        let key = self.pending_key(folder).await?;
        let signer = self.signer.name.as_str();
        let name = plan::name(&key.id(), signer, &self.alt_names);
        let api = |source| SigningError::Api { name: name.clone(), source: Box::new(source) };
        let found = match self.api.get_opt(&name).await.map_err(api)? {
            Some(found) => found,
            None => {
                let request = key.request(&plan::subject(signer), &self.alt_names)?;
                let object = plan::object(&name, signer, request);
                let made = self.api.create(&PostParams::default(), &object).await.map_err(api)?;
                events::certificate_asked_for(&self.env, &name, signer);
                made
            }
        };
        let shown = "until then that of CloudCore's own CA, or the one before, is shown";
        match plan::decision(&found) {
            Decision::Unapproved => {
                let cure = format!("look at it, then `kubectl certificate approve {name}`");
                Ok(SigningState::Waits(format!(
                    "CertificateSigningRequest `{name}` waits for approval: {cure}; {shown}"
                )))
            }
            Decision::Unsigned => Ok(SigningState::Waits(format!(
                "CertificateSigningRequest `{name}` is approved, and `{signer}` has not signed it: does that signer run? {shown}"
            ))),
            Decision::Refused(words) => {
                self.forget(folder).await?;
                Ok(SigningState::Refused(format!(
                    "CertificateSigningRequest `{name}` is refused ({words}): another is made within 6 hours, or when cloudcore starts; {shown}"
                )))
            }
            Decision::Signed(chain) => self.signed(folder, &key, &name, chain).await,
        }
    }

    async fn signed(
        &self,
        folder: &Arc<Folder>,
        key: &ServerKey,
        name: &str,
        chain: String,
    ) -> Result<SigningState, SigningError> {
        let good = match self.show(key, &chain) {
            Ok(good) => good,
            Err(why) => {
                self.forget(folder).await?;
                return Ok(SigningState::Refused(format!(
                    "the certificate in CertificateSigningRequest `{name}` is not shown: {why}; is `{}` the signer that was meant? Another is asked for within 6 hours, or when cloudcore starts",
                    self.signer.name
                )));
            }
        };
        let (at, both) = (Arc::clone(folder), format!("{}{chain}", key.pem()));
        let kept = self.on_disk(move || at.write(CURRENT, &both)).await;
        match kept {
            // The next one is asked for with another key.
            Ok(()) => self.forget(folder).await?,
            // It is shown all the same; a restart asks for it again by the key that is kept.
            Err(error) => events::certificate_unkept(&self.env, &error.to_string()),
        }
        Ok(SigningState::Signed(good))
    }

    async fn forget(&self, folder: &Arc<Folder>) -> Result<(), SigningError> {
        let folder = Arc::clone(folder);
        self.on_disk(move || folder.remove(PENDING)).await
    }
}
