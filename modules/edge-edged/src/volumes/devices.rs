//! Volumes that containers have as block devices (`volumeDevices`).

use std::path::{Path, PathBuf};

use cri::v1::Device;
use k8s_openapi::api::core::v1::Container;

use super::{PreparedVolumes, VolumeLocation};
use crate::disk::beneath::Folder;
use crate::disk::folders;
use crate::error::StepError;

/// The devices of a container, in the order in which the pod names them (kubelet's `makeBlockVolumes`).
///
/// # Errors
/// In the kubelet's words.
pub(crate) fn of_container(
    root: &Path,
    spec: &Container,
    volumes: &PreparedVolumes,
) -> Result<Vec<Device>, StepError> {
    let one = |wanted: &k8s_openapi::api::core::v1::VolumeDevice| {
        let (path, name) = (&wanted.device_path, &wanted.name);
        if !path.starts_with('/') {
            let shown: String = path.chars().take(64).collect();
            return Err(StepError::Missing(format!("error DevicePath `{shown}` must be an absolute path")));
        }
        let volume = volumes.get(name);
        let Some((VolumeLocation::Device(link), read_only)) = volume.map(|own| (&own.at, own.read_only))
        else {
            let container = &spec.name;
            return Err(StepError::Missing(format!(
                "cannot find volume \"{name}\" to pass into container \"{container}\""
            )));
        };
        Ok(Device {
            container_path: path.clone(),
            host_path: root.join(link).display().to_string(),
            permissions: if read_only { "r" } else { "mrw" }.to_owned(),
        })
    };
    spec.volume_devices.iter().flatten().map(one).collect()
}

/// Leads the pod to a device of the host. Blocks.
pub(super) fn link(root: &Folder, at: &Path, device: &Path) -> Result<PathBuf, StepError> {
    let (Some(folder), Some(name)) = (at.parent(), at.file_name().and_then(|name| name.to_str())) else {
        return Err(StepError::Config(format!("{} is no place for a device", at.display())));
    };
    let folder = folders::lead_to(root, folder)?;
    if folder.link_target(name).as_deref() != Some(device) {
        if folder.kind(name)?.is_some() {
            folder.remove(Path::new(name))?;
        }
        folder.link(device, name)?;
    }
    Ok(at.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::parsed_pod::tests::pod;
    use crate::volumes::{Volume, uses};

    fn of(path: &str, volume: Option<Volume>) -> Result<Vec<Device>, String> {
        let devices = json!([{"name": "v", "devicePath": path}]);
        let pod = pod(json!({"containers": [{"name": "c", "image": "x", "volumeDevices": devices}]}));
        assert!(uses::devices(&pod).contains("v"));
        let volumes = volume.map(|volume| ("v".to_owned(), volume)).into_iter().collect();
        let spec = pod.container("c").unwrap();
        of_container(Path::new("/root"), spec, &volumes).map_err(|error| error.to_string())
    }

    #[test]
    fn a_device_is_where_the_pod_says_and_what_cannot_be_given_is_refused_in_the_kubelets_words() {
        let device = |read_only| Volume { at: VolumeLocation::Device("pods/u/d".into()), read_only };
        let given = of("/dev/x", Some(device(false))).unwrap().remove(0);
        assert_eq!(
            (given.host_path.as_str(), given.container_path.as_str(), given.permissions.as_str()),
            ("/root/pods/u/d", "/dev/x", "mrw")
        );
        assert_eq!(of("/dev/x", Some(device(true))).unwrap()[0].permissions, "r");
        let words = "error DevicePath `dev/x` must be an absolute path";
        assert_eq!(of("dev/x", Some(device(false))), Err(words.to_owned()));
        let words = "cannot find volume \"v\" to pass into container \"c\"";
        let mounted = Volume { at: VolumeLocation::Ours("v".into()), read_only: false };
        assert_eq!(of("/dev/x", None), Err(words.to_owned()));
        assert_eq!(of("/dev/x", Some(mounted)), Err(words.to_owned()));
    }

    #[test]
    fn a_link_leads_to_the_device_that_is_meant_now() {
        let dir = tempfile::tempdir().unwrap();
        let root = Folder::root(dir.path()).unwrap();
        let at = Path::new("pods/u/volumeDevices/kubernetes.io~local-volume/pv");
        for device in ["/dev/one", "/dev/two", "/dev/two"] {
            link(&root, at, Path::new(device)).unwrap();
            assert_eq!(std::fs::read_link(dir.path().join(at)).unwrap(), Path::new(device));
        }
    }
}
