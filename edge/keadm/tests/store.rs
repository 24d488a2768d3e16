//! Looking into a store: beside its owner, after it, and when something is wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use config::edge::EdgeCore;
use edge_store::{Class, ObjectKey, Options, OutboxQueue, Store, Table, WallClock, Write};
use keadm::{StoreCommand, show_store};
use tempfile::TempDir;

const NOW: i64 = 1_700_000_000;
const WORD: &str = "hunter2-and-nobody-else";

struct Node {
    dir: TempDir,
    config: PathBuf,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = EdgeCore::default();
        settings.database.data_source = dir.path().join("edgecore.db");
        settings.modules.edged.hostname_override = "edge-1".to_owned();
        settings.modules.edge_hub.http_server = "https://cloud:10002".to_owned();
        settings.modules.edge_hub.quic.server = "cloud:10001".to_owned();
        let config = dir.path().join("edgecore.yaml");
        std::fs::write(&config, serde_saphyr::to_string(&settings).unwrap()).unwrap();
        Node { dir, config }
    }

    fn db(&self) -> PathBuf {
        self.dir.path().join("edgecore.db")
    }

    fn open(&self) -> Store {
        let mut options = Options::new([1; 16]);
        options.clock = Some(WallClock::new(|| NOW - 200));
        Store::open(self.db(), options).unwrap()
    }

    fn show(&self, kind: Option<&str>, name: Option<&str>) -> Result<String, String> {
        show(&self.config, kind, name)
    }
}

fn show(config: &Path, kind: Option<&str>, name: Option<&str>) -> Result<String, String> {
    let verb = StoreCommand::Show {
        config: config.to_owned(),
        kind: kind.map(str::to_owned),
        name: name.map(str::to_owned),
    };
    let mut lines = Vec::new();
    let now = UNIX_EPOCH + Duration::from_secs(NOW.try_into().unwrap());
    show_store(&verb, now, &mut |line| lines.push(line)).map_err(|error| format!("{error:#}"))?;
    Ok(lines.join("\n"))
}

fn put(resource: &str, name: &str, json: &str) -> Write {
    Write::PutObject {
        key: ObjectKey::new(resource, "default", name),
        uid: "u".to_owned(),
        content_hash: "42".to_owned(),
        resource_version: "42".to_owned(),
        json: json.as_bytes().to_vec(),
    }
}

fn fill(store: &Store) {
    store
        .commit_blocking(vec![
            put("pods", "web", r#"{"kind":"Pod","spec":{"nodeName":"edge-1"}}"#),
            put("secrets", "login", &format!(r#"{{"kind":"Secret","data":{{"password":"{WORD}"}}}}"#)),
            Write::PutRow {
                table: Table::Tokens,
                key1: "uid/app".to_owned(),
                key2: String::new(),
                value: format!(r#"{{"token":"{WORD}","expires_unix":9,"lifetime_seconds":1}}"#).into_bytes(),
            },
            Write::Enqueue {
                queue: OutboxQueue::Node,
                class: Class::Status,
                key: "pod/default/web".to_owned(),
                body: b"12345".to_vec(),
            },
        ])
        .unwrap();
}

/// The line that begins with `start`, its columns by one space.
fn line(text: &str, start: &str) -> String {
    let line =
        text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start} in {text}"));
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn all_is_shown_and_secrets_are_masked_also_beside_the_owner() {
    let node = Node::new();
    let store = node.open();
    fill(&store);
    let shown = node.show(None, None).unwrap();
    assert_eq!(line(&shown, "pods"), "pods default/web 42 42 43 no ok");
    assert!(line(&shown, "secrets").starts_with("secrets default/login 42 42 "), "{shown}");
    assert!(line(&shown, "secrets").ends_with(" yes ok"), "{shown}");
    assert!(line(&shown, "tokens").starts_with("tokens uid/app #1 - "), "{shown}");
    assert_eq!(line(&shown, "1 "), "1 node status pod/default/web 5 3m ok");
    assert!(shown.ends_with("3 rows, 1 reports wait for the cloud, 0 damaged"), "{shown}");
    drop(store);
    assert_eq!(node.show(None, None).unwrap(), shown, "the same after its owner");
    for (kind, name) in [("secrets", "login"), ("tokens", "uid/app")] {
        let one = node.show(Some(kind), Some(name)).unwrap();
        assert!(!one.contains(WORD) && one.contains("masked"), "{one}");
    }
    let one = node.show(Some("pods"), Some("default/web")).unwrap();
    assert!(one.contains("\"nodeName\": \"edge-1\"") && !one.contains("OUTBOX"), "{one}");
    let reports = node.show(Some("outbox"), None).unwrap();
    assert!(reports.contains("pod/default/web") && !reports.contains("secrets"), "{reports}");
    let error = node.show(Some("pods"), Some("login")).unwrap_err();
    assert!(error.contains("holds nothing of that kind"), "{error}");
    for empty in ["twins", "devices", "devices.devices.kubeedge.io"] {
        let error = node.show(Some(empty), None).unwrap_err();
        assert!(error.contains("holds nothing of that kind"), "{empty}: {error}");
    }
    let error = node.show(Some("nosuch"), None).unwrap_err();
    assert!(error.contains("no kind `nosuch`; --kind takes allocations, configmaps, "), "{error}");
    assert!(
        error.contains("devices, ") && error.contains("outbox, ") && !error.contains("kubeedge.io"),
        "{error}"
    );
}

#[test]
fn what_is_wrong_is_said_with_its_cure() {
    let node = Node::new();
    let error = node.show(None, None).unwrap_err();
    assert!(error.contains("edgecore.db does not exist"), "{error}");
    let error = show(Path::new("/nonexistent/edgecore.yaml"), None, None).unwrap_err();
    assert!(error.contains("/nonexistent/edgecore.yaml"), "{error}");
    fill(&node.open());
    let key = node.dir.path().join("edgecore.db.key");
    std::fs::remove_file(&key).unwrap();
    let shown = node.show(None, None).unwrap();
    assert!(
        shown.contains("edgecore.db.key does not exist: sealed rows cannot be opened; edgecore fetches"),
        "{shown}"
    );
    assert!(line(&shown, "secrets").ends_with("yes damaged: the node key does not open it"), "{shown}");
    assert!(line(&shown, "pods").ends_with("ok"), "{shown}");
    assert!(!key.exists(), "a look makes no key");
    std::fs::write(node.db(), b"no database").unwrap();
    let error = node.show(None, None).unwrap_err();
    assert!(error.contains("is not a node's store"), "{error}");
}
