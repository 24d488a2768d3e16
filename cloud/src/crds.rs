//! The definitions of the custom resources, brought to the API server at start.

use std::time::Duration;

use beehive::Env;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, PostParams};
use thiserror::Error;

/// 30 s: an API server serves a definition within a second or two of taking it.
const SERVED_WITHIN: Duration = Duration::from_secs(30);
/// 200 ms between looks whether a definition is served.
const LOOK_PAUSE: Duration = Duration::from_millis(200);
/// How often a write is tried when others write, too.
const TRIES: usize = 5;

/// Why a definition is not there.
#[derive(Debug, Error)]
pub enum CrdError {
    /// The API server does not take it from us.
    #[error(
        "cannot apply the definition `{name}`: apply `cloud/deploy/crds` with kubectl, or give CloudCore the rules of `cloud/deploy/rbac.yaml`"
    )]
    Apply {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: kube::Error,
    },
    /// The API server has it and does not serve it.
    #[error(
        "the definition `{0}` is not served after 30 s: see its conditions with `kubectl describe crd {0}`"
    )]
    NotServed(String),
}

/// Creates or updates every definition and waits until all are served.
///
/// # Errors
/// See [`CrdError`].
pub async fn apply(client: &kube::Client, env: &Env) -> Result<(), CrdError> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let ours = crd::manifests();
    for definition in &ours {
        let name = definition.metadata.name.clone().unwrap_or_default();
        put(&api, definition, &name)
            .await
            .map_err(|source| CrdError::Apply { name: name.clone(), source })?;
    }
    for definition in &ours {
        let name = definition.metadata.name.clone().unwrap_or_default();
        let served = env.timeout(SERVED_WITHIN, until_served(&api, &name, env)).await;
        match served {
            Some(Ok(())) => {}
            Some(Err(source)) => return Err(CrdError::Apply { name, source }),
            None => return Err(CrdError::NotServed(name)),
        }
    }
    Ok(())
}

async fn put(
    api: &Api<CustomResourceDefinition>,
    ours: &CustomResourceDefinition,
    name: &str,
) -> Result<(), kube::Error> {
    let mut last = Ok(());
    for _ in 0..TRIES {
        let outcome = match api.get_opt(name).await? {
            None => api.create(&PostParams::default(), ours).await,
            Some(theirs) if is_current(&theirs, ours) => return Ok(()),
            Some(theirs) => {
                let mut next = ours.clone();
                next.metadata.resource_version = theirs.metadata.resource_version;
                api.replace(name, &PostParams::default(), &next).await
            }
        };
        match outcome {
            Ok(_) => return Ok(()),
            // Another CloudCore was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => last = Err(kube::Error::Api(status)),
            Err(error) => return Err(error),
        }
    }
    last
}

/// The server adds defaults of its own (list kind, conversion, singular), so ours is compared by what it says of the
/// versions.
fn is_current(theirs: &CustomResourceDefinition, ours: &CustomResourceDefinition) -> bool {
    theirs.spec.versions == ours.spec.versions && theirs.spec.scope == ours.spec.scope
}

async fn until_served(api: &Api<CustomResourceDefinition>, name: &str, env: &Env) -> Result<(), kube::Error> {
    loop {
        let conditions = api.get(name).await?.status.and_then(|status| status.conditions).unwrap_or_default();
        if conditions.iter().any(|c| c.type_ == "Established" && c.status == "True") {
            return Ok(());
        }
        env.sleep(LOOK_PAUSE).await;
    }
}
