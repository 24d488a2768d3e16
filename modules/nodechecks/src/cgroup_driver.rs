//! Whether the runtime makes cgroups as `cgroupDriver` says. Pure.

use config::edge::CgroupDriver;
use cri::v1::CgroupDriver as RuntimeDriver;

/// What is wrong, and its cure; `None`: nothing, or the runtime does not say.
pub fn mismatch(own: CgroupDriver, runtime: Option<RuntimeDriver>) -> Option<String> {
    let (name, other, cure) = match (own, runtime?) {
        (CgroupDriver::Cgroupfs, RuntimeDriver::Systemd) => ("cgroupfs", "systemd", "false"),
        (CgroupDriver::Systemd, RuntimeDriver::Cgroupfs) => ("systemd", "cgroupfs", "true"),
        (CgroupDriver::Cgroupfs, RuntimeDriver::Cgroupfs)
        | (CgroupDriver::Systemd, RuntimeDriver::Systemd) => return None,
    };
    Some(format!(
        "the container runtime makes cgroups by {other} and cgroupDriver is {name}: set \
         modules.edged.tailoredKubeletConfig.cgroupDriver to {other} in edgecore.yaml, or have the runtime do it by {name} \
         (containerd: SystemdCgroup = {cure}), and restart what was changed"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mismatch_is_said_with_its_cure() {
        let found = mismatch(CgroupDriver::Cgroupfs, Some(RuntimeDriver::Systemd)).unwrap();
        assert!(
            found.contains("cgroupDriver to systemd") && found.contains("SystemdCgroup = false"),
            "{found}"
        );
        let found = mismatch(CgroupDriver::Systemd, Some(RuntimeDriver::Cgroupfs)).unwrap();
        assert!(
            found.contains("cgroupDriver to cgroupfs") && found.contains("SystemdCgroup = true"),
            "{found}"
        );
        assert_eq!(mismatch(CgroupDriver::Systemd, Some(RuntimeDriver::Systemd)), None);
        assert_eq!(mismatch(CgroupDriver::Systemd, None), None);
    }
}
