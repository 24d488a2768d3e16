//! What mappers may reach. They mount the folder of `dmi.sock`, most of them as root and writable: nothing of the node's
//! own may lie below it.

use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use crate::edge::{DeviceTwin, EdgeCore};
use crate::load::Defect;

/// The folder that mappers mount.
const FOLDER: &str = "modules.deviceTwin.dmiSockPath";
const RULES: &str = "modules.deviceTwin.mappers";
/// Ends of the keys whose values are paths, also relative ones.
const PATHS: [&str; 7] = ["File", "Path", "path", "Dir", "Directory", "Source", "Conf"];
/// 64: more rules than a node has mappers are a mistake.
const RULES_MAX: usize = 64;

/// What is wrong with the settings of the mappers themselves.
pub(crate) fn defects(settings: &DeviceTwin) -> Vec<Defect> {
    let mut defects = Vec::new();
    if !settings.dmi_sock_path.is_absolute() {
        let shown = settings.dmi_sock_path.display();
        defects.push(Defect::new(FOLDER, format!("is `{shown}`, not an absolute path")));
    }
    let group = &settings.dmi_sock_group;
    if group.len() > 64 || group.chars().any(|c| c.is_control() || c.is_whitespace() || c == ':') {
        defects.push(Defect::new("modules.deviceTwin.dmiSockGroup", "is not the name or number of a group"));
    }
    if settings.mappers.len() > RULES_MAX {
        defects.push(Defect::new(RULES, format!("has more than {RULES_MAX} entries")));
    }
    for (at, rule) in settings.mappers.iter().enumerate() {
        let key = format!("{RULES}[{at}]");
        if rule.namespace.is_empty() == rule.uid.is_none() {
            defects.push(Defect::new(&key, "needs either a `namespace` or a `uid`"));
        } else if rule.uid.is_some() && !rule.service_account.is_empty() {
            defects.push(Defect::new(&key, "has a `serviceAccount` beside a `uid`; only pods have one"));
        }
    }
    defects
}

/// Every path among the settings, and `file` itself, that lies below the folder of the mappers after `resolve`.
pub(crate) fn exposed(settings: &EdgeCore, file: &Path, resolve: impl Fn(&Path) -> PathBuf) -> Vec<Defect> {
    let configured = &settings.modules.device_twin.dmi_sock_path;
    let folder = lexical(&resolve(configured));
    let reached = |path: &Path| lexical(&resolve(path)).starts_with(&folder);
    let mut defects = Vec::new();
    if reached(file) {
        let (shown, folder) = (file.display(), configured.display());
        let what = format!(
            "is `{folder}`, and this very file, {shown}, lies below it, where every mapper may write it: move it to \
             {} and name it with --config, or give the mappers a folder of their own",
            crate::edge::DEFAULT_PATH
        );
        defects.push(Defect::new(FOLDER, what));
    }
    // A struct of texts, numbers and lists: this cannot fail.
    let tree = serde_json::to_value(settings).unwrap_or_default();
    let mut paths = Vec::new();
    collect("", &tree, &mut paths);
    for (key, text) in paths.into_iter().filter(|(key, text)| key != FOLDER && !text.is_empty()) {
        let path = Path::new(text.strip_prefix("unix://").unwrap_or(text));
        let is_path = path.is_absolute() || PATHS.iter().any(|end| key.ends_with(end));
        if is_path && reached(path) {
            let what = format!(
                "is `{text}`, which every mapper reaches by the folder {} that it mounts ({FOLDER}): move it out of \
                 there (for the node's key and certificates: `keadm reset` and `keadm join`, or move the files and \
                 name their new place here)",
                configured.display()
            );
            defects.push(Defect::new(&key, what));
        }
    }
    defects
}

/// Every text of the settings with its dotted key.
fn collect<'a>(key: &str, value: &'a Value, found: &mut Vec<(String, &'a str)>) {
    let below = |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
    match value {
        Value::String(text) => found.push((key.to_owned(), text)),
        Value::Object(parts) => parts.iter().for_each(|(name, part)| collect(&below(name), part, found)),
        Value::Array(parts) => parts.iter().for_each(|part| collect(key, part, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Without `.` and `..`.
fn lexical(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => plain.push(part),
        }
    }
    plain
}

/// Where a path leads, from the working folder if it is relative: the links of the part that exists are followed.
pub(crate) fn resolved(path: &Path) -> PathBuf {
    let Ok(path) = std::path::absolute(path) else { return path.to_path_buf() };
    let mut missing = Vec::new();
    for ancestor in path.ancestors() {
        if let Ok(found) = std::fs::canonicalize(ancestor) {
            return missing.iter().rev().fold(found, |path, part| path.join(part));
        }
        missing.extend(ancestor.file_name());
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::MapperRule;

    fn keys(settings: &EdgeCore) -> Vec<String> {
        settings.defects().into_iter().map(|defect| defect.key).collect()
    }

    #[test]
    fn kubeedges_places_are_refused_with_the_cure() {
        let mut settings = EdgeCore::default();
        settings.modules.edge_hub.tls_private_key_file = PathBuf::from("/etc/kubeedge/certs/server.key");
        let defects = settings.defects();
        assert_eq!(defects[0].key, "modules.edgeHub.tlsPrivateKeyFile");
        assert!(defects[0].what.contains("keadm join"), "{}", defects[0].what);
    }

    #[test]
    fn every_path_of_the_settings_is_looked_at() {
        let mut settings = EdgeCore::default();
        settings.modules.device_twin.dmi_sock_path = PathBuf::from("/");
        let found = keys(&settings);
        let tree = serde_json::to_value(&settings).unwrap();
        let mut texts = Vec::new();
        collect("", &tree, &mut texts);
        let paths = texts
            .into_iter()
            .filter(|(key, text)| text.contains("//") || text.starts_with('/') && key != FOLDER);
        for (key, text) in paths.filter(|(_, text)| !text.starts_with("https://")) {
            assert!(found.contains(&key), "{key} {text}");
        }
        assert!(found.len() >= 8, "{found:?}");
    }

    #[test]
    fn dots_and_links_lead_nowhere_else() {
        let mut settings = EdgeCore::default();
        settings.database.data_source = PathBuf::from("/var/lib/../../etc/./kubeedge//edgecore.db");
        assert_eq!(keys(&settings), ["database.dataSource"]);

        let folder = tempfile::tempdir().unwrap();
        let (shared, own) = (folder.path().join("shared"), folder.path().join("own"));
        std::fs::create_dir(&shared).unwrap();
        std::os::unix::fs::symlink(&shared, &own).unwrap();
        let file = folder.path().join("edgecore.yaml");
        let write = |key: &Path| {
            let text = format!(
                "modules: {{deviceTwin: {{dmiSockPath: {}}}, edgeHub: {{tlsPrivateKeyFile: {}}}}}",
                shared.display(),
                key.display()
            );
            std::fs::write(&file, text).unwrap();
        };
        write(&own.join("new/server.key"));
        let error = EdgeCore::load(&file).unwrap_err().to_string();
        assert!(error.contains("tlsPrivateKeyFile") && error.contains("1 wrong"), "{error}");
        write(&folder.path().join("elsewhere/server.key"));
        EdgeCore::load(&file).unwrap();
    }

    #[test]
    fn a_relative_path_is_looked_at_from_the_working_folder() {
        let here = std::env::current_dir().unwrap().canonicalize().unwrap();
        let mut settings = EdgeCore::default();
        settings.modules.device_twin.dmi_sock_path = here.clone();
        settings.database.data_source = PathBuf::from("./edgecore.db");
        let found = settings.defects_at(Path::new("edgecore.yaml"));
        assert_eq!(
            found.iter().map(|defect| defect.key.as_str()).collect::<Vec<_>>(),
            [FOLDER, "database.dataSource"]
        );
        assert_eq!(settings.defects_at(&here.join("../edgecore.yaml")).len(), 1);
    }

    #[test]
    fn the_config_file_itself_lies_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("config");
        std::fs::create_dir(&below).unwrap();
        let file = below.join("edgecore.yaml");
        std::fs::write(
            &file,
            format!("modules: {{deviceTwin: {{dmiSockPath: {}}}}}", folder.path().display()),
        )
        .unwrap();
        let error = EdgeCore::load(&file).unwrap_err().to_string();
        assert!(error.contains("this very file") && error.contains("--config"), "{error}");
    }

    #[test]
    fn a_rule_names_pods_or_processes() {
        let mut settings = EdgeCore::default();
        settings.modules.device_twin.mappers = vec![
            MapperRule { namespace: "m".to_owned(), service_account: "s".to_owned(), ..Default::default() },
            MapperRule { uid: Some(0), ..Default::default() },
            MapperRule::default(),
            MapperRule { namespace: "m".to_owned(), uid: Some(1), ..Default::default() },
            MapperRule { uid: Some(1), service_account: "s".to_owned(), ..Default::default() },
        ];
        settings.modules.device_twin.dmi_sock_group = "a b".to_owned();
        let at = |at| format!("{RULES}[{at}]");
        assert_eq!(keys(&settings), ["modules.deviceTwin.dmiSockGroup".to_owned(), at(2), at(3), at(4)]);
    }
}
