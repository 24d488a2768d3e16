//! A node whose edgecore is a stand-in, with a real store, and keadm as it is shipped.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use config::edge::EdgeCore;
use edge_store::{ObjectKey, Options, Store, StoreInspector, Write};
use nodeupgrade::{Journal, JournalFolder, Outcome};

/// Longer than anything here takes on a machine that has other work.
const PATIENCE: Duration = Duration::from_secs(120);

/// The stand-in of this version that does this wrong. Made once for all runs of these sources.
pub(crate) fn standin(version: &str, behaviour: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let source = include_str!("standin.rs");
    let mut hasher = std::hash::DefaultHasher::new();
    std::hash::Hash::hash(source, &mut hasher);
    let hash = std::hash::Hasher::finish(&hasher);
    let made = folder.join(format!("edgecore-{version}-{behaviour}-{hash:x}"));
    if !made.exists() {
        // A folder for each: the compiler's own files have one name for all.
        let own = tempfile::tempdir_in(folder).unwrap();
        let fresh = own.path().join("edgecore");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/upgrade/standin.rs");
        let mut command = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        command.args([
            "--edition",
            "2024",
            "-C",
            "strip=symbols",
            "-A",
            "warnings",
            "--crate-name",
            "standin",
        ]);
        command.arg("-o").arg(&fresh).arg(path);
        command.env("STANDIN_VERSION", version).env("STANDIN_BEHAVIOUR", behaviour);
        assert!(command.status().unwrap().success());
        fs::rename(&fresh, &made).unwrap();
    }
    made
}

/// A machine with an edgecore.
pub(crate) struct Node {
    pub(crate) folder: PathBuf,
    pub(crate) program: PathBuf,
    pub(crate) config: PathBuf,
    pub(crate) store: PathBuf,
    _root: Option<tempfile::TempDir>,
}

impl Node {
    /// In a folder of its own, with this program.
    pub(crate) fn new(program: &Path) -> Node {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().canonicalize().unwrap();
        let mut node = Node::in_folder(folder, program);
        node._root = Some(root);
        node
    }

    /// A machine that is no node yet, with this program.
    pub(crate) fn bare(program: &Path) -> Node {
        let root = tempfile::tempdir().unwrap();
        let mut node = Node::programs_in(root.path().canonicalize().unwrap(), program);
        node._root = Some(root);
        node
    }

    fn programs_in(folder: PathBuf, program: &Path) -> Node {
        fs::create_dir_all(folder.join("bin")).unwrap();
        let own = folder.join("bin/edgecore");
        fs::copy(program, &own).unwrap();
        fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).unwrap();
        let (config, store) = (folder.join("edgecore.yaml"), folder.join("edgecore.db"));
        Node { folder, program: own, config, store, _root: None }
    }

    /// In this folder.
    pub(crate) fn in_folder(folder: PathBuf, program: &Path) -> Node {
        let node = Node::programs_in(folder, program);
        let (folder, config, store) = (&node.folder, &node.config, &node.store);
        let mut settings = EdgeCore::default();
        settings.modules.edged.hostname_override = "edge-1".to_owned();
        settings.database.data_source.clone_from(store);
        settings.modules.edge_stream.socket = folder.join("kubelet.sock");
        fs::write(config, serde_saphyr::to_string(&settings).unwrap()).unwrap();
        node.put("pods", "a", "{}");
        node
    }

    /// Puts an object into the store, while no edgecore has it.
    pub(crate) fn put(&self, resource: &str, name: &str, json: &str) {
        let store = Store::open(&self.store, Options::new([1; 16])).unwrap();
        let write = Write::PutObject {
            key: ObjectKey::new(resource, "", name),
            uid: "u".to_owned(),
            content_hash: "h".to_owned(),
            resource_version: "1".to_owned(),
            json: json.as_bytes().to_vec(),
        };
        store.commit_blocking(vec![write]).unwrap();
    }

    /// Stops edgecore, puts a pod into its store, and starts it again.
    pub(crate) fn put_while_it_is_stopped(&self, name: &str) {
        self.kill_all();
        self.put("pods", name, "{}");
        self.start();
    }

    /// The pods that the store holds.
    pub(crate) fn pods(&self) -> Vec<String> {
        let entries = StoreInspector::open(&self.store).unwrap().entries(Some("pods"), None, false).unwrap();
        entries.into_iter().map(|entry| entry.key.1).collect()
    }

    /// The store is whole, and has the object.
    pub(crate) fn store_is_whole(&self) {
        let entries = StoreInspector::open(&self.store).unwrap().entries(Some("pods"), None, false).unwrap();
        assert!(entries.iter().any(|entry| entry.key.1 == "a" && entry.damage.is_none()), "{entries:?}");
    }

    /// Starts edgecore as an init script would, and waits until it serves. One that ends is started again: a program that this process
    /// is about to start somewhere else has, for a moment, what this process has open, the lock of a store among it.
    pub(crate) fn start(&self) {
        let socket = self.folder.join("kubelet.sock");
        let _ = fs::remove_file(&socket);
        self.start_and_wait(|| Command::new(&self.program), || socket.exists());
    }

    /// The same by a command that ends in edgecore, and without waiting until it serves: only until it has its store.
    pub(crate) fn start_by(&self, command: impl Fn() -> Command) {
        let runs = self.folder.join("runs");
        self.start_and_wait(command, || runs.exists());
    }

    fn start_and_wait(&self, command: impl Fn() -> Command, is_there: impl Fn() -> bool) {
        let log = fs::File::options().create(true).append(true).open(self.folder.join("log")).unwrap();
        let spawn = || {
            let mut command = command();
            command.arg("--config").arg(&self.config).stdin(Stdio::null()).stdout(Stdio::null());
            command.stderr(log.try_clone().unwrap()).spawn().unwrap()
        };
        let mut child = spawn();
        until("edgecore", || {
            if child.try_wait().unwrap().is_some() {
                // Somebody else may have started one meanwhile.
                if is_there() && self.edgecores().len() == 1 {
                    return Some(());
                }
                child = spawn();
            }
            (is_there() && self.edgecores() == [child.id()]).then_some(())
        });
        // It is asked how it ended when it ends; until then nobody waits.
        std::thread::spawn(move || child.wait());
    }

    /// The edgecores of this node that run.
    pub(crate) fn edgecores(&self) -> Vec<u32> {
        self.processes(|words| words.get(1).is_some_and(|word| word == "--config"))
    }

    /// Its living supervisors.
    pub(crate) fn supervisors(&self) -> Vec<u32> {
        self.processes(|words| words.iter().any(|word| word == "--supervise"))
    }

    fn processes(&self, is_one: impl Fn(&[String]) -> bool) -> Vec<u32> {
        let config = self.config.display().to_string();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words: Vec<String> = line
                .split(|byte| *byte == 0)
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect();
            if words.contains(&config) && is_one(&words) {
                found.push(id);
            }
        }
        found
    }

    /// `keadm VERB edge ARGUMENTS --config …`.
    pub(crate) fn command(&self, verb: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keadm"));
        command.arg(verb).arg("edge").args(arguments).arg("--config").arg(&self.config);
        command
    }

    /// Whether it went well, and all that it said.
    pub(crate) fn keadm(&self, verb: &str, arguments: &[&str]) -> (bool, String) {
        said(self.command(verb, arguments).output().unwrap())
    }

    /// `keadm upgrade edge --from PROGRAM ARGUMENTS`.
    pub(crate) fn upgrade(&self, to: &Path, arguments: &[&str]) -> (bool, String) {
        let mut all = vec!["--from", to.to_str().unwrap()];
        all.extend(arguments);
        self.keadm("upgrade", &all)
    }

    /// The same, left to itself.
    pub(crate) fn begin_upgrade(&self, to: &Path, arguments: &[&str]) -> Child {
        let mut command = self.command("upgrade", &["--from", to.to_str().unwrap()]);
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// `keadm config-update ARGUMENTS`.
    pub(crate) fn update(&self, arguments: &[&str]) -> (bool, String) {
        said(self.update_command(arguments).output().unwrap())
    }

    /// The same, left to itself.
    pub(crate) fn begin_update(&self, arguments: &[&str]) -> Child {
        let mut command = self.update_command(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn update_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keadm"));
        command.arg("config-update").args(arguments).arg("--config").arg(&self.config);
        command
    }

    pub(crate) fn journal(&self) -> Option<Journal> {
        JournalFolder::of(&self.store).load().unwrap()
    }

    /// Ends everything of this node at once, as a power cut does.
    pub(crate) fn kill_all(&self) {
        // Who starts something goes first.
        for find in [Node::upgrades, Node::supervisors, Node::edgecores, Node::edgecores] {
            find(self).into_iter().for_each(kill);
        }
        until("the end of all", || {
            (self.upgrades().is_empty() && self.supervisors().is_empty() && self.edgecores().is_empty())
                .then_some(())
        });
        self.until_free();
    }

    /// A process that was ended has its locks for a moment more.
    pub(crate) fn until_free(&self) {
        until("the journal's lock", || JournalFolder::of(&self.store).lock().unwrap().map(drop));
        until("the store's lock", || edge_store::hold(&self.store).ok().map(drop));
    }

    fn upgrades(&self) -> Vec<u32> {
        self.processes(|words| {
            words.iter().any(|word| word == "upgrade" || word == "config-update")
                && !words.iter().any(|word| word == "--supervise")
        })
    }

    /// How it ended.
    pub(crate) fn outcome(&self) -> (Outcome, String) {
        let journal = self.journal().unwrap();
        assert!(journal.progress.is_done(), "{journal:#?}");
        (journal.progress.outcome.unwrap(), journal.progress.cause.unwrap_or_default())
    }

    /// The program is this one, byte for byte, and may be run as before.
    pub(crate) fn has(&self, program: &Path) -> bool {
        let mode = fs::metadata(&self.program).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o755);
        fs::read(&self.program).unwrap() == fs::read(program).unwrap()
    }

    /// The program runs, and no other, and nothing is left beside it.
    pub(crate) fn runs_only(&self, program: &Path) {
        assert!(self.has(program), "{:#?}", self.journal());
        let running = self.edgecores();
        assert_eq!(running.len(), 1, "{running:?}");
        let exe = fs::read(format!("/proc/{}/exe", running[0])).unwrap();
        assert!(exe == fs::read(program).unwrap(), "another program runs");
        let left: Vec<_> =
            fs::read_dir(self.folder.join("bin")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{left:?}");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for id in self.supervisors().into_iter().chain(self.edgecores()) {
            kill(id);
        }
    }
}

pub(crate) fn said(output: Output) -> (bool, String) {
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

pub(crate) fn kill(id: u32) {
    let _ = Command::new("kill").args(["-9", &id.to_string()]).stderr(Stdio::null()).status().unwrap();
}

/// Waits for a fact.
pub(crate) fn until<T>(what: &str, mut fact: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = fact() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "no {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
