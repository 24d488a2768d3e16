//! Whether the runtime gives containers devices by the Container Device Interface. Pure.

use std::collections::HashMap;

use serde_json::Value;

/// Runtimes say it nowhere: a release of containerd before 1.7 passes the field over in silence, and a container would start
/// without its device. Of containerd the configuration counts that `Status` shows, where it is off until 2.0; others have had it
/// for longer than they are supported.
pub(crate) fn is_supported(runtime: &str, info: &HashMap<String, String>) -> bool {
    if runtime != "containerd" {
        return true;
    }
    let config = info.get("config").and_then(|config| serde_json::from_str::<Value>(config).ok());
    config.is_some_and(|config| config.get("enableCDI").and_then(Value::as_bool).unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containerd_has_it_when_its_configuration_says_so() {
        let info = |config: &str| HashMap::from([("config".to_owned(), config.to_owned())]);
        assert!(is_supported("containerd", &info(r#"{"enableCDI": true, "cdiSpecDirs": ["/etc/cdi"]}"#)));
        assert!(!is_supported("containerd", &info(r#"{"enableCDI": false}"#)));
        assert!(!is_supported("containerd", &info(r#"{"containerdRootDir": "/x"}"#)), "1.6");
        assert!(!is_supported("containerd", &info("")));
        assert!(!is_supported("containerd", &HashMap::new()));
        assert!(is_supported("cri-o", &HashMap::new()));
    }
}
