//! Seeing to it that a container's image is here, and that this pod may have it: the kubelet's EnsureImageExists.

use std::rc::Rc;
use std::sync::Arc;

use beehive::Moment;
use cri::Error as RuntimeError;
use k8s_openapi::api::core::v1::Secret;

use crate::dependencies::{Dependencies, blocking};
use crate::disk::folders;
use crate::error::StepError;
use crate::images::access::{Policy, Records, SecretUsed, Verdict};
use crate::images::credentials::{self, PullPolicy};
use crate::images::keyring::Credential;
use crate::images::pull_words as words;
use crate::images::reference::{self, Reference};
use crate::pod::backoff::Failure;
use crate::pod::parsed_pod::ParsedPod;
use crate::pod::recorder::EventType;
use crate::pod::sources::Sources;
use crate::pod::sync_state::ImageReady;

/// Who wants an image.
enum Asker<'a> {
    /// A pod, for this container; empty: for a volume.
    Pod(&'a ParsedPod, &'a str),
    /// A job of the cloud, for pods that may come: with the Secret that it names, if it names one. It raises no events.
    Job(Sources),
}

/// An image that is wanted.
struct Wanted<'a> {
    deps: &'a Rc<Dependencies>,
    asker: Asker<'a>,
    /// As it is written by whoever wants it: so it is called in all words.
    named: &'a str,
    /// As the runtime is asked for it.
    image: String,
    reference: Reference,
    /// The Secrets that are named for its pulls.
    secrets: Vec<String>,
    before: Option<Failure>,
}

/// Sees to it that a container's image is here. `ran_before`: this pod has run this image, so it was fetched with this
/// pod's credentials once.
pub(crate) async fn ensure_image(
    deps: Rc<Dependencies>,
    pod: Arc<ParsedPod>,
    name: String,
    before: Option<Failure>,
    ran_before: bool,
) -> Result<ImageReady, Failure> {
    let Some(spec) = pod.container(&name) else {
        return Err(Failure::steady("InvalidImageName", format!("no container `{name}`"), false, deps.now()));
    };
    let named = spec.image.as_deref().unwrap_or_default();
    ensure(&deps, &pod, (&name, named), credentials::policy(spec), (before, ran_before)).await
}

/// Sees to it that the image of a volume is here.
pub(crate) async fn ensure_volume_image(
    deps: &Rc<Dependencies>,
    pod: &ParsedPod,
    named: &str,
    policy: PullPolicy,
) -> Result<ImageReady, Failure> {
    ensure(deps, pod, ("", named), policy, (None, false)).await
}

/// Sees to it that an image is here before a pod needs it; `secret` has credentials for registries, as JSON. Whoever comes later may use
/// it by the same rules as one that a pod has pulled: with the Secret that it was pulled with, or everybody where there was none. Dropping
/// it ends the pull at the runtime, or the wait for its turn.
///
/// # Errors
/// A sentence.
pub(crate) async fn ensure_for_job(
    deps: Rc<Dependencies>,
    named: String,
    secret: Option<String>,
) -> Result<(), String> {
    let read = Reference::parse(&named).and_then(|reference| Ok((reference, reference::with_tag(&named)?)));
    let (reference, image) = read.map_err(|reason| format!("`{named}` is no image: {reason}"))?;
    let mut sources = Sources::default();
    if let Some(secret) = secret {
        let secret: Secret =
            serde_json::from_str(&secret).map_err(|error| format!("imageSecrets: no Secret: {error}"))?;
        sources.secrets.insert(secret.metadata.name.clone().unwrap_or_default(), Some(secret));
    }
    let secrets = sources.secrets.keys().cloned().collect();
    let policy = credentials::policy_of(None, &named);
    let asker = Asker::Job(sources);
    let wanted = Wanted { deps: &deps, asker, named: &named, image, reference, secrets, before: None };
    let found = match policy {
        PullPolicy::Always => None,
        PullPolicy::IfNotPresent | PullPolicy::Never => {
            wanted.here(policy).await.map_err(|failure| failure.message)?
        }
    };
    match found {
        Some(_) => Ok(()),
        None => wanted.fetch(policy, false).await.map(drop).map_err(|failure| failure.message),
    }
}

/// An image that a pod has had, if it is still here. Its registry is not asked.
pub(crate) async fn at_hand(deps: &Rc<Dependencies>, named: &str) -> Option<ImageReady> {
    let image = reference::with_tag(named).ok()?;
    deps.runtime.image_status(&image).await.ok().flatten().map(ready)
}

/// `container`: whose image it is; empty: a volume's.
async fn ensure(
    deps: &Rc<Dependencies>,
    pod: &ParsedPod,
    (name, named): (&str, &str),
    policy: PullPolicy,
    (before, ran_before): (Option<Failure>, bool),
) -> Result<ImageReady, Failure> {
    let read = Reference::parse(named).and_then(|reference| Ok((reference, reference::with_tag(named)?)));
    let (reference, image) = match read {
        Ok(read) => read,
        Err(reason) => {
            let text = format!("Failed to apply default image tag \"{named}\": {reason}");
            event_of(deps, pod, name, EventType::Warning, "InspectFailed", &text);
            return Err(refused(deps, pod, name, "InvalidImageName", text));
        }
    };
    let secrets = pod.spec().image_pull_secrets.iter().flatten().map(|secret| secret.name.clone()).collect();
    let asker = Asker::Pod(pod, name);
    let wanted = Wanted { deps, asker, named, image, reference, secrets, before };
    if policy != PullPolicy::Always
        && let Some(found) = wanted.here(policy).await?
    {
        return Ok(found);
    }
    wanted.fetch(policy, ran_before).await
}

/// A fault in the pod, with the event that a container does not start for it.
fn refused(
    deps: &Rc<Dependencies>,
    pod: &ParsedPod,
    container: &str,
    reason: &'static str,
    message: String,
) -> Failure {
    event_of(deps, pod, container, EventType::Warning, "Failed", &format!("Error: {reason}"));
    Failure::steady(reason, message, false, deps.now())
}

/// Of a container, or of the pod where it is for a volume.
fn event_of(
    deps: &Rc<Dependencies>,
    pod: &ParsedPod,
    container: &str,
    kind: EventType,
    reason: &str,
    message: &str,
) {
    if container.is_empty() {
        deps.event(&pod.id, kind, reason, message);
    } else {
        deps.container_event(pod, container, kind, reason, message);
    }
}

fn ready(image: cri::v1::Image) -> ImageReady {
    ImageReady { reference: image.id.clone(), image }
}

impl Wanted<'_> {
    fn event(&self, kind: EventType, reason: &str, message: &str) {
        if let Asker::Pod(pod, container) = self.asker {
            event_of(self.deps, pod, container, kind, reason, message);
        }
    }

    /// The image, if it is here and for this pod; `None`: it has to be fetched.
    async fn here(&self, policy: PullPolicy) -> Result<Option<ImageReady>, Failure> {
        let found = match self.deps.runtime.image_status(&self.image).await {
            Ok(found) => found,
            Err(error) => {
                let text = format!("Failed to inspect image \"\": {}", error.grpc_text());
                self.event(EventType::Warning, "InspectFailed", &text);
                self.event(EventType::Warning, "Failed", "Error: ImageInspectError");
                let now = self.deps.now();
                return Err(Failure::after(self.before.as_ref(), "ImageInspectError", text, now));
            }
        };
        if let Some(found) = found
            && self.may_use(&found.id).await
        {
            self.is_present();
            return Ok(Some(ready(found)));
        }
        if policy != PullPolicy::Never {
            return Ok(None);
        }
        // Here, but not for this pod: to it, it is not here.
        let text = format!("Container image \"{}\" is not present with pull policy of Never", self.named);
        self.event(EventType::Warning, "ErrImageNeverPull", &text);
        self.event(EventType::Warning, "Failed", "Error: ErrImageNeverPull");
        Err(Failure::steady("ErrImageNeverPull", text, false, self.deps.now()))
    }

    fn is_present(&self) {
        let named = self.named;
        let text =
            format!("Container image \"{named}\" already present on machine and can be accessed by the pod");
        self.event(EventType::Normal, "Pulled", &text);
    }

    async fn fetch(&self, policy: PullPolicy, ran_before: bool) -> Result<ImageReady, Failure> {
        let text = match self.pull(policy).await {
            Ok(found) => return Ok(found),
            Err(text) => text,
        };
        // Without a way to the registry a node goes on with what it had.
        if ran_before && let Ok(Some(found)) = self.deps.runtime.image_status(&self.image).await {
            let text = format!(
                "Image \"{}\" could not be pulled; its container restarts with the one at hand: {text}",
                self.named
            );
            self.event(EventType::Warning, "ImageNotRefreshed", &text);
            return Ok(ready(found));
        }
        let (reason, message) = words::failed_pull(self.named, &text);
        self.event(EventType::Warning, "Failed", &format!("Failed to pull image \"{}\": {text}", self.named));
        self.event(EventType::Warning, "Failed", &format!("Error: {reason}"));
        let failure = Failure::after(self.before.as_ref(), reason, message, self.deps.now());
        // Credentials that come or change are tried at once.
        Err(Failure { may_come: !self.secrets.is_empty(), ..failure })
    }

    /// The credentials for the image: those of whoever wants it, then the node's.
    async fn credentials(&self) -> Result<Vec<Credential>, StepError> {
        let sources = match &self.asker {
            _ if self.secrets.is_empty() => Sources::default(),
            Asker::Pod(pod, _) => self.deps.sources(pod).await?,
            Asker::Job(given) => given.clone(),
        };
        let missing = credentials::missing(&self.secrets, &sources);
        if !missing.is_empty() {
            let text = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                missing.join(", ")
            );
            if let Asker::Pod(pod, _) = self.asker {
                let (kind, reason) = (EventType::Warning, "FailedToRetrieveImagePullSecret");
                self.deps.event(&pod.id, kind, reason, &text);
            }
        }
        let (root, homes) = (self.deps.settings.root.clone(), self.deps.settings.homes.clone());
        let read = move || Ok(credentials::of_node(&root, &homes));
        let node = blocking(&self.deps.env, "read the node's credentials in", read).await?;
        Ok(credentials::credentials(&self.reference, &self.secrets, &sources, &node))
    }

    /// Whether the pod may use an image that is here as `reference`, without asking its registry.
    async fn may_use(&self, reference: &str) -> bool {
        let (named, at) = (self.image.clone(), reference.to_owned());
        let known = match records(self.deps, move |records| Ok(records.known(&named, &at))).await {
            Ok(known) => known,
            Err(error) => {
                tracing::error!(%error, "records of pulled images cannot be read: the registry has to be asked");
                return false;
            }
        };
        let secrets: Vec<SecretUsed> = match self.credentials().await {
            Ok(found) => found.into_iter().filter_map(|credential| credential.secret).collect(),
            Err(error) => {
                tracing::error!(%error, "credentials of a pod cannot be read: the registry has to be asked");
                return false;
            }
        };
        let settings = &self.deps.settings;
        let policy =
            Policy { verification: settings.image_verification, allowlist: &settings.image_allowlist };
        match policy.verdict(&self.image, &known, &secrets) {
            Verdict::Refused => false,
            Verdict::Allowed { note: None } => true,
            Verdict::Allowed { note: Some(secret) } => {
                self.note_pulled(reference, Some(secret), None).await;
                true
            }
        }
    }

    /// Fetches the image with one credential after the other; an error in words.
    async fn pull(&self, policy: PullPolicy) -> Result<ImageReady, String> {
        let began = self.deps.now();
        self.event(EventType::Normal, "Pulling", &format!("Pulling image \"{}\"", self.named));
        let under_way = UnderWay::begin(self.deps, &self.image);
        let found = self.credentials().await.map_err(|error| error.to_string())?;
        let secrets = found.iter().filter_map(|credential| credential.secret.clone()).collect();
        // Said first: if the power goes in between, nobody gets what it brings without asking who could not have pulled it.
        self.note_begun(&under_way, secrets).await?;
        let mut tries: Vec<Option<Credential>> = found.into_iter().map(Some).collect();
        if tries.is_empty() {
            tries.push(None);
        }
        let turns = match self.asker {
            Asker::Pod(..) => &self.deps.pulls,
            Asker::Job(_) => &self.deps.job_pulls,
        };
        let (_turn, has_waited) = match turns.try_acquire() {
            Ok(turn) => (Some(turn), false),
            // Never closed, so an error cannot come; without a permit the pull is merely not counted.
            Err(_) => (turns.acquire().await.ok(), true),
        };
        // Whoever had the turn before may have brought it.
        if has_waited
            && policy != PullPolicy::Always
            && let Some(found) = self.came_meanwhile().await
        {
            self.note_end(&under_way).await;
            self.is_present();
            return Ok(ready(found));
        }
        let mut errors = Vec::new();
        for credential in tries {
            let (auth, secret) = credential.map_or((None, None), |own| (Some(own.auth), own.secret));
            let started = self.deps.now();
            match self.pull_once(auth).await {
                Ok(found) => {
                    self.note_pulled(&found.id, secret, Some(&under_way)).await;
                    self.pulled(&found, began, started);
                    return Ok(ready(found));
                }
                Err(error) => errors.push(error),
            }
        }
        self.note_end(&under_way).await;
        Err(words::of_errors(&errors))
    }

    /// The image, if it is here by now and for this pod.
    async fn came_meanwhile(&self) -> Option<cri::v1::Image> {
        let found = self.deps.runtime.image_status(&self.image).await.ok().flatten()?;
        self.may_use(&found.id).await.then_some(found)
    }

    /// Notes that a pull has ended that has brought nothing.
    async fn note_end(&self, under_way: &UnderWay<'_>) {
        if let Err(error) = self.note(Some(under_way), |_| Ok(())).await {
            let image = self.named;
            tracing::warn!(image, %error, "end of a pull cannot be noted: who could not have pulled the image asks the registry");
        }
    }

    /// Notes that the image is being pulled with one of these secrets, or none: what is here before stays what it is. What an earlier
    /// pull brought of which nobody has noted the end, as where edgecore was killed in it or the disk was full, is theirs from now on who
    /// could have pulled it: without that the end of this one would make it everybody's. The kubelet does it at its start, and makes it
    /// nobody's.
    ///
    /// # Errors
    /// When it cannot be noted: the word of the earlier pull stays.
    async fn note_begun(&self, under_way: &UnderWay<'_>, secrets: Vec<SecretUsed>) -> Result<(), String> {
        let here = self.deps.runtime.image_status(&self.image).await;
        let here = here.map(|found| found.map(|found| found.id)).map_err(|error| error.grpc_text());
        let (named, time) = (self.image.clone(), self.deps.wall().to_string());
        let turn = self.deps.image_records.lock().await;
        let is_noted = under_way.is_noted();
        let note = move |records: &Records| {
            if !is_noted && records.has_begun(&named)? {
                let brought = here.clone().map_err(StepError::Config)?;
                records.end_unknown(&named, brought.as_deref(), &time)?;
            }
            records.begin(&named, here.unwrap_or_default().as_deref(), &secrets)
        };
        let begun = records_in(self.deps, &turn, note).await;
        begun.map_err(|error| {
            format!("Failed to record image pull intent for container image \"{}\": {error}", self.named)
        })?;
        under_way.set_noted(true);
        Ok(())
    }

    /// Notes something, and that no pull of the image is under way any more where `pull` is the last.
    async fn note(
        &self,
        pull: Option<&UnderWay<'_>>,
        what: impl FnOnce(&Records) -> Result<(), StepError> + Send + 'static,
    ) -> Result<(), StepError> {
        let turn = self.deps.image_records.lock().await;
        let (named, last) = (self.image.clone(), pull.filter(|pull| pull.is_last()));
        let is_last = last.is_some();
        let note = move |records: &Records| {
            what(records)?;
            if is_last { records.ended(&named) } else { Ok(()) }
        };
        records_in(self.deps, &turn, note).await?;
        if let Some(last) = last {
            // One that has come meanwhile says it again.
            last.set_noted(false);
        }
        Ok(())
    }

    async fn pull_once(&self, auth: Option<cri::v1::AuthConfig>) -> Result<cri::v1::Image, RuntimeError> {
        self.deps.runtime.pull_image(&self.image, auth).await?;
        let found = self.deps.runtime.image_status(&self.image).await?;
        found.ok_or_else(|| {
            let message = "gone after the pull".to_owned();
            RuntimeError::ImageNotFound { image: self.image.clone(), message }
        })
    }

    /// Says that the image was pulled. `began`: when it began to wait for its turn.
    fn pulled(&self, image: &cri::v1::Image, began: Moment, started: Moment) {
        let now = self.deps.now();
        let text = format!(
            "Successfully pulled image \"{}\" in {} ({} including waiting). Image size: {} bytes.",
            self.named,
            words::duration(now.since(started)),
            words::duration(now.since(began)),
            image.size
        );
        self.event(EventType::Normal, "Pulled", &text);
    }

    /// Without the note the image's next user asks the registry, so a full disk gives nothing away.
    async fn note_pulled(&self, reference: &str, secret: Option<SecretUsed>, pull: Option<&UnderWay<'_>>) {
        let (named, at, time) = (self.image.clone(), reference.to_owned(), self.deps.wall().to_string());
        let noted = self.note(pull, move |records| records.pulled(&named, &at, secret, &time)).await;
        if let Err(error) = noted {
            let image = self.named;
            tracing::warn!(image, %error, "pull cannot be noted: the image's next user asks the registry");
        }
    }
}

/// A pull that has begun. Of several of one image the last to end takes the word back that one has; one that is broken off
/// leaves it, for nobody knows what it has brought.
struct UnderWay<'a> {
    deps: &'a Dependencies,
    image: &'a str,
}

impl<'a> UnderWay<'a> {
    fn begin(deps: &'a Dependencies, image: &'a str) -> UnderWay<'a> {
        deps.pulling.borrow_mut().entry(image.to_owned()).or_default().count += 1;
        UnderWay { deps, image }
    }

    fn is_last(&self) -> bool {
        self.deps.pulling.borrow().get(self.image).is_none_or(|pulls| pulls.count <= 1)
    }

    fn is_noted(&self) -> bool {
        self.deps.pulling.borrow().get(self.image).is_some_and(|pulls| pulls.is_noted)
    }

    fn set_noted(&self, is_noted: bool) {
        if let Some(pulls) = self.deps.pulling.borrow_mut().get_mut(self.image) {
            pulls.is_noted = is_noted;
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut pulling = self.deps.pulling.borrow_mut();
        if let Some(pulls) = pulling.get_mut(self.image) {
            pulls.count -= 1;
            if pulls.count == 0 {
                pulling.remove(self.image);
            }
        }
    }
}

/// Works on the records, which one at a time does.
async fn records<T: Send + 'static>(
    deps: &Rc<Dependencies>,
    work: impl FnOnce(&Records) -> Result<T, StepError> + Send + 'static,
) -> Result<T, StepError> {
    let turn = deps.image_records.lock().await;
    records_in(deps, &turn, work).await
}

/// The same in the turn of who has it.
async fn records_in<T: Send + 'static>(
    deps: &Rc<Dependencies>,
    _turn: &tokio::sync::MutexGuard<'_, ()>,
    work: impl FnOnce(&Records) -> Result<T, StepError> + Send + 'static,
) -> Result<T, StepError> {
    let root = deps.settings.root.clone();
    let work = move || work(&Records::open(&folders::root(&root)?)?);
    blocking(&deps.env, "look at the records of images in", work).await
}
