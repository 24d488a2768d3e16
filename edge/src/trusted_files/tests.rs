use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};

use super::*;

const NOTHING: [String; 0] = [];

/// A node's files in a folder of their own.
struct Node {
    dir: tempfile::TempDir,
    settings: Settings,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        let at = |name: &str| dir.path().join(name);
        settings.database.data_source = at("db/edgecore.db");
        settings.modules.device_twin.dmi_sock_path = at("dmi");
        let hub = &mut settings.modules.edge_hub;
        hub.tls_ca_file = at("pki/ca.crt");
        hub.tls_cert_file = at("pki/server.crt");
        hub.tls_private_key_file = at("pki/server.key");
        let bus = &mut settings.modules.event_bus;
        bus.password_file = at("mqtt/passwords");
        bus.acl_file = at("mqtt/acl");
        bus.tls.cert_file = at("mqtt/tls.crt");
        bus.tls.key_file = at("mqtt/tls.key");
        bus.tls.client_ca_file = at("mqtt/clients.crt");
        bus.tls.crl_file = at("mqtt/clients.crl");
        Node { dir, settings }
    }

    /// With all files there, closed.
    fn made() -> Self {
        let node = Node::new();
        for folder in ["db", "pki", "mqtt", "etc", "dmi"] {
            fs::create_dir(node.at(folder)).unwrap();
            node.set(folder, 0o755);
        }
        for file in FILES {
            fs::write(node.at(file), "x").unwrap();
            node.set(file, 0o600);
        }
        node
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn set(&self, name: &str, mode: u32) {
        fs::set_permissions(self.at(name), Permissions::from_mode(mode)).unwrap();
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.at(name)).unwrap().mode() & 0o7777
    }

    fn look(&self) -> Result<Vec<String>, UntrustedFile> {
        self.look_from("etc/edgecore.yaml")
    }

    fn look_from(&self, file: &str) -> Result<Vec<String>, UntrustedFile> {
        let (said, outcome) = secure_trusted_files(&self.settings, &self.at(file));
        outcome.map(|()| said)
    }
}

const FILES: [&str; 14] = [
    "etc/edgecore.yaml",
    "db/edgecore.db",
    "db/edgecore.db-wal",
    "db/edgecore.db-shm",
    "db/edgecore.db.key",
    "pki/ca.crt",
    "pki/server.crt",
    "pki/server.key",
    "mqtt/passwords",
    "mqtt/acl",
    "mqtt/tls.crt",
    "mqtt/tls.key",
    "mqtt/clients.crt",
    "mqtt/clients.crl",
];

#[test]
fn whatever_others_could_write_to_is_closed_and_said() {
    let node = Node::new();
    assert_eq!(node.look().unwrap(), NOTHING, "nothing is there yet");
    let node = Node::made();
    assert_eq!(node.look().unwrap(), NOTHING);
    for file in FILES {
        node.set(file, 0o666);
    }
    let said = node.look().unwrap();
    assert_eq!(said.len(), FILES.len(), "{said:?}");
    for file in FILES {
        assert_eq!(node.mode(file) & WRITE, 0, "{file}");
        assert!(said.iter().any(|said| said.contains(file) && said.contains("0666")), "{file}");
    }
    for secret in ["db/edgecore.db", "db/edgecore.db-wal", "db/edgecore.db.key", "pki/server.key"] {
        assert_eq!(node.mode(secret), 0o600, "{secret}");
    }
    assert_eq!((node.mode("mqtt/tls.key"), node.mode("pki/ca.crt")), (0o640, 0o644));
    assert_eq!(node.look().unwrap(), NOTHING);
}

#[test]
fn folders_are_closed_and_what_only_adds_is_left() {
    let node = Node::made();
    for folder in ["db", "pki", "mqtt", "etc"] {
        node.set(folder, 0o777);
    }
    assert_eq!(node.look().unwrap().len(), 4);
    assert!(["db", "pki", "mqtt", "etc"].iter().all(|folder| node.mode(folder) == 0o755));
    node.set("db", 0o1777);
    assert_eq!(node.look().unwrap(), NOTHING);
    // A folder further above: its group is the system's affair, others are not.
    node.set("", 0o775);
    assert_eq!(node.look().unwrap(), NOTHING);
    node.set("", 0o777);
    assert_eq!(node.look().unwrap().len(), 1);
    assert_eq!(node.mode(""), 0o775);
}

/// Whoever could write there would have the node run whatever he likes, as root.
#[test]
fn the_folder_of_static_pods_is_closed_to_others() {
    let mut node = Node::made();
    fs::create_dir(node.at("manifests")).unwrap();
    node.settings.modules.edged.tailored_kubelet_config.static_pod_path = node.at("manifests");
    node.set("manifests", 0o777);
    let said = node.look().unwrap();
    assert!(said.len() == 1 && said[0].contains("manifests"), "{said:?}");
    assert_eq!(node.mode("manifests") & WRITE, 0);
}

#[test]
fn a_link_is_followed_to_where_the_file_lies() {
    let node = Node::made();
    fs::create_dir(node.at("real")).unwrap();
    fs::rename(node.at("etc/edgecore.yaml"), node.at("real/edgecore.yaml")).unwrap();
    symlink(node.at("real/edgecore.yaml"), node.at("etc/edgecore.yaml")).unwrap();
    for open in ["real", "etc"] {
        node.set(open, 0o777);
    }
    node.set("real/edgecore.yaml", 0o666);
    assert_eq!(node.look().unwrap().len(), 3);
    assert_eq!((node.mode("real"), node.mode("etc"), node.mode("real/edgecore.yaml")), (0o755, 0o755, 0o644));
    // KubeEdge's place of the settings, in the folder that mappers write to: that has its own warning, and its mode.
    node.set("dmi", 0o777);
    symlink(node.at("real/edgecore.yaml"), node.at("dmi/edgecore.yaml")).unwrap();
    assert_eq!(node.look_from("dmi/edgecore.yaml").unwrap(), NOTHING);
    assert_eq!(node.mode("dmi"), 0o777);
}

#[test]
fn a_link_in_the_place_of_a_file_of_the_store_is_refused_and_not_followed() {
    for file in ["db/edgecore.db", "db/edgecore.db-wal", "db/edgecore.db.key"] {
        let node = Node::made();
        let _ = fs::remove_file(node.at(file));
        fs::write(node.at("etc/somebodys"), "x").unwrap();
        node.set("etc/somebodys", 0o644);
        symlink(node.at("etc/somebodys"), node.at(file)).unwrap();
        let said = node.look().unwrap_err().to_string();
        assert!(
            said.contains(file) && said.contains("database.dataSource") && said.contains("is a link"),
            "{said}"
        );
        assert_eq!(node.mode("etc/somebodys"), 0o644);
    }
}

#[test]
fn another_users_file_or_folder_is_refused_with_the_cure() {
    if !rustix::process::geteuid().is_root() {
        // Only root gives files away; `check_permissions` of `modules/trustedfiles` is the same for everybody.
        return;
    }
    const NOBODY: u32 = 65534;
    for path in FILES.into_iter().chain(["db", "pki", "mqtt", "etc"]) {
        let node = Node::made();
        chown(node.at(path), Some(NOBODY), None).unwrap();
        let error = node.look().unwrap_err();
        assert!(matches!(error, UntrustedFile::OtherOwner { owner: NOBODY, .. }), "{path}: {error}");
        let said = error.to_string();
        assert!(said.contains(&format!("chown root: {}", node.at(path).display())), "{said}");
    }
    // Open, and another's: nothing is repaired that he could undo.
    let node = Node::made();
    node.set("db", 0o777);
    chown(node.at("db"), Some(NOBODY), None).unwrap();
    node.set("etc/edgecore.yaml", 0o666);
    let (said, outcome) = secure_trusted_files(&node.settings, &node.at("etc/edgecore.yaml"));
    assert!(outcome.is_err() && said.len() == 1, "what was repaired before is said: {said:?}");
    assert_eq!(node.mode("db"), 0o777);
}

#[test]
fn no_path_among_the_settings_is_forgotten() {
    /// Pods' folders, sockets with their folder, the host's resolver file, the kernel's boot id, and the token of the kubelet API on the node, which
    /// EdgeStream makes anew at each start. That of the WebSocket listener is part of a URL.
    const OTHERS: [&str; 12] = [
        "/modules/eventBus/webSocket/path",
        "/modules/edged/bootIDFile",
        "/modules/edgeStream/tokenFile",
        "/modules/edgeStream/socket",
        "/modules/edged/rootDirectory",
        "/modules/edged/devicePluginPath",
        "/modules/edged/podResourcesPath",
        "/modules/edged/tailoredKubeletConfig/podLogsDir",
        "/modules/edged/tailoredKubeletConfig/resolvConf",
        "/modules/edged/tailoredKubeletConfig/containerRuntimeEndpoint",
        "/modules/eventBus/unixSocket/path",
        "/modules/deviceTwin/dmiSockPath",
    ];
    const ENDS: [&str; 7] = ["File", "Path", "path", "Dir", "Directory", "Source", "Conf"];
    fn mark(at: &str, value: &mut serde_json::Value, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(parts) => {
                parts.iter_mut().for_each(|(name, part)| mark(&format!("{at}/{name}"), part, found));
            }
            serde_json::Value::String(text)
                if text.starts_with('/') || ENDS.iter().any(|end| at.ends_with(end)) =>
            {
                *text = at.to_owned();
                found.push(at.to_owned());
            }
            _ => {}
        }
    }
    let mut tree = serde_json::to_value(Settings::default()).unwrap();
    let mut found = Vec::new();
    mark("", &mut tree, &mut found);
    let settings: Settings = serde_json::from_value(tree).unwrap();
    let trusted: Vec<PathBuf> =
        trusted(&settings, Path::new("/x")).into_iter().map(|trusted| trusted.path).collect();
    assert!(found.len() >= 12, "{found:?}");
    for path in found.iter().filter(|path| !OTHERS.contains(&path.as_str())) {
        assert!(trusted.contains(&PathBuf::from(path)), "{path} is looked at by nobody");
    }
}
