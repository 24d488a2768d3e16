//! Volumes that are images (`volumes[].image`): the runtime fetches them as it does containers' images, and mounts them itself.

use std::rc::Rc;

use cri::v1::VersionResponse;
use futures::future::{AbortRegistration, Abortable};
use k8s_openapi::api::core::v1::Volume as VolumeSpec;

use crate::dependencies::Dependencies;
use crate::error::StepError;
use crate::images::credentials;
use crate::images::pull;
use crate::pod::parsed_pod::ParsedPod;
use crate::volumes::{self, PreparedVolumes, Volume, VolumeLocation};

/// The first releases that mount images; an older one takes the mount for one of a path that is not there.
const SINCE: [(&str, (u32, u32)); 2] = [("containerd", (2, 1)), ("cri-o", (1, 31))];

/// Why the runtime can't; `None`: it can, or is one of which nothing is known and that will say so itself.
fn refusal(runtime: &VersionResponse) -> Option<String> {
    let (name, (major, minor)) = SINCE.iter().find(|(name, _)| *name == runtime.runtime_name)?;
    let version = runtime.runtime_version.trim_start_matches('v');
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    let is_older = match (parts.next().flatten(), parts.next().flatten()) {
        (Some(own_major), Some(own_minor)) => (own_major, own_minor) < (*major, *minor),
        _ => return None,
    };
    let shown: String = version.chars().take(64).collect();
    is_older.then(|| {
        format!("image volumes are not supported by the container runtime {name} {shown}: {name} has them since {major}.{minor}")
    })
}

/// Those that the pod has had, which stay what they are as long as it lives, and those that are to be found.
fn had<'a>(pod: &'a ParsedPod, before: Option<&PreparedVolumes>) -> (PreparedVolumes, Vec<&'a VolumeSpec>) {
    let used = volumes::used(pod);
    let own = pod.spec().volumes.iter().flatten().filter(|volume| volume.image.is_some());
    let (mut had, mut missing) = (PreparedVolumes::new(), Vec::new());
    for volume in own.filter(|volume| used.contains(volume.name.as_str())) {
        match before.and_then(|before| before.get(&volume.name)) {
            Some(known) => drop(had.insert(volume.name.clone(), known.clone())),
            None => missing.push(volume),
        }
    }
    (had, missing)
}

/// The volumes of a pod that are images and that its containers mount, once their images are here. What an image is is found out when
/// the pod starts, by Kubernetes' word (`ImageVolumeSource`), and not again: a pod goes on without its registry. `before`: the volumes
/// of a pod that has had all of them. `has_run`: it had them before edgecore started.
///
/// # Errors
/// When the runtime can't, or an image does not come.
pub(crate) async fn set_up(
    deps: &Rc<Dependencies>,
    pod: &ParsedPod,
    before: Option<&PreparedVolumes>,
    has_run: bool,
) -> Result<PreparedVolumes, StepError> {
    let (mut prepared, own) = had(pod, before);
    if own.is_empty() {
        return Ok(prepared);
    }
    let failed =
        |volume: &str, why: &str| format!("MountVolume.SetUp failed for volume \"{volume}\" : {why}");
    let cannot = refusal(&deps.runtime.version().await?);
    for volume in own {
        if let Some(why) = &cannot {
            return Err(StepError::Config(failed(&volume.name, why)));
        }
        let source = volume.image.clone().unwrap_or_default();
        let reference = source.reference.unwrap_or_default();
        let at_hand = if has_run { pull::at_hand(deps, &reference).await } else { None };
        let image = match at_hand {
            Some(image) => image,
            None => {
                let policy = credentials::policy_of(source.pull_policy.as_deref(), &reference);
                let image = pull::ensure_volume_image(deps, pod, &reference, policy).await;
                image.map_err(|failure| {
                    let why = format!("{}: {}", failure.reason, failure.message);
                    StepError::Missing(failed(&volume.name, &why))
                })?
            }
        };
        let at = VolumeLocation::Image(image.reference);
        prepared.insert(volume.name.clone(), Volume { at, read_only: true });
    }
    Ok(prepared)
}

/// The same until the pod is to end, which waits for no image.
pub(crate) async fn unless_ended<T>(
    images: impl Future<Output = Result<T, StepError>>,
    pulls: AbortRegistration,
) -> Result<T, StepError> {
    let done = Abortable::new(images, pulls).await;
    done.unwrap_or_else(|_| {
        Err(StepError::Missing("the pod ends before the images of its volumes are here".into()))
    })
}

#[cfg(test)]
mod tests {
    use futures::future::AbortHandle;
    use serde_json::json;

    use super::*;
    use crate::pod::parsed_pod::tests::pod;

    #[test]
    fn an_image_that_a_pod_has_had_is_not_looked_for_again() {
        let image = |name: &str| json!({"name": name, "image": {"reference": "r.io/models:latest"}});
        let mounts = json!([{"name": "a", "mountPath": "/a"}, {"name": "b", "mountPath": "/b"}]);
        let pod = pod(json!({"containers": [{"name": "c", "image": "x", "volumeMounts": mounts}],
            "volumes": [image("a"), image("b"), image("unused"), {"name": "own", "emptyDir": {}}]}));
        let names = |own: &[&VolumeSpec]| own.iter().map(|volume| volume.name.clone()).collect::<Vec<_>>();
        let (none, missing) = had(&pod, None);
        assert!(none.is_empty() && names(&missing) == ["a", "b"]);
        let at = Volume { at: VolumeLocation::Image("sha256:1".into()), read_only: true };
        let before = PreparedVolumes::from([("a".to_owned(), at.clone()), ("own".to_owned(), at.clone())]);
        let (kept, missing) = had(&pod, Some(&before));
        assert_eq!(
            (kept, names(&missing)),
            (PreparedVolumes::from([("a".to_owned(), at)]), vec!["b".to_owned()])
        );
    }

    #[test]
    fn a_pod_that_ends_waits_for_no_image_of_its_volumes() {
        actix_rt::System::new().block_on(async {
            let (handle, pulls) = AbortHandle::new_pair();
            let never = unless_ended::<()>(futures::future::pending(), pulls);
            let (done, ()) = futures::join!(never, async { handle.abort() });
            assert!(matches!(done, Err(StepError::Missing(_))));
            let (_handle, pulls) = AbortHandle::new_pair();
            assert_eq!(unless_ended(async { Ok(1) }, pulls).await, Ok(1));
        });
    }

    #[test]
    fn older_runtimes_are_refused_by_name() {
        let of = |name: &str, version: &str| {
            refusal(&VersionResponse {
                runtime_name: name.into(),
                runtime_version: version.into(),
                ..VersionResponse::default()
            })
        };
        for version in ["1.6.20~ds1", "v1.7.28", "2.0.1"] {
            let words = of("containerd", version).unwrap();
            assert!(words.contains("containerd has them since 2.1"), "{words}");
        }
        assert_eq!(
            [of("containerd", "v2.1.0"), of("containerd", "10.0.0"), of("cri-o", "1.31.0")],
            [None, None, None]
        );
        assert!(of("cri-o", "1.30.2").is_some());
        assert_eq!([of("other", "0.1"), of("containerd", "unknown")], [None, None]);
    }
}
