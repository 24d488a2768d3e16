//! Looking at what others have mounted on the host, as a pod's host paths and the sub-paths of its volumes: a server that does not
//! answer takes a thread of its own turns, and the pod is told that it waits.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{HostPathVolumeSource, Volume as VolumeSpec};

use crate::dependencies::Dependencies;
use crate::disk::{folders, layout};
use crate::error::StepError;
use crate::pod::external_volumes::MOUNT_DEADLINE;
use crate::pod::parsed_pod::ParsedPod;
use crate::pod::unending::{self, HangsOn};
use crate::volumes::{self, OthersSubPath, PreparedVolumes, VolumeLocation, host};

/// The host paths that have to be of a type and that the pod has not had yet: what it has had is not looked at again, as by a
/// kubelet.
fn unseen<'a>(
    pod: &'a ParsedPod,
    before: Option<&PreparedVolumes>,
) -> Vec<(&'a str, &'a HostPathVolumeSource)> {
    let used = volumes::used(pod);
    let is_new = |volume: &&VolumeSpec| {
        used.contains(volume.name.as_str()) && before.is_none_or(|had| !had.contains_key(&volume.name))
    };
    let all = pod.spec().volumes.iter().flatten().filter(is_new);
    let paths = all.filter_map(|volume| Some((volume.name.as_str(), volume.host_path.as_ref()?)));
    paths.filter(|(_, source)| host::has_type(source)).collect()
}

/// Checks the pod's host paths against their types, beside each other. `before`: the volumes of a pod that has had all of them.
pub(crate) async fn check_host_paths(
    deps: &Dependencies,
    pod: &ParsedPod,
    before: Option<&PreparedVolumes>,
) -> Vec<StepError> {
    let looks = unseen(pod, before).into_iter().map(async |(name, source)| {
        let place = deps.settings.root.join(layout::pod(&pod.id.uid)).join(name);
        let (on, source) = (HangsOn::Host((&source.path).into()), source.clone());
        let look = move || host::check_path(&source);
        let looked = unending::run(&deps.env, on, &place, MOUNT_DEADLINE, "look at a host path for", look);
        looked.await.err().map(|error| volumes::named(error, name))
    });
    join_all(looks).await.into_iter().flatten().collect()
}

/// Shows the sub-paths that a container mounts of others' volumes.
pub(crate) async fn show_sub_paths(
    deps: &Rc<Dependencies>,
    pod: &Arc<ParsedPod>,
    container: &str,
    volumes: &PreparedVolumes,
    env: &[(String, String)],
) -> Result<(), StepError> {
    let Some(spec) = pod.container(container) else { return Ok(()) };
    let all = volumes::others_sub_paths(pod, spec, volumes, env)?;
    let shows = all.into_iter().map(async |one| {
        let (root, place) = (deps.settings.root.clone(), deps.settings.root.join(&one.place));
        let on = of_sub_path(&root, &one);
        let show = move || one.show(&folders::root(&root)?);
        unending::run(&deps.env, on, &place, MOUNT_DEADLINE, "prepare subPath", show).await
    });
    join_all(shows).await.into_iter().collect()
}

fn of_sub_path(root: &Path, sub_path: &OthersSubPath) -> HangsOn {
    match &sub_path.volume.at {
        VolumeLocation::Host(path) => HangsOn::Host(path.clone()),
        VolumeLocation::Ours(at) | VolumeLocation::Device(at) => {
            HangsOn::Ours { root: root.to_owned(), at: at.clone() }
        }
        VolumeLocation::Image(reference) => HangsOn::Server(reference.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::parsed_pod::tests::pod;
    use crate::volumes::Volume;

    #[test]
    fn only_host_paths_of_a_type_that_the_pod_has_not_had_are_looked_at() {
        let path =
            |name: &str, kind: &str| json!({"name": name, "hostPath": {"path": "/mnt/nas", "type": kind}});
        let mounts: Vec<_> = ["plain", "typed", "had"]
            .map(|name| json!({"name": name, "mountPath": format!("/{name}")}))
            .into();
        let pod = pod(json!({"containers": [{"name": "c", "image": "x", "volumeMounts": mounts}],
            "volumes": [path("plain", ""), path("typed", "Directory"), path("had", "Directory"), path("unused", "File")]}));
        let names = |before: Option<&PreparedVolumes>| -> Vec<String> {
            unseen(&pod, before).into_iter().map(|(name, _)| name.to_owned()).collect()
        };
        assert_eq!(names(None), ["typed", "had"]);
        let had = Volume { at: VolumeLocation::Host("/mnt/nas".into()), read_only: false };
        assert_eq!(names(Some(&PreparedVolumes::from([("had".to_owned(), had)]))), ["typed"]);
    }
}
