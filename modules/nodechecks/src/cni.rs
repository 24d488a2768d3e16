//! The network's configuration that the runtime takes, and the plugins that it names: a runtime finds out that one of those is missing with the
//! first pod. Pure but for what is read of the machine.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::finding::Finding;
use crate::host::Host;
use crate::words::short;

pub(crate) const PLUGIN: &str = "CniPlugin";
/// Where containerd and CRI-O look for the network's configuration unless they are told.
pub(crate) const FOLDER: &str = "/etc/cni/net.d";
/// Where plugins lie: as they are released, and as Debian packages them.
const BIN_FOLDERS: [&str; 2] = ["/opt/cni/bin", "/usr/lib/cni"];
/// What containerd has every sandbox's own network by, whatever is configured.
const LOOPBACK: &str = "loopback";
/// So many plugins of a configuration are looked for.
const PLUGINS_MAX: usize = 32;
/// So many are named that are missing.
const NAMED: usize = 8;
/// So many folders of the runtime's.
const FOLDERS_MAX: usize = 8;

/// What a runtime says of its network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Network {
    /// Where its configurations are.
    pub(crate) folder: PathBuf,
    /// Where it looks for plugins; empty: it does not say.
    bin: Vec<PathBuf>,
    /// It has a sandbox's loopback by a plugin.
    needs_loopback: bool,
}

impl Network {
    /// By its own word, or as runtimes are released. `info`: its own configuration, by name.
    pub(crate) fn of(info: &HashMap<String, String>) -> Network {
        let config = info.get("config").and_then(|config| serde_json::from_str::<Value>(config).ok());
        let cni = config.as_ref().and_then(|config| config.get("cni"));
        let paths = |one: &str, several: &str| -> Vec<PathBuf> {
            let Some(cni) = cni else { return Vec::new() };
            let several = cni[several].as_array().into_iter().flatten();
            let all = cni[one].as_str().into_iter().chain(several.filter_map(Value::as_str));
            all.filter(|path| path.starts_with('/')).take(FOLDERS_MAX).map(PathBuf::from).collect()
        };
        let folder = paths("confDir", "confDirs").into_iter().next().unwrap_or_else(|| PathBuf::from(FOLDER));
        let bin = paths("binDir", "binDirs");
        let is_built_in = cni.is_some_and(|cni| cni["useInternalLoopback"] == true);
        // Only of a runtime that says where plugins are it is known that it is containerd.
        let needs_loopback = !bin.is_empty() && !is_built_in;
        Network { folder, bin, needs_loopback }
    }
}

/// The names of the configurations of the network in a folder, sorted.
pub(crate) fn files(host: &Host, folder: &Path) -> Vec<String> {
    let is_configuration = |name: &String| {
        [".conf", ".conflist", ".json"].iter().any(|ending| name.ends_with(ending)) && !name.starts_with('.')
    };
    host.names(folder).into_iter().flatten().filter(is_configuration).collect()
}

/// The plugins that a configuration names: those of its list, or its own, and who gives their addresses.
fn named(configuration: &Value) -> BTreeSet<String> {
    let list = configuration["plugins"].as_array();
    let all = list.map_or_else(|| vec![configuration], |list| list.iter().collect());
    let types = all.iter().flat_map(|plugin| [&plugin["type"], &plugin["ipam"]["type"]]);
    let names = types.filter_map(Value::as_str).filter(|name| !name.is_empty());
    names.take(PLUGINS_MAX).map(str::to_owned).collect()
}

/// Whether the plugins are there that the first configuration names, which is the one that runtimes take. `None`: there is none, or it is not
/// to be read, which is another check's.
pub(crate) fn plugins(host: &Host, network: &Network, files: &[String]) -> Option<Finding> {
    let file = files.first()?;
    let shown = format!("{}/{}", network.folder.display(), short(file));
    let mut names = named(&serde_json::from_str(&host.read(network.folder.join(file))?).ok()?);
    if names.is_empty() {
        return None;
    }
    if network.needs_loopback {
        names.insert(LOOPBACK.to_owned());
    }
    let usual = BIN_FOLDERS.map(PathBuf::from);
    let folders = if network.bin.is_empty() { &usual[..] } else { &network.bin[..] };
    let is_there = |name: &String| {
        !name.contains('/') && folders.iter().any(|folder| host.has_program(folder.join(name)))
    };
    let missing: Vec<String> =
        names.iter().filter(|name| !is_there(name)).map(|name| short(name)).take(NAMED).collect();
    let places: Vec<String> = folders.iter().map(|folder| short(&folder.display().to_string())).collect();
    let places = places.join(" or ");
    if missing.is_empty() {
        return Some(Finding::passed(PLUGIN, format!("what {shown} names is in {places}")));
    }
    // Who has installed them has them elsewhere, as Debian's package does.
    let elsewhere: Vec<&str> = BIN_FOLDERS
        .into_iter()
        .filter(|folder| {
            let beside = Path::new(folder);
            !folders.iter().any(|own| own == beside)
                && names.iter().all(|name| is_there(name) || host.has_program(beside.join(name)))
        })
        .collect();
    let cure = match elsewhere[..] {
        [] => format!(
            "put it there (Debian: `apt-get install containernetworking-plugins`, which brings those of the CNI project into /usr/lib/cni; others come with \
             the network that is theirs), or name another in {shown}"
        ),
        [folder, ..] => format!(
            "{folder} has it: set the runtime's folder of plugins to that (containerd: bin_dir in /etc/containerd/config.toml, then `systemctl restart \
             containerd`, which ends no container)"
        ),
    };
    Some(Finding::failed(
        PLUGIN,
        format!(
            "{} {} not in {places}, so that no pod gets an address: {cure}",
            missing.join(", "),
            is_or_are(&missing)
        ),
    ))
}

fn is_or_are(names: &[String]) -> &'static str {
    if names.len() == 1 { "is" } else { "are" }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::*;
    use crate::finding::Grade::{Failed, Passed};
    use crate::finding::tests::grade;

    fn says(config: Value) -> Network {
        Network::of(&HashMap::from([("config".to_owned(), json!({"cni": config}).to_string())]))
    }

    #[test]
    fn what_a_runtime_says_of_its_folders_counts() {
        let silent = Network::of(&HashMap::new());
        assert_eq!(
            (silent.folder.as_path(), silent.bin.len(), silent.needs_loopback),
            (Path::new(FOLDER), 0, false)
        );
        let old = says(json!({"confDir": "/elsewhere", "binDir": "/opt/cni/bin"}));
        assert_eq!(
            (old.folder.as_path(), &old.bin[..]),
            (Path::new("/elsewhere"), &[PathBuf::from("/opt/cni/bin")][..])
        );
        assert!(old.needs_loopback);
        let new = says(json!({"binDirs": ["/a", "/b", "c"], "useInternalLoopback": true}));
        assert_eq!((new.bin.len(), new.needs_loopback), (2, false));
    }

    #[test]
    fn a_plugin_that_is_not_there_is_named_with_where_it_is_looked_for() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::in_folder(root.path());
        let put = |path: &str, text: &str, mode: u32| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        };
        let list = json!({"cniVersion": "1.0.0", "plugins": [{"type": "bridge", "ipam": {"type": "host-local"}}, {"type": "portmap"}]});
        put("etc/cni/net.d/10-x.conflist", &list.to_string(), 0o644);
        let (network, files) = (says(json!({"binDir": "/opt/cni/bin"})), ["10-x.conflist".to_owned()]);
        let found = |network: &Network| plugins(&host, network, &files).unwrap();
        grade(&found(&network), Failed, "bridge, host-local, loopback, portmap are not in /opt/cni/bin, so");
        for name in ["bridge", "host-local", "loopback"] {
            put(&format!("opt/cni/bin/{name}"), "", 0o755);
        }
        // It is there, and nobody may start it.
        put("opt/cni/bin/portmap", "", 0o644);
        let missing = found(&network);
        grade(&missing, Failed, "portmap is not in /opt/cni/bin");
        grade(&missing, Failed, "apt-get install containernetworking-plugins");
        put("usr/lib/cni/portmap", "", 0o755);
        grade(&found(&network), Failed, "/usr/lib/cni has it: set the runtime's folder");
        grade(&found(&Network::of(&HashMap::new())), Passed, "10-x.conflist");
        put("opt/cni/bin/portmap", "", 0o755);
        grade(&found(&network), Passed, "what /etc/cni/net.d/10-x.conflist names is in /opt/cni/bin");
        // One plugin by itself, and a name that leads elsewhere.
        put("etc/cni/net.d/10-x.conflist", &json!({"type": "../../bin/sh"}).to_string(), 0o644);
        grade(&found(&network), Failed, "../../bin/sh is not in");
        put("etc/cni/net.d/10-x.conflist", "{ torn", 0o644);
        assert_eq!(plugins(&host, &network, &files), None);
        assert_eq!(plugins(&host, &network, &[]), None);
    }
}
