//! Mounts inside the mounts of a volume. Pure.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{PodSpec, VolumeMount};

/// Where, inside the volume `name`, other volumes are mounted: the folders that must be there before the volume is made
/// read-only, because nobody can make them afterwards. Of mounts inside each other the outermost alone: what lies in it is
/// the inner volume's matter. The kubelet's `getNestedMountpoints`.
pub(super) fn mount_points(spec: &PodSpec, name: &str) -> BTreeSet<PathBuf> {
    let own = spec.init_containers.iter().flatten().chain(&spec.containers).map(|own| &own.volume_mounts);
    let debugging = spec.ephemeral_containers.iter().flatten().map(|own| &own.volume_mounts);
    let mut found = BTreeSet::new();
    for mounts in own.chain(debugging) {
        of_container(mounts.iter().flatten(), name, &mut found);
    }
    found
}

fn of_container<'a>(
    mounts: impl Iterator<Item = &'a VolumeMount>,
    name: &str,
    found: &mut BTreeSet<PathBuf>,
) {
    let (mut all, mut own) = (BTreeSet::new(), Vec::new());
    for mount in mounts {
        let Some(path) = plain(&mount.mount_path) else { continue };
        // A sub-path is a place of its own in the volume, and never read-only because of us.
        let is_whole = [&mount.sub_path, &mount.sub_path_expr].into_iter().flatten().all(String::is_empty);
        if mount.name == name && is_whole {
            own.push(path.clone());
        }
        all.insert(path);
    }
    for outer in &own {
        // In order, a folder comes before what lies in it.
        let mut last: Option<&Path> = None;
        for inner in &all {
            let Ok(below) = inner.strip_prefix(outer) else { continue };
            if below.as_os_str().is_empty() || last.is_some_and(|last| inner.starts_with(last)) {
                continue;
            }
            last = Some(inner);
            found.insert(below.to_owned());
        }
    }
}

/// A path without `.` and superfluous slashes; `None` when it leads up, which no mount may.
fn plain(path: &str) -> Option<PathBuf> {
    let mut plain = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::parsed_pod::tests::pod;

    #[test]
    fn the_outermost_of_the_mounts_inside_a_volume_are_found() {
        let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path});
        let pod = pod(json!({
            "containers": [{"name": "a", "image": "x", "volumeMounts": [
                mount("v", "/dir"), mount("w", "/dir/nested"), mount("w", "/dir/nested/double"),
                mount("w", "/dir/nested-vol"), mount("w", "/dir/nested2/deep/"), mount("w", "/dirt"),
            ]}],
            "initContainers": [{"name": "b", "image": "x", "volumeMounts": [
                mount("v", "elsewhere"), mount("w", "/elsewhere/x"), mount("w", "/../elsewhere/y"),
                {"name": "v", "mountPath": "/sub", "subPath": "s"}, mount("w", "/sub/in"),
            ]}],
            "volumes": [{"name": "v", "configMap": {"name": "m"}}, {"name": "w", "emptyDir": {}}],
        }));
        let found: Vec<_> = mount_points(pod.spec(), "v").into_iter().collect();
        let wanted = ["nested", "nested-vol", "nested2/deep", "x"].map(PathBuf::from);
        assert_eq!(found, wanted);
        assert_eq!(mount_points(pod.spec(), "w"), BTreeSet::from([PathBuf::from("double")]));
    }
}
