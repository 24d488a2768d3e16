//! The definitions of the custom resources, which Helm has in the chart's `crds`.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use beehive::Env;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::{Api, PostParams};

/// 30 s: an API server serves a definition within a second or two of taking it.
const SERVED_WITHIN: Duration = Duration::from_secs(30);
/// 200 ms between two looks whether a definition is served.
const PAUSE: Duration = Duration::from_millis(200);

/// What became of the definitions.
pub(crate) struct Applied {
    /// How many are served.
    pub(crate) served: usize,
    /// How many of them are KubeEdge's, as they were.
    pub(crate) kept: usize,
}

/// Brings each definition to what this release has. One of another release is replaced, not merged: what that one served beside stays
/// nowhere. `is_beside`: KubeEdge's CloudCore runs, and those that are KubeEdge's stay as they are.
///
/// # Errors
/// When one cannot be written, will not do, or is not served in time.
pub(crate) async fn apply(client: &Client, is_beside: bool, env: &Env) -> Result<Applied> {
    let mut kept = 0;
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let ours = crd::manifests();
    for definition in &ours {
        let name = name_of(definition);
        let at = || format!("cannot write the definition {name}");
        match api.get_opt(name).await.with_context(at)? {
            None => drop(api.create(&PostParams::default(), definition).await.with_context(at)?),
            Some(theirs) if theirs.spec.versions == definition.spec.versions => {}
            Some(theirs) if is_beside && crd::is_kubeedges(&theirs) => {
                match crd::stands_in(&theirs, definition) {
                    Ok(()) => kept += 1,
                    Err(why) => bail!(
                        "the definition {name}, which is KubeEdge's, {why}: bring KubeEdge to 1.22 or 1.23 first"
                    ),
                }
            }
            Some(theirs) => {
                let mut next = definition.clone();
                next.metadata.resource_version = theirs.metadata.resource_version;
                api.replace(name, &PostParams::default(), &next).await.with_context(at)?;
            }
        }
    }
    for definition in &ours {
        let name = name_of(definition);
        match env.timeout(SERVED_WITHIN, until_served(&api, name, env)).await {
            Some(served) => served.with_context(|| format!("cannot read the definition {name}"))?,
            None => bail!(
                "the definition {name} is not served after {} s: see its conditions with `kubectl describe crd {name}`",
                SERVED_WITHIN.as_secs()
            ),
        }
    }
    Ok(Applied { served: ours.len(), kept })
}

pub(crate) fn name_of(definition: &CustomResourceDefinition) -> &str {
    definition.metadata.name.as_deref().unwrap_or_default()
}

async fn until_served(api: &Api<CustomResourceDefinition>, name: &str, env: &Env) -> Result<(), kube::Error> {
    loop {
        let conditions = api.get(name).await?.status.and_then(|status| status.conditions).unwrap_or_default();
        if conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True") {
            return Ok(());
        }
        env.sleep(PAUSE).await;
    }
}
