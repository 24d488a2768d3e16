//! Upgrades of a node whose programs are small ones that do what is wanted of them, by keadm as it is shipped: with faults of the new
//! program, of its file and of the disk, and with everything ended at each phase.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod ends;
mod node;
mod real;
mod settings;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use node::{Node, kill, standin, until};
use nodeupgrade::{Outcome, Phase};
use testhost::{Entry, Image};

const OLD: &str = "0.1.0";
const NEW: &str = "0.1.1";

fn running(program: &Path) -> Node {
    let node = Node::new(program);
    node.start();
    node
}

#[test]
fn a_healthy_program_is_confirmed_and_the_way_back_is_open() {
    let (old, new) = (standin(OLD, "healthy"), standin(NEW, "healthy"));
    let node = running(&old);
    let settings = fs::read(&node.config).unwrap();
    let (good, said) = node.upgrade(&new, &["--toVersion", "v0.1.1"]);
    assert!(good, "{said}");
    for word in [
        "ok      EdgeCore",
        // Nobody but the person who reads this can see to it here.
        "to do   TakeUp: no unit of systemd starts edgecore here",
        "0.1.0 to 0.1.1",
        "Health: edgecore is linked and the node Ready",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
    node.runs_only(&new);
    node.store_is_whole();
    let (good, said) = node.keadm("upgrade", &["--status"]);
    assert!(good && said.contains("confirmed: edgecore 0.1.1 runs"), "{said}");
    let report = fs::read_to_string(node.folder.join("upgrade/upgrade_report.json")).unwrap();
    assert!(report.contains(r#""success":true"#) && report.contains(r#""fromVersion":"0.1.0""#), "{report}");

    // A person goes back: the settings of then, too, and what the store holds now.
    node.put_while_it_is_stopped("later");
    fs::write(&node.config, [settings.as_slice(), b"# changed\n"].concat()).unwrap();
    let (good, said) = node.keadm("rollback", &["--historical-version", "9.9.9"]);
    assert!(!good && said.contains("there is 0.1.0"), "{said}");
    let (good, said) = node.keadm("rollback", &[]);
    assert!(good, "{said}");
    node.runs_only(&old);
    assert_eq!(fs::read(&node.config).unwrap(), settings);
    let edited = node.config.with_extension("yaml.replaced");
    assert!(said.contains(&format!("as it was is {}", edited.display())), "{said}");
    assert!(fs::read(&edited).unwrap().ends_with(b"# changed\n"));
    assert!(node.pods().contains(&"later".to_owned()));

    // Back goes to no newer version unless that is named; with the store of its backup, what came after it is gone.
    node.put_while_it_is_stopped("last");
    let (good, said) = node.keadm("rollback", &["--restore-store"]);
    assert!(!good && said.contains("no backup of a version before 0.1.0: there is 0.1.1, 0.1.0"), "{said}");
    node.runs_only(&old);
    let (good, said) = node.keadm("rollback", &["--historical-version", NEW, "--restore-store"]);
    assert!(good, "{said}");
    node.runs_only(&new);
    assert_eq!(node.pods(), ["a", "later"]);
}

#[test]
fn a_program_that_does_not_hold_is_put_back_with_its_cause() {
    let old = standin(OLD, "healthy");
    let faults = [
        ("unlinked", "Health", "no link to the cloud"),
        ("unready", "Health", "not Ready"),
        ("silent", "Health", "does not answer"),
        ("dies", "Start", "says why"),
        ("spoils", "Health", "no link to the cloud"),
    ];
    let put_back = |old: &Path, (behaviour, phase, cause): (&str, &str, &str)| {
        let node = running(old);
        let settings = fs::read(&node.config).unwrap();
        let (good, said) = node.upgrade(&standin(NEW, behaviour), &["--timeout", "10"]);
        assert!(!good && said.contains("rolled back: edgecore 0.1.0 is there again"), "{behaviour}: {said}");
        let (outcome, why) = node.outcome();
        assert_eq!(outcome, Outcome::RolledBack);
        assert!(why.starts_with(phase) && why.contains(cause), "{behaviour}: {why}");
        node.runs_only(old);
        node.store_is_whole();
        assert_eq!(fs::read(&node.config).unwrap(), settings);
        let ran = fs::read_to_string(node.folder.join("runs")).unwrap();
        assert_eq!(ran, "0.1.0\n0.1.1\n0.1.0\n", "{behaviour}");
    };
    // At once: most of each is waiting.
    std::thread::scope(|scope| {
        for fault in faults {
            let old = old.as_path();
            scope.spawn(move || put_back(old, fault));
        }
    });
}

/// The new program, changed at one place.
fn changed(node: &Node, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
    let mut bytes = fs::read(standin(NEW, "healthy")).unwrap();
    change(&mut bytes);
    let path = node.folder.join("changed");
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn what_cannot_run_is_refused_by_the_name_of_a_check_and_nothing_is_changed() {
    let old = standin(OLD, "healthy");
    let node = running(&old);
    let new = standin(NEW, "healthy");
    let before = node.edgecores();
    let refused = |file: &Path, arguments: &[&str], check: &str, word: &str| {
        let (good, said) = node.upgrade(file, arguments);
        assert!(
            !good && said.contains(&format!("failed  {check}: ")) && said.contains(word),
            "{check}, {word}: {said}"
        );
        // The copy has a name that nobody has given it.
        assert!(!said.contains(".staged"), "{said}");
        assert_eq!(node.edgecores(), before);
        node.runs_only(&old);
    };
    refused(&changed(&node, |bytes| bytes[18] = 183), &[], "Program", "it is for arm64");
    refused(&changed(&node, |bytes| bytes.truncate(40)), &[], "Program", "cut off");
    refused(&changed(&node, |bytes| bytes.truncate(70_000)), &[], "Program", "/changed: it ");
    refused(&node.config, &[], "Program", "no program");
    refused(&new, &["--checksum", &"a".repeat(64)], "Checksum", "fetch it again");
    refused(&new, &["--toVersion", "0.2.0"], "VersionSkew", "it is 0.1.1");
    refused(&standin("0.0.9", "healthy"), &[], "VersionSkew", "older than 0.1.0");
    refused(&standin("0.3.0", "healthy"), &[], "VersionSkew", "more than one minor release");
    refused(&standin("0.1.1", "mute"), &[], "Program", "has not ended within");
    refused(&new, &["--image-digest", "sha256:1"], "Trust", "--checksum");
    // What is there already is no fault, and nothing that was done.
    let before = node.journal().unwrap();
    assert_eq!(node.outcome().0, Outcome::Refused);
    let (good, said) = node.upgrade(&old, &[]);
    assert!(good && said.contains("that very program already"), "{said}");
    assert_eq!(node.journal().unwrap(), before);
    node.runs_only(&old);

    let (good, said) = node.keadm("upgrade", &["--image", "kubeedge/installation-package"]);
    assert!(!good && said.contains("there is no --image here"), "{said}");
}

#[test]
fn a_node_that_is_held_or_not_ready_or_not_there_is_left_as_it_is() {
    let (old, new) = (standin(OLD, "healthy"), standin(NEW, "healthy"));
    let node = Node::new(&old);
    let (good, said) = node.upgrade(&new, &[]);
    assert!(!good && said.contains("failed  EdgeCore: no edgecore runs"), "{said}");
    let held = r#"{"metadata": {"annotations": {"edge.kubeedge.io/hold-upgrade": "true"}}}"#;
    node.put("nodes", "edge-1", held);
    node.start();
    let (good, said) = node.upgrade(&new, &[]);
    assert!(!good && said.contains("failed  Held: ") && said.contains("kubectl annotate node"), "{said}");

    let cut_off = running(&standin(OLD, "unlinked"));
    let (good, said) = cut_off.upgrade(&new, &[]);
    assert!(!good && said.contains("failed  NodeReady: ") && said.contains("--offline-ok"), "{said}");
    let next = standin(NEW, "unlinked");
    let (good, said) = cut_off.upgrade(&next, &["--offline-ok"]);
    assert!(good && said.contains("edgecore answers and stays"), "{said}");
    cut_off.runs_only(&next);
}

#[test]
fn a_full_disk_is_named_before_and_an_end_of_the_room_meanwhile_leaves_the_old_program() {
    let disk = Tmpfs::new(64);
    let old = standin(OLD, "healthy");
    let node = Node::in_folder(disk.0.path().canonicalize().unwrap().join("node"), &old);
    node.start();
    let ballast = node.folder.join("ballast");
    let fill = |left: u64| {
        fs::remove_file(&ballast).unwrap_or_default();
        let free = rustix::fs::statvfs(&node.folder).unwrap();
        let free = (free.f_bavail * free.f_frsize).saturating_sub(left << 20);
        // Others write meanwhile: full is full.
        let _ = fs::write(&ballast, vec![1; usize::try_from(free).unwrap()]);
    };
    fill(8);
    let (good, said) = node.upgrade(&standin(NEW, "healthy"), &[]);
    assert!(!good && said.contains("failed  Room: ") && said.contains("are needed"), "{said}");
    node.runs_only(&old);

    // Room for all at first, and none from the stop on.
    fs::remove_file(&ballast).unwrap();
    // The journal of the refused one is done, which is later than any phase.
    let refused = node.journal().unwrap().sequence;
    let mut upgrade = node.begin_upgrade(&standin(NEW, "unlinked"), &["--timeout", "10"]);
    let is_begun = |journal: &nodeupgrade::Journal| journal.sequence > refused;
    until("the stop", || {
        node.journal().filter(|journal| is_begun(journal) && journal.progress.phase >= Phase::Stop)
    });
    fill(0);
    assert!(!upgrade.wait().unwrap().success());
    until("the end", || node.journal().filter(|journal| journal.progress.is_done()));
    assert_eq!(node.outcome().0, Outcome::RolledBack);
    node.runs_only(&old);
    fs::remove_file(&ballast).unwrap();
    node.store_is_whole();
}

/// A small disk.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn new(megabytes: u32) -> Tmpfs {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={megabytes}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).status();
        assert!(mounted.unwrap().success(), "a tmpfs wants root");
        Tmpfs(folder)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn an_image_brings_keadm_along_once_edgecore_is_healthy() {
    let (old, new) = (standin(OLD, "healthy"), standin(NEW, "healthy"));
    let node = running(&old);
    let keadm = node.folder.join("bin/keadm");
    fs::copy(&old, &keadm).unwrap();
    let archive = node.folder.join("image.tar");
    let (keadm_of_new, keadm_of_old) = (standin(NEW, "keadm"), standin(OLD, "keadm"));
    let image = |edgecore: &Path, keadm: &Path| Image {
        name: "docker.io/kubeedge/installation-package:v0.1.1".to_owned(),
        entries: vec![
            Entry::Copy("usr/local/bin/edgecore".to_owned(), edgecore.to_owned(), 0o755),
            Entry::Copy("usr/local/bin/keadm".to_owned(), keadm.to_owned(), 0o755),
        ],
        entrypoint: Vec::new(),
        cmd: Vec::new(),
        env: Vec::new(),
        user: String::new(),
    };
    let upgrade = |arguments: &[&str]| {
        let mut all = vec!["--image-archive", archive.to_str().unwrap()];
        all.extend(arguments);
        node.keadm("upgrade", &all)
    };
    for (keadm, check, word) in [
        (&node.config, "Program", "image.tar: it is no program"),
        (&new, "Program", "and not `keadm VERSION`"),
        (&keadm_of_old, "VersionSkew", "keadm is 0.1.0, and edgecore beside it 0.1.1"),
    ] {
        image(&new, keadm).write(&archive).unwrap();
        let (good, said) = upgrade(&[]);
        assert!(!good && said.contains(&format!("failed  {check}: ")) && said.contains(word), "{said}");
        node.runs_only(&old);
    }
    image(&standin(NEW, "dies"), &keadm_of_new).write(&archive).unwrap();
    let (good, said) = upgrade(&[]);
    assert!(!good, "{said}");
    assert!(fs::read(&keadm).unwrap() == fs::read(&old).unwrap(), "keadm is of the release that runs");

    image(&new, &keadm_of_new).write(&archive).unwrap();
    let (good, said) = upgrade(&["--image-digest", "sha256:1234"]);
    assert!(!good && said.contains("failed  Trust: the image has the digest sha256:"), "{said}");
    let (good, said) = upgrade(&[]);
    assert!(good, "{said}");
    node.runs_only(&new);
    assert!(fs::read(&keadm).unwrap() == fs::read(&keadm_of_new).unwrap());
    let mut bytes = fs::read(&archive).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&archive, bytes).unwrap();
    let (good, said) = upgrade(&[]);
    assert!(!good && said.contains("damaged"), "{said}");
}

#[test]
fn somebody_who_starts_edgecore_anew_by_himself_is_in_nobodys_way() {
    let (old, new) = (standin(OLD, "healthy"), standin(NEW, "healthy"));
    let node = Node::new(&old);
    let (program, config) = (node.program.clone(), node.config.clone());
    let (stop, stopped) = std::sync::mpsc::sync_channel::<()>(1);
    let loops = std::thread::spawn(move || {
        // As runit and its kin do it: at once, and again and again.
        while stopped.try_recv().is_err() {
            let mut child = Command::new(&program).arg("--config").arg(&config).spawn().unwrap();
            let _ = child.wait();
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    });
    until("edgecore", || {
        (node.edgecores().len() == 1 && node.folder.join("kubelet.sock").exists()).then_some(())
    });
    let (good, said) = node.upgrade(&new, &[]);
    assert!(good, "{said}");
    node.runs_only(&new);
    assert!(said.contains("somebody else has started edgecore"), "{said}");
    stop.send(()).unwrap();
    node.edgecores().into_iter().for_each(kill);
    loops.join().unwrap();
}

#[test]
fn a_backup_is_made_beside_a_running_edgecore_and_goes_with_the_node() {
    let old = standin(OLD, "healthy");
    let node = running(&old);
    let (good, said) = node.keadm("backup", &[]);
    let folder = node.folder.join("backup/0.1.0");
    assert!(good && said.contains(&folder.display().to_string()), "{said}");
    for name in ["edgecore", "edgecore.yaml", "edgecore.db", "edgecore.db.key"] {
        assert!(folder.join(name).is_file(), "{name}");
    }
    assert_eq!(nodeupgrade::forget(&node.store).unwrap().len(), 2);
    assert!(!folder.exists());
}

#[test]
fn the_way_back_is_open_where_edgecore_does_not_run_nor_even_say_its_version() {
    let (old, new) = (standin(OLD, "healthy"), standin(NEW, "healthy"));
    let node = running(&old);
    let (good, said) = node.upgrade(&new, &[]);
    assert!(good, "{said}");
    node.kill_all();
    fs::write(&node.program, "torn").unwrap();
    let (good, said) = node.keadm("rollback", &[]);
    assert!(good && said.contains("ok      EdgeCore: none runs"), "{said}");
    node.runs_only(&old);
    node.store_is_whole();
    let journal = node.journal().unwrap();
    assert_eq!((journal.from_version.as_str(), journal.to_version.as_str()), (NEW, OLD));
    assert_eq!(journal.sequence, 2);
}

#[test]
fn a_store_that_the_new_one_began_anew_makes_way_for_the_one_of_before() {
    let (old, new) = (standin(OLD, "healthy"), standin(NEW, "anew"));
    let node = running(&old);
    let other = node.folder.join("other.db");
    drop(edge_store::Store::open(&other, edge_store::Options::new([9; 16])).unwrap());
    fs::rename(&other, node.store.with_extension("db.anew")).unwrap();
    let (good, said) = node.upgrade(&new, &["--timeout", "10"]);
    assert!(!good && said.contains("had begun another one"), "{said}");
    assert_eq!(node.outcome().0, Outcome::RolledBack);
    node.runs_only(&old);
    node.store_is_whole();
    assert!(node.store.with_extension("db.replaced").exists());
}

#[test]
fn an_edgecore_that_was_silent_before_is_put_back_as_it_was_started() {
    let (old, new) = (standin(OLD, "silent"), standin(NEW, "dies"));
    let node = Node::new(&old);
    let gone = node.folder.join("gone");
    fs::create_dir(&gone).unwrap();
    let program = node.program.clone();
    // Of this whole process, for a moment: what others make meanwhile has its mode said.
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o027));
    node.start_by(|| {
        let mut command = Command::new(&program);
        command.current_dir(&gone);
        command
    });
    rustix::process::umask(mask);
    let pid = rustix::process::Pid::from_raw(i32::try_from(node.edgecores()[0]).unwrap());
    let limit = rustix::process::Rlimit { current: Some(777), maximum: Some(7777) };
    rustix::process::prlimit(pid, rustix::process::Resource::Nofile, limit).unwrap();
    fs::remove_dir(&gone).unwrap();
    let before = node.edgecores();
    let (good, said) = node.upgrade(&new, &["--offline-ok", "--timeout", "10"]);
    assert!(!good && said.contains("rolled back: edgecore 0.1.0 is there again"), "{said}");
    assert_eq!(node.outcome().0, Outcome::RolledBack);
    node.runs_only(&old);
    assert_ne!(node.edgecores(), before);
    assert!(!node.store.with_extension("db.replaced").exists(), "{said}");
    let proc = format!("/proc/{}", node.edgecores()[0]);
    assert_eq!(fs::read_link(format!("{proc}/cwd")).unwrap(), Path::new("/"));
    assert!(fs::read_to_string(format!("{proc}/status")).unwrap().contains("Umask:\t0027\n"));
    let limits = fs::read_to_string(format!("{proc}/limits")).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert!(files.contains(" 777 "), "{files}");
}

/// What `sha256sum` says of a file.
fn sum_of(path: &Path) -> String {
    let said = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(said.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}

#[actix_rt::test]
async fn a_file_that_is_exchanged_once_its_sum_was_looked_at_is_not_what_is_run() {
    let node = running(&standin(OLD, "healthy"));
    let new = standin(NEW, "healthy");
    let (handed_in, evil) = (node.folder.join("new"), node.folder.join("evil"));
    fs::copy(&new, &handed_in).unwrap();
    fs::copy(standin(NEW, "dies"), &evil).unwrap();
    let trust = nodeupgrade::Trust { checksum: Some(sum_of(&new)), ..nodeupgrade::Trust::default() };
    let keadm = PathBuf::from(env!("CARGO_BIN_EXE_keadm"));
    let order = nodeupgrade::Order { config: node.config.clone(), keadm, offline_ok: false, within: 10 };
    let source = nodeupgrade::Source::Program(handed_in.clone());
    let mut say = |line: String| {
        if line.starts_with("ok      Checksum") {
            fs::rename(&evil, &handed_in).unwrap();
        }
    };
    let env = beehive::Env::real();
    nodeupgrade::prepare(&order, &source, &trust, &env, &mut say).await.unwrap();
    assert!(!evil.exists(), "it was exchanged");
    let waits = nodeupgrade::Exchange::staged(&node.program);
    assert!(fs::read(&waits).unwrap() == fs::read(&new).unwrap());
    assert_eq!(node.journal().unwrap().exchanges[0].new, sum_of(&new));
    assert!(!node.folder.join("upgrade/incoming").exists());
}

/// edgecore does not start on them: whoever may write there would have root run what he likes.
#[test]
fn settings_of_another_user_are_gone_by_in_nothing() {
    let node = running(&standin(OLD, "healthy"));
    let new = standin(NEW, "healthy");
    std::os::unix::fs::chown(&node.config, Some(65534), None).unwrap();
    let from = new.to_str().unwrap();
    for (verb, arguments) in [
        ("backup", &[] as &[&str]),
        ("upgrade", &["--from", from]),
        ("upgrade", &["--status"]),
        ("upgrade", &["--take-up"]),
        ("upgrade", &["--supervise"]),
        ("rollback", &[]),
        ("reset", &["--force"]),
    ] {
        let (good, said) = node.keadm(verb, arguments);
        assert!(!good && said.contains("chown root: ") && said.contains("--config"), "{verb}: {said}");
    }
    assert!(!node.folder.join("backup").exists() && node.config.exists());
    std::os::unix::fs::chown(&node.config, Some(0), None).unwrap();
    let (good, said) = node.keadm("backup", &[]);
    assert!(good, "{said}");
}

/// A pod that mounts the node's folder and runs what it likes under the store's lock.
#[test]
fn a_container_that_has_the_stores_lock_is_no_edgecore() {
    let node = Node::new(&standin(OLD, "healthy"));
    let new = standin(NEW, "healthy");
    let evil = node.folder.join("evil");
    fs::copy(standin(OLD, "healthy"), &evil).unwrap();
    // In a namespace of mounts of its own, with an edgecore's whole behaviour.
    let mut command = Command::new("unshare");
    command.args(["--mount", "--fork", "--kill-child"]).arg(&evil).arg("--config").arg(&node.config);
    let null = std::process::Stdio::null;
    let mut pod = command.stdin(null()).stdout(null()).stderr(null()).spawn().unwrap();
    until("the lock", || node.folder.join("kubelet.sock").exists().then_some(()));
    let (good, said) = node.upgrade(&new, &[]);
    let backed_up = node.keadm("backup", &[]);
    pod.kill().unwrap();
    pod.wait().unwrap();
    assert!(!good && said.contains("failed  EdgeCore: no edgecore runs"), "{said}");
    assert!(said.contains("other namespaces"), "{said}");
    // The one beside keadm is copied, if any is: here there is none.
    assert!(!backed_up.1.contains(&evil.display().to_string()), "{}", backed_up.1);
}

#[test]
fn a_pipe_is_waited_for_in_the_place_of_no_file() {
    let node = running(&standin(OLD, "healthy"));
    let new = standin(NEW, "healthy");
    let pipe = node.folder.join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
    let (new, pipe) = (new.to_str().unwrap(), pipe.to_str().unwrap());
    for flags in [
        ["--from", new, "--key", pipe, "--signature", pipe],
        ["--image-archive", pipe, "--key", pipe, "--signature", pipe],
    ] {
        let (good, said) = node.keadm("upgrade", &flags);
        assert!(!good && said.contains("not a regular file"), "{said}");
    }
}
