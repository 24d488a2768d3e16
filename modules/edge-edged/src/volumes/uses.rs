//! Which volumes of a pod its containers use. Pure.

use std::collections::BTreeSet;

use crate::pod::parsed_pod::ParsedPod;

/// The names of the volumes that containers mount, have as devices or take variables from.
pub(crate) fn used(pod: &ParsedPod) -> BTreeSet<&str> {
    let all = mounted(pod).into_iter().chain(devices(pod));
    all.chain(pod.newer.env_file_volumes()).collect()
}

/// The names of the volumes that containers mount.
pub(crate) fn mounted(pod: &ParsedPod) -> BTreeSet<&str> {
    let spec = pod.spec();
    let own = spec.init_containers.iter().flatten().chain(&spec.containers).map(|own| &own.volume_mounts);
    let debugging = spec.ephemeral_containers.iter().flatten().map(|own| &own.volume_mounts);
    own.chain(debugging).flatten().flatten().map(|mount| mount.name.as_str()).collect()
}

/// The names of the volumes that containers have as block devices.
pub(crate) fn devices(pod: &ParsedPod) -> BTreeSet<&str> {
    let spec = pod.spec();
    let own = spec.init_containers.iter().flatten().chain(&spec.containers).map(|own| &own.volume_devices);
    let debugging = spec.ephemeral_containers.iter().flatten().map(|own| &own.volume_devices);
    own.chain(debugging).flatten().flatten().map(|device| device.name.as_str()).collect()
}
