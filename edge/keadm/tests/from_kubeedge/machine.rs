//! A machine with KubeEdge's edgecore on it, and a stand-in of systemd.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::rc::Rc;

use harness::EnrolmentCloud;
use keadm::{CloudPorts, ConfigLocation, Join, Machine};
use serde_json::Value;

pub(crate) const KUBEEDGES_UNIT: &str = "[Unit]\nDescription=edgecore.service\n\n[Service]\nType=simple\nExecStart=/usr/local/bin/edgecore --config /etc/kubeedge/config/edgecore.yaml\nRestart=always\n\n[Install]\nWantedBy=multi-user.target\n";

/// As gorm makes them (KubeEdge 1.23).
const TABLES: &str = "
    CREATE TABLE `device` (`id` text,`name` text,`description` text,`state` text,`last_online` text,PRIMARY KEY (`id`));
    CREATE TABLE `device_attr` (`id` integer PRIMARY KEY AUTOINCREMENT,`deviceid` text,`name` text,`description` text,`value` text,
        `optional` numeric,`attr_type` text,`metadata` text);
    CREATE TABLE `device_twin` (`id` integer PRIMARY KEY AUTOINCREMENT,`deviceid` text,`name` text,`description` text,`expected` text,
        `actual` text,`expected_meta` text,`actual_meta` text,`expected_version` text,`actual_version` text,`optional` numeric,
        `attr_type` text,`metadata` text);
    CREATE TABLE `sub_topics` (`topic` text,PRIMARY KEY (`topic`));
    CREATE TABLE `meta` (`key` text,`type` text,`value` text,PRIMARY KEY (`key`));
    CREATE TABLE `meta_v2` (`key` text,`group_version_resource` text,`namespace` text,`name` text,`resource_version` integer,
        `value` text,PRIMARY KEY (`key`));
    CREATE TABLE `target_urls` (`url` text,PRIMARY KEY (`url`));";

/// What systemd knows of the unit.
#[derive(Default)]
pub(crate) struct Systemd {
    units: PathBuf,
    pub(crate) active: bool,
    pub(crate) enabled: bool,
    /// What was asked of it.
    pub(crate) calls: Vec<String>,
    /// The call that fails.
    pub(crate) fails: Option<&'static str>,
}

impl Systemd {
    fn call(&mut self, arguments: &[String]) -> anyhow::Result<String> {
        let line = arguments.join(" ");
        let unit = self.units.join("edgecore.service");
        if arguments[0] == "show" {
            let said = match arguments[1].strip_prefix("--property=").unwrap() {
                "FragmentPath" if unit.exists() => unit.display().to_string(),
                "ActiveState" => if self.active { "active" } else { "inactive" }.to_owned(),
                "UnitFileState" => if self.enabled { "enabled" } else { "disabled" }.to_owned(),
                _ => String::new(),
            };
            return Ok(format!("{said}\n"));
        }
        self.calls.push(line.clone());
        if self.fails.is_some_and(|fails| line.starts_with(fails)) {
            anyhow::bail!("systemctl {line} ended with 1");
        }
        match arguments[0].as_str() {
            "stop" => self.active = false,
            "start" => self.active = unit.exists(),
            "disable" => self.enabled = false,
            "enable" => {
                self.enabled = true;
                self.active |= line.contains("--now");
            }
            "daemon-reload" => {}
            other => panic!("{other}"),
        }
        Ok(String::new())
    }
}

/// A machine with KubeEdge's edgecore on it.
pub(crate) struct Edge {
    root: tempfile::TempDir,
    /// Where the node's own store is to lie.
    store: Option<PathBuf>,
    pub(crate) systemd: Rc<RefCell<Systemd>>,
}

impl Edge {
    pub(crate) fn new() -> Edge {
        let root = tempfile::tempdir().unwrap();
        let path = root.path();
        for folder in ["kubeedge/config", "kubeedge/certs", "units", "programs", "proc", "lib", "own"] {
            fs::create_dir_all(path.join(folder)).unwrap();
        }
        fs::write(path.join("units/edgecore.service"), KUBEEDGES_UNIT).unwrap();
        let systemd =
            Systemd { units: path.join("units"), active: true, enabled: true, ..Systemd::default() };
        let edge = Edge { systemd: Rc::new(RefCell::new(systemd)), root, store: None };
        let source = edge.at("programs/edgecore.rs");
        fs::write(&source, "fn main() { println!(\"edgecore 0.1.0 (commit unknown)\") }").unwrap();
        let compiled =
            Command::new("rustc").arg("-o").arg(edge.at("programs/edgecore")).arg(&source).status();
        assert!(compiled.unwrap().success());
        let yaml = format!(
            "apiVersion: edgecore.config.kubeedge.io/v1alpha2\nkind: EdgeCore\ndatabase: {{aliasName: default, driverName: sqlite3, dataSource: {db}}}\n\
             modules:\n  edged:\n    hostnameOverride: edge-1\n    nodeLabels: {{hall: '3'}}\n    tailoredKubeletConfig: {{cgroupDriver: systemd, containerRuntimeEndpoint: 'unix:///nowhere/containerd.sock'}}\n  \
             edgeHub:\n    httpServer: https://old.example:10002\n    websocket: {{enable: true, server: 'old.example:10000'}}\n  \
             deviceTwin: {{dmiSockPath: {shared}}}\n  dbTest: {{enable: true}}\n",
            db = edge.database().display(),
            shared = edge.at("kubeedge").display(),
        );
        fs::write(edge.settings(), yaml).unwrap();
        let conn = rusqlite::Connection::open(edge.database()).unwrap();
        conn.execute_batch(TABLES).unwrap();
        edge
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn settings(&self) -> PathBuf {
        self.at("kubeedge/config/edgecore.yaml")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.at("lib/edgecore.db")
    }

    /// Whose node's own store is to lie elsewhere than beside KubeEdge's.
    pub(crate) fn with_store(path: PathBuf) -> Edge {
        Edge { store: Some(path), ..Edge::new() }
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.store.clone().unwrap_or_else(|| self.at("lib/kubehive.db"))
    }

    pub(crate) fn unit(&self) -> PathBuf {
        self.at("units/edgecore.service")
    }

    pub(crate) fn meta(&self, key: &str, kind: &str, value: &Value) {
        let conn = rusqlite::Connection::open(self.database()).unwrap();
        conn.execute("INSERT INTO meta VALUES (?1, ?2, ?3)", [key, kind, &value.to_string()]).unwrap();
    }

    pub(crate) fn sql(&self, sql: &str) {
        rusqlite::Connection::open(self.database()).unwrap().execute_batch(sql).unwrap();
    }

    pub(crate) fn machine(&self) -> Machine {
        let systemd = Rc::clone(&self.systemd);
        Machine {
            units: self.at("units"),
            proc: self.at("proc"),
            programs: self.at("programs"),
            systemctl: Some(Box::new(move |arguments| {
                let said = systemd.borrow_mut().call(&arguments);
                Box::pin(async move { said })
            })),
        }
    }

    pub(crate) fn order(&self, cloud: &EnrolmentCloud, token: String) -> Join {
        let path = |name: &str| self.at(name).display().to_string();
        Join {
            cloud: CloudPorts::new("127.0.0.1:10000", cloud.server.address.port()),
            token,
            node: "edge-1".to_owned(),
            config: ConfigLocation { file: self.at("own/edgecore.yaml"), link: Some(self.settings()) },
            key_uri: None,
            set: vec![
                format!("modules.edgeHub.tlsCaFile={}", path("own/rootCA.crt")),
                format!("modules.edgeHub.tlsCertFile={}", path("own/server.crt")),
                format!("modules.edgeHub.tlsPrivateKeyFile={}", path("own/server.key")),
                format!("database.dataSource={}", self.store().display()),
            ],
        }
    }

    /// Every file of KubeEdge's with its bytes; its unit is looked at by itself.
    pub(crate) fn of_kubeedge(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let files = [self.settings(), self.database()].into_iter();
        files.map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
    }
}
