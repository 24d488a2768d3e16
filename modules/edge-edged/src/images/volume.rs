//! Volumes that are images (`volumes[].image`): the runtime fetches them as it does containers' images, and mounts them itself.

use std::rc::Rc;

use cri::v1::VersionResponse;
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

/// The volumes of a pod that are images and that its containers mount, once their images are here.
///
/// # Errors
/// When the runtime can't, or an image does not come.
pub(crate) async fn set_up(deps: &Rc<Dependencies>, pod: &ParsedPod) -> Result<PreparedVolumes, StepError> {
    let used = volumes::used(pod);
    let own = pod.spec().volumes.iter().flatten().filter(|volume| volume.image.is_some());
    let own: Vec<&VolumeSpec> = own.filter(|volume| used.contains(volume.name.as_str())).collect();
    let mut prepared = PreparedVolumes::new();
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
        let policy = credentials::policy_of(source.pull_policy.as_deref(), &reference);
        let image = pull::ensure_volume_image(deps, pod, &reference, policy).await;
        let image = image.map_err(|failure| {
            StepError::Missing(failed(&volume.name, &format!("{}: {}", failure.reason, failure.message)))
        })?;
        let at = VolumeLocation::Image(image.reference);
        prepared.insert(volume.name.clone(), Volume { at, read_only: true });
    }
    Ok(prepared)
}

#[cfg(test)]
mod tests {
    use super::*;

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
