//! What mappers may reach. They mount the folder of `dmi.sock`, most of them as root and writable: nothing of the node's
//! own may lie below it, and no way to it may lead through.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use crate::edge::{DeviceTwin, EdgeCore};
use crate::error::Defect;

/// The folder that mappers mount.
pub(crate) const FOLDER: &str = "modules.deviceTwin.dmiSockPath";
const PASSWORD: &str = "modules.eventBus.mqttPassword";
const RULES: &str = "modules.deviceTwin.mappers";
const PORTS: &str = "modules.deviceTwin.mapperPorts";
/// Ends of the keys whose values are paths, also relative ones.
const PATHS: [&str; 7] = ["File", "Path", "path", "Dir", "Directory", "Source", "Conf"];
/// 64: more rules than a node has mappers are a mistake.
const RULES_MAX: usize = 64;
/// 40: the kernel follows no more links on the way to a file.
const LINKS_MAX: usize = 40;

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
    if settings.mapper_ports.len() > RULES_MAX {
        defects.push(Defect::new(PORTS, format!("has more than {RULES_MAX} entries")));
    }
    for mapper in settings.mapper_ports.iter().filter(|(_, port)| **port == 0).map(|(mapper, _)| mapper) {
        defects.push(Defect::new(
            PORTS,
            format!("has the port 0 for `{}`; a port is 1 to 65535", mapper.escape_debug()),
        ));
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

/// `file` as the place of the settings themselves: whoever may write it decides what the node does.
pub(crate) fn reached_file(settings: &EdgeCore, file: &Path) -> Option<Defect> {
    let configured = &settings.modules.device_twin.dmi_sock_path;
    let folder = end(way(configured));
    way(file).iter().any(|place| place.starts_with(&folder)).then(|| {
        let what = format!(
            "is `{}`, and this very file, {}, is named by a path through it: whoever can write there (mappers that mount \
             it, most of them as root) decides what runs as root on this node; move it to {} and name it with --config, \
             or give the mappers a folder of their own",
            configured.display(),
            file.display(),
            crate::edge::DEFAULT_PATH
        );
        Defect::new(FOLDER, what)
    })
}

/// Every path among the settings that leads through the folder of the mappers: `way` has the places on it, itself last.
pub(crate) fn exposed(settings: &EdgeCore, way: impl Fn(&Path) -> Vec<PathBuf>) -> Vec<Defect> {
    let configured = &settings.modules.device_twin.dmi_sock_path;
    let folder = end(way(configured));
    let mut defects = Vec::new();
    // A struct of texts, numbers and lists: this cannot fail.
    let tree = serde_json::to_value(settings).unwrap_or_default();
    let mut paths = Vec::new();
    collect("", &tree, &mut paths);
    // A password is shown nowhere, whatever it looks like.
    let is_other = |key: &str| key == FOLDER || key == PASSWORD;
    for (key, text) in paths.into_iter().filter(|(key, text)| !is_other(key) && !text.is_empty()) {
        let path = Path::new(text.strip_prefix("unix://").unwrap_or(text));
        let is_path = path.is_absolute() || PATHS.iter().any(|end| key.ends_with(end));
        if is_path && way(path).iter().any(|place| place.starts_with(&folder)) {
            let what = format!(
                "is `{text}`, which every mapper reaches by the folder {} that it mounts ({FOLDER}): move it out of \
                 there, with every link on the way to it",
                configured.display()
            );
            defects.push(Defect::new(&key, what));
        }
    }
    defects
}

fn end(mut way: Vec<PathBuf>) -> PathBuf {
    way.pop().unwrap_or_default()
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
pub(crate) fn lexical(path: &Path) -> PathBuf {
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

/// Every place that the kernel passes on the way to `path`, from the working folder if it is relative, with every link that
/// it follows; the last is where the path leads. A part that is not there is taken as no link.
pub(crate) fn way(path: &Path) -> Vec<PathBuf> {
    let from = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut parts: VecDeque<OsString> = from.iter().map(OsString::from).collect();
    let (mut places, mut here, mut links) = (Vec::new(), PathBuf::new(), 0);
    while let Some(part) = parts.pop_front() {
        if part == ".." {
            here.pop();
        } else if part != "." {
            // A root in the target of a link takes the place of what was before.
            let next = here.join(&part);
            places.push(next.clone());
            match std::fs::read_link(&next) {
                Ok(target) if links < LINKS_MAX => {
                    links += 1;
                    target.iter().rev().for_each(|part| parts.push_front(part.to_owned()));
                }
                _ => here = next,
            }
        }
    }
    places.push(here);
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::MapperRule;

    fn keys(settings: &EdgeCore) -> Vec<String> {
        settings.defects().into_iter().map(|defect| defect.key).collect()
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
        let is_url = |text: &str| text.starts_with("https://") || text.starts_with("tcp://");
        for (key, text) in paths.filter(|(_, text)| !is_url(text)) {
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
    fn a_way_through_the_folder_is_one_that_mappers_can_turn() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let (shared, own) = (root.join("shared"), root.join("own"));
        std::fs::create_dir(&shared).unwrap();
        std::fs::create_dir(&own).unwrap();
        let link = |to: &Path, at: &Path| std::os::unix::fs::symlink(to, at).unwrap();
        // Both end in the node's own folder, and a mapper decides that.
        link(&own, &shared.join("back"));
        link(&shared.join("back"), &root.join("detour"));
        let mut settings = EdgeCore::default();
        settings.modules.device_twin.dmi_sock_path = shared.clone();
        for (path, refused) in [
            (root.join("detour/edgecore.db"), true),
            (root.join("own/../shared/back/edgecore.db"), true),
            (root.join("shared/x/../../own/edgecore.db"), true),
            (root.join("own/edgecore.db"), false),
        ] {
            settings.database.data_source = path.clone();
            let found: Vec<String> = settings.defects_here().into_iter().map(|defect| defect.key).collect();
            assert_eq!(found.contains(&"database.dataSource".to_owned()), refused, "{}", path.display());
            assert_eq!(settings.reached(&path).is_some(), refused, "{}", path.display());
        }
        link(Path::new("loop"), &root.join("loop"));
        settings.database.data_source = root.join("loop/edgecore.db");
        assert_eq!(settings.defects_here(), []);
    }

    #[test]
    fn a_relative_path_is_looked_at_from_the_working_folder() {
        let here = std::env::current_dir().unwrap().canonicalize().unwrap();
        let mut settings = EdgeCore::default();
        settings.modules.device_twin.dmi_sock_path = here.clone();
        settings.database.data_source = PathBuf::from("./edgecore.db");
        let found: Vec<String> = settings.defects_here().into_iter().map(|defect| defect.key).collect();
        assert_eq!(found, ["database.dataSource"]);
        assert!(settings.reached(Path::new("edgecore.yaml")).is_some());
        assert!(settings.reached(&here.parent().unwrap().join("edgecore.yaml")).is_none());
    }

    #[test]
    fn a_config_file_where_mappers_write_works_with_a_warning_also_behind_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (shared, own) = (folder.path().join("shared"), folder.path().join("own.yaml"));
        std::fs::create_dir(&shared).unwrap();
        std::fs::write(&own, format!("modules: {{deviceTwin: {{dmiSockPath: {}}}}}", shared.display()))
            .unwrap();
        let (settings, said) = EdgeCore::load_with_warnings(&own).unwrap();
        assert_eq!(said, [] as [String; 0]);
        let (copy, link) = (shared.join("copy.yaml"), shared.join("link.yaml"));
        std::fs::copy(&own, &copy).unwrap();
        std::os::unix::fs::symlink(&own, &link).unwrap();
        for file in [copy, link] {
            let (same, said) = EdgeCore::load_with_warnings(&file).unwrap();
            assert_eq!((same, said.len()), (settings.clone(), 1));
            let words = ["this very file", "as root", "--config", crate::edge::DEFAULT_PATH];
            assert!(words.iter().all(|word| said[0].contains(word)), "{said:?}");
        }
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
