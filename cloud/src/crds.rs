//! The definitions of the custom resources: looked at when CloudCore starts, and brought to the API server where it may.

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
    /// The API server does not let us see or write it.
    #[error(
        "cannot read or apply the definition `{name}`: install with `keadm init` of this release, or `helm upgrade` and the chart's `crds`"
    )]
    Apply {
        /// Which.
        name: String,
        /// Why.
        #[source]
        source: kube::Error,
    },
    /// It is missing or another release's, and this account may not write it.
    #[error(
        "the definition `{name}` {state}, and this account may not write it: run `keadm init --force` of this release, or apply `crds/{file}` of its chart with kubectl, as an administrator"
    )]
    NotOurs {
        /// Which.
        name: String,
        /// What is wrong with it.
        state: &'static str,
        /// The file that has it.
        file: String,
    },
    /// The API server has it and does not serve it.
    #[error(
        "the definition `{0}` is not served after 30 s: see its conditions with `kubectl describe crd {0}`"
    )]
    NotServed(String),
}

/// Looks that every definition is there as this release has it, and waits until all are served. One that is missing or older
/// is created or updated, if this account may. If it may not, one of KubeEdge's will do that has what is read and written.
///
/// # Errors
/// See [`CrdError`].
pub async fn apply(client: &kube::Client, env: &Env) -> Result<(), CrdError> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let ours = crd::manifests();
    for definition in &ours {
        put(&api, definition, &name_of(definition)).await?;
    }
    for definition in &ours {
        let name = name_of(definition);
        let served = env.timeout(SERVED_WITHIN, until_served(&api, &name, env)).await;
        match served {
            Some(Ok(())) => {}
            Some(Err(source)) => return Err(CrdError::Apply { name, source }),
            None => return Err(CrdError::NotServed(name)),
        }
    }
    Ok(())
}

fn name_of(definition: &CustomResourceDefinition) -> String {
    definition.metadata.name.clone().unwrap_or_default()
}

async fn put(
    api: &Api<CustomResourceDefinition>,
    ours: &CustomResourceDefinition,
    name: &str,
) -> Result<(), CrdError> {
    let failed = |source| CrdError::Apply { name: name.to_owned(), source };
    let mut last = None;
    for _ in 0..TRIES {
        let found = api.get_opt(name).await.map_err(failed)?;
        let (state, outcome) = match found.clone() {
            Some(theirs) if is_current(&theirs, ours) => return Ok(()),
            None => ("is not there", api.create(&PostParams::default(), ours).await),
            Some(theirs) => {
                let mut next = ours.clone();
                next.metadata.resource_version = theirs.metadata.resource_version;
                ("is another release's", api.replace(name, &PostParams::default(), &next).await)
            }
        };
        match outcome {
            Ok(_) => return Ok(()),
            // Another CloudCore was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => last = Some(kube::Error::Api(status)),
            // KubeEdge's, which `keadm init` leaves as they are while its CloudCore runs beside this one.
            Err(kube::Error::Api(status))
                if status.code == 403 && found.as_ref().is_some_and(|found| does(found, ours)) =>
            {
                tracing::info!(name, "the definition is KubeEdge's, and stays");
                return Ok(());
            }
            Err(kube::Error::Api(status)) if status.code == 403 => {
                return Err(CrdError::NotOurs { name: name.to_owned(), state, file: crd::file_name(ours) });
            }
            Err(error) => return Err(failed(error)),
        }
    }
    last.map_or(Ok(()), |error| Err(failed(error)))
}

/// The server adds defaults of its own (list kind, conversion, singular), so ours is compared by what it says of the
/// versions.
fn is_current(theirs: &CustomResourceDefinition, ours: &CustomResourceDefinition) -> bool {
    theirs.spec.versions == ours.spec.versions && theirs.spec.scope == ours.spec.scope
}

/// Whether it is KubeEdge's and will do.
fn does(theirs: &CustomResourceDefinition, ours: &CustomResourceDefinition) -> bool {
    crd::is_kubeedges(theirs) && crd::stands_in(theirs, ours).is_ok()
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
