//! Seeing to it that a container's image is here, and that this pod may have it.

use std::rc::Rc;
use std::sync::Arc;

use cri::Error as RuntimeError;

use crate::dependencies::{Dependencies, blocking};
use crate::disk::folders;
use crate::error::StepError;
use crate::images::access::{Policy, Records, SecretUsed};
use crate::images::credentials::{self, Credential, PullPolicy};
use crate::pod::backoff::Failure;
use crate::pod::parsed_pod::ParsedPod;
use crate::pod::recorder::EventType;
use crate::pod::sync_state::ImageReady;

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
    let image = credentials::name(spec);
    let policy = credentials::policy(spec);
    let fault =
        |error: &RuntimeError| Failure::after(before.as_ref(), "ErrImagePull", error.to_string(), deps.now());
    if policy != PullPolicy::Always {
        match deps.runtime.image_status(&image).await {
            Ok(Some(found)) if may_use(&deps, &pod, &image, &found.id).await => return Ok(ready(found)),
            // Here, but not for this pod: to it, it is not here.
            Ok(_) if policy == PullPolicy::Never => {
                let text = format!("Container image \"{image}\" is not present with pull policy of Never");
                deps.event(&pod.id, EventType::Warning, "ErrImageNeverPull", &text);
                return Err(Failure::steady("ErrImageNeverPull", text, false, deps.now()));
            }
            Ok(_) => {}
            Err(error) => {
                return Err(Failure::after(
                    before.as_ref(),
                    "ImageInspectError",
                    error.to_string(),
                    deps.now(),
                ));
            }
        }
    }
    let error = match pull(&deps, &pod, &image).await {
        Ok(found) => return Ok(found),
        Err(error) => error,
    };
    // Without a way to the registry a node goes on with what it had.
    if ran_before && let Ok(Some(found)) = deps.runtime.image_status(&image).await {
        let text = format!(
            "Image \"{image}\" could not be pulled; its container restarts with the one at hand: {error}"
        );
        deps.event(&pod.id, EventType::Warning, "ImageNotRefreshed", &text);
        return Ok(ready(found));
    }
    Err(fault(&error))
}

fn ready(image: cri::v1::Image) -> ImageReady {
    ImageReady { reference: image.id.clone(), image }
}

/// The pod's credentials for an image.
async fn credentials_of(
    deps: &Dependencies,
    pod: &ParsedPod,
    image: &str,
) -> Result<Vec<Credential>, StepError> {
    let names: Vec<String> =
        pod.spec().image_pull_secrets.iter().flatten().map(|secret| secret.name.clone()).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let sources = deps.sources(pod).await?;
    Ok(credentials::credentials(image, &names, &sources))
}

/// Whether the pod may use an image that is here as `reference`, without asking its registry.
async fn may_use(deps: &Rc<Dependencies>, pod: &ParsedPod, image: &str, reference: &str) -> bool {
    let (named, at) = (image.to_owned(), reference.to_owned());
    let known = records(deps, move |records| Ok(records.known(&named, &at))).await;
    let known = match known {
        Ok(known) => known,
        Err(error) => {
            tracing::error!(%error, "records of pulled images cannot be read: the registry has to be asked");
            return false;
        }
    };
    let secrets: Vec<SecretUsed> = match credentials_of(deps, pod, image).await {
        Ok(found) => found.into_iter().map(|credential| credential.secret).collect(),
        Err(error) => {
            tracing::error!(%error, "credentials of a pod cannot be read: the registry has to be asked");
            return false;
        }
    };
    let settings = &deps.settings;
    let policy = Policy { verification: settings.image_verification, allowlist: &settings.image_allowlist };
    policy.allows(image, &known, &secrets)
}

async fn records<T: Send + 'static>(
    deps: &Rc<Dependencies>,
    work: impl FnOnce(&Records) -> Result<T, StepError> + Send + 'static,
) -> Result<T, StepError> {
    let root = deps.settings.root.clone();
    let work = move || work(&Records::open(&folders::root(&root)?)?);
    blocking(&deps.env, "look at the records of images in", work).await
}

async fn pull(deps: &Rc<Dependencies>, pod: &ParsedPod, image: &str) -> Result<ImageReady, RuntimeError> {
    // Never closed, so an error cannot come; without a permit the pull is merely not counted.
    let _turn = deps.pulls.acquire().await.ok();
    deps.event(&pod.id, EventType::Normal, "Pulling", &format!("Pulling image \"{image}\""));
    let failed = |message: String| RuntimeError::Failed { call: "PullImage", message };
    let named = image.to_owned();
    // Said first: if the power goes in between, nobody gets the image without asking.
    records(deps, move |records| records.begin(&named)).await.map_err(|error| failed(error.to_string()))?;
    let found = credentials_of(deps, pod, image).await.map_err(|error| failed(error.to_string()))?;
    let mut tries: Vec<Option<Credential>> = found.into_iter().map(Some).collect();
    if tries.is_empty() {
        tries.push(None);
    }
    let mut last = failed("nothing was tried".to_owned());
    for credential in tries {
        let (auth, secret) = credential.map_or((None, None), |own| (Some(own.auth), Some(own.secret)));
        match deps.runtime.pull_image(image, auth).await {
            Ok(_) => {
                let found = deps.runtime.image_status(image).await?.ok_or_else(|| {
                    let message = "gone after the pull".to_owned();
                    RuntimeError::ImageNotFound { image: image.to_owned(), message }
                })?;
                note_pulled(deps, image, &found.id, secret).await;
                deps.event(&pod.id, EventType::Normal, "Pulled", &format!("Pulled image \"{image}\""));
                return Ok(ready(found));
            }
            Err(error) => last = error,
        }
    }
    let named = image.to_owned();
    if let Err(error) = records(deps, move |records| records.failed(&named)).await {
        tracing::warn!(image, %error, "end of a pull cannot be noted: the image's next user asks the registry");
    }
    let text = format!("Failed to pull image \"{image}\": {last}");
    deps.event(&pod.id, EventType::Warning, "Failed", &text);
    Err(last)
}

/// Without the note the image's next user asks the registry, so a full disk gives nothing away.
async fn note_pulled(deps: &Rc<Dependencies>, image: &str, reference: &str, secret: Option<SecretUsed>) {
    let (named, at, time) = (image.to_owned(), reference.to_owned(), deps.wall().to_string());
    if let Err(error) = records(deps, move |records| records.pulled(&named, &at, secret, &time)).await {
        tracing::warn!(image, %error, "pull cannot be noted: the image's next user asks the registry");
    }
}
