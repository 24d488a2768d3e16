//! Sub-paths of volumes that are on others' file systems: a server that does not answer keeps whoever looks at them.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::Container;

use super::subpath::{inner_path, is_others, sub_path};
use super::{PreparedVolumes, Volume};
use crate::disk::beneath::Folder;
use crate::disk::layout;
use crate::error::StepError;
use crate::pod::parsed_pod::ParsedPod;

/// A sub-path of a volume that is on others' file systems: to look at it may never end.
#[derive(Debug)]
pub(crate) struct OthersSubPath {
    pub(crate) volume: Volume,
    /// Where it is shown, below `rootDirectory`.
    pub(crate) place: PathBuf,
    inner: String,
    /// The volume's and the container's.
    names: (String, String),
}

impl OthersSubPath {
    /// Shows it at its place. Blocks.
    pub(crate) fn show(&self, root: &Folder) -> Result<(), StepError> {
        let (volume, container) = &self.names;
        sub_path(root, &self.volume, &self.inner, (volume, container), &self.place)
    }
}

/// The sub-paths that a container mounts of others' volumes: they are to be shown before [`mounts_of`] is asked.
pub(crate) fn others_sub_paths(
    pod: &ParsedPod,
    spec: &Container,
    volumes: &PreparedVolumes,
    env: &[(String, String)],
) -> Result<Vec<OthersSubPath>, StepError> {
    let mut all = Vec::new();
    for (index, wanted) in spec.volume_mounts.iter().flatten().enumerate() {
        let volume = volumes.get(&wanted.name).filter(|volume| is_others(volume));
        if let Some(volume) = volume
            && let Some(inner) = inner_path(wanted, env)?
        {
            let place = layout::sub_path(&pod.id.uid, &spec.name, &wanted.name, index);
            let names = (wanted.name.clone(), spec.name.clone());
            all.push(OthersSubPath { volume: volume.clone(), place, inner, names });
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::parsed_pod::tests::pod;
    use crate::volumes::VolumeLocation;

    #[test]
    fn only_sub_paths_of_what_others_have_mounted_are_looked_at_apart() {
        let ours = |kind: &str| VolumeLocation::Ours(layout::volume("u-1", kind, "v"));
        for (at, others) in [
            (VolumeLocation::Host("/mnt/nas".into()), true),
            (ours("nfs"), true),
            (VolumeLocation::Ours(layout::volume("u-1", "csi", "v").join("mount")), true),
            (ours("local-volume"), true),
            (ours("empty-dir"), false),
            (ours("configmap"), false),
            (VolumeLocation::Image("sha256:1".into()), false),
        ] {
            let mounts = json!([{"name": "v", "mountPath": "/whole"}, {"name": "v", "mountPath": "/part", "subPath": "a/b"}]);
            let pod = pod(json!({"containers": [{"name": "c", "image": "x", "volumeMounts": mounts}],
                "volumes": [{"name": "v", "emptyDir": {}}]}));
            let volume = Volume { at: at.clone(), read_only: false };
            let volumes = PreparedVolumes::from([("v".to_owned(), volume)]);
            let found = others_sub_paths(&pod, pod.container("c").unwrap(), &volumes, &[]).unwrap();
            let places: Vec<PathBuf> = found.into_iter().map(|one| one.place).collect();
            let wanted = if others { vec![layout::sub_path("u-1", "c", "v", 1)] } else { Vec::new() };
            assert_eq!(places, wanted, "{at:?}");
        }
    }
}
