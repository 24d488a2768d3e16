//! Who makes the cgroups of containers, as a runtime without `RuntimeConfig` shows it in the configuration that the verbose
//! `Status` has. Pure.

use std::collections::HashMap;

use serde_json::Value;

use crate::v1::CgroupDriver;

/// Longer configurations are not read.
const CONFIG_MAX: usize = 4 << 20;

/// `None`: nothing there says it.
///
/// containerd (1.5 to 1.7) shows its configuration as JSON, where the usual handler's option `SystemdCgroup` decides, and
/// CRI-O as TOML, where `cgroup_manager` does.
pub(crate) fn of_info(info: &HashMap<String, String>) -> Option<CgroupDriver> {
    let config = info.get("config").filter(|config| config.len() <= CONFIG_MAX)?;
    match serde_json::from_str::<Value>(config) {
        Ok(config) => of_containerd(&config),
        Err(_) => of_crio(config),
    }
}

fn of_containerd(config: &Value) -> Option<CgroupDriver> {
    let containerd = config.get("containerd")?;
    let handler = containerd.get("defaultRuntimeName").and_then(Value::as_str).unwrap_or("runc");
    let handler = containerd.get("runtimes")?.get(handler)?;
    // Of other shims than runc's nothing is known.
    if handler.get("runtimeType").and_then(Value::as_str) != Some("io.containerd.runc.v2") {
        return None;
    }
    let option = handler.get("options").and_then(|options| options.get("SystemdCgroup"));
    let is_systemd = option.and_then(Value::as_bool).unwrap_or(false)
        || config.get("systemdCgroup").and_then(Value::as_bool).unwrap_or(false);
    Some(if is_systemd { CgroupDriver::Systemd } else { CgroupDriver::Cgroupfs })
}

fn of_crio(config: &str) -> Option<CgroupDriver> {
    let set = config.lines().filter_map(|line| line.split_once('='));
    let mut set = set.filter(|(key, _)| key.trim() == "cgroup_manager");
    match set.next()?.1.trim().trim_matches('"') {
        "systemd" => Some(CgroupDriver::Systemd),
        "cgroupfs" => Some(CgroupDriver::Cgroupfs),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_of_a_runtime_says_who_makes_cgroups() {
        let info = |config: &str| HashMap::from([("config".to_owned(), config.to_owned())]);
        let containerd = |options: &str| {
            let text = format!(
                r#"{{"containerd":{{"defaultRuntimeName":"r","runtimes":{{"r":{{"runtimeType":"io.containerd.runc.v2","options":{options}}},
                "other":{{"runtimeType":"io.containerd.runc.v2","options":{{"SystemdCgroup":true}}}}}}}},"systemdCgroup":false}}"#
            );
            of_info(&info(&text))
        };
        assert_eq!(containerd(r#"{"SystemdCgroup":true}"#), Some(CgroupDriver::Systemd));
        assert_eq!(containerd(r#"{"SystemdCgroup":false}"#), Some(CgroupDriver::Cgroupfs));
        assert_eq!(containerd("null"), Some(CgroupDriver::Cgroupfs));
        let crio = |value: &str| of_info(&info(&format!("[crio.runtime]\n  cgroup_manager = \"{value}\"\n")));
        assert_eq!(crio("systemd"), Some(CgroupDriver::Systemd));
        assert_eq!(crio("cgroupfs"), Some(CgroupDriver::Cgroupfs));
        assert_eq!(crio("magic"), None);
        for nothing in ["", "{}", "[]", r#"{"containerd":{"runtimes":{}}}"#] {
            assert_eq!(of_info(&info(nothing)), None, "{nothing}");
        }
        assert_eq!(of_info(&HashMap::new()), None);
    }
}
