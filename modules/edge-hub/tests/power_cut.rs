//! `kill -9` between each two steps of writing a new certificate: whoever reads then has a pair that belongs together.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use edge_hub::{IdentityFiles, WriteStep};
use pki::{Authority, NodeRequest, is_pair, serial_of};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// How many steps the child takes before it kills itself, and where.
const STEPS: &str = "POWER_CUT_AFTER";
const FOLDER: &str = "POWER_CUT_FOLDER";

fn files(folder: &Path) -> IdentityFiles {
    IdentityFiles {
        certificate: folder.join("server.crt"),
        key: folder.join("server.key"),
        authorities: folder.join("rootCA.crt"),
    }
}

/// A certificate and its key, signed `second` after the first.
fn pair(authority: &Authority, node: &str, second: u64) -> (String, String) {
    let request = NodeRequest::new(node).unwrap();
    let now = SystemTime::now() + Duration::from_secs(second);
    let life = Duration::from_secs(86_400);
    let serial = [u8::try_from(second + 1).unwrap(); 16];
    let issued = authority.sign_node(&request.csr_der, node, now, life, serial).unwrap();
    (issued.pem, request.key_pem)
}

fn der(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

/// A folder with a first pair in its place, and a second one for the child to write.
fn prepared() -> (tempfile::TempDir, IdentityFiles, [(String, String); 2]) {
    let folder = tempfile::tempdir().unwrap();
    let files = files(folder.path());
    let authority = Authority::create(SystemTime::now(), [1; 16]).unwrap();
    let pairs = [pair(&authority, "edge-1", 0), pair(&authority, "edge-1", 10)];
    files.keep_authorities(authority.cert_pem()).unwrap();
    files.keep(&pairs[0].0, &pairs[0].1).unwrap();
    std::fs::write(folder.path().join("next.crt"), &pairs[1].0).unwrap();
    std::fs::write(folder.path().join("next.key"), &pairs[1].1).unwrap();
    (folder, files, pairs)
}

/// Takes so many steps and dies.
fn die_after(steps: usize, folder: &Path) {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let (certificate, key) = (read("next.crt"), read("next.key"));
    for step in WriteStep::ALL.into_iter().take(steps) {
        files(folder).take(step, &certificate, &key).unwrap();
    }
    let me = rustix::process::getpid();
    rustix::process::kill_process(me, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn a_kill_between_each_two_steps_leaves_the_old_pair_or_the_new_one() {
    if let (Some(steps), Some(folder)) = (std::env::var_os(STEPS), std::env::var_os(FOLDER)) {
        return die_after(steps.to_str().unwrap().parse().unwrap(), Path::new(&folder));
    }
    for steps in 0..=WriteStep::ALL.len() {
        let (folder, files, pairs) = prepared();
        let ended = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_kill_between_each_two_steps_leaves_the_old_pair_or_the_new_one"])
            .env(STEPS, steps.to_string())
            .env(FOLDER, folder.path())
            .output()
            .unwrap();
        assert!(ended.status.code().is_none(), "it was to be killed: {ended:?}");
        let wanted = if steps == 0 { &pairs[0] } else { &pairs[1] };
        for reading in ["the first start", "the second start"] {
            let stored = files.read().unwrap();
            assert_eq!(
                (&stored.certificate, &stored.key),
                (&wanted.0, &wanted.1),
                "{steps} steps, {reading}"
            );
            assert!(is_pair(&der(&stored.certificate), &stored.key).unwrap());
        }
        assert!(!files.renewed().exists(), "what was begun is finished after {steps} steps");
        let in_place = std::fs::read_to_string(&files.certificate).unwrap();
        assert_eq!(serial_of(&der(&in_place)).unwrap(), serial_of(&der(&wanted.0)).unwrap());
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&files.key), mode(&files.certificate)), (0o600, 0o644));
    }
}

#[test]
fn what_a_power_cut_left_in_part_harms_nothing() {
    let (_folder, files, [first, second]) = prepared();
    let beside = |path: &Path, end: &str| {
        let mut name = path.to_owned().into_os_string();
        name.push(end);
        std::path::PathBuf::from(name)
    };
    // Half of each file that is written under a name of its own first.
    for path in [&files.certificate, &files.key, &files.renewed()] {
        std::fs::write(beside(path, ".new"), &second.1[..40]).unwrap();
    }
    assert_eq!(files.read().unwrap().certificate, first.0);
    files.keep(&second.0, &second.1).unwrap();
    assert_eq!(files.read().unwrap().certificate, second.0);
    // What is beside is not whole, is older, of another key, or of another node.
    let authority = Authority::create(SystemTime::now(), [1; 16]).unwrap();
    let other = pair(&authority, "edge-2", 20);
    let newer = pair(&authority, "edge-1", 30);
    let odd = [
        second.1[..100].to_owned(),
        format!("{}{}", first.1, first.0),
        format!("{}{}", first.1, newer.0),
        format!("{}{}", other.1, other.0),
        String::new(),
    ];
    for text in odd {
        std::fs::write(files.renewed(), &text).unwrap();
        let stored = files.read().unwrap();
        assert_eq!((stored.certificate, stored.key), second.clone(), "{text}");
        assert!(!files.renewed().exists());
    }
    std::fs::write(files.renewed(), format!("{}{}", newer.1, newer.0)).unwrap();
    assert_eq!(files.read().unwrap().certificate, newer.0);
}

#[test]
fn a_link_in_the_place_of_a_file_stays_and_what_it_leads_to_is_replaced() {
    let (folder, files, [_, second]) = prepared();
    let elsewhere = folder.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let target = elsewhere.join("the.key");
    std::fs::rename(&files.key, &target).unwrap();
    std::os::unix::fs::symlink(&target, &files.key).unwrap();
    files.keep(&second.0, &second.1).unwrap();
    assert!(files.key.is_symlink());
    assert_eq!(std::fs::read_to_string(&target).unwrap(), second.1);
}

#[test]
fn a_new_pair_that_cannot_take_its_place_counts_where_it_was_written_and_one_that_was_not_written_does_not() {
    let (folder, files, [first, second]) = prepared();
    // Nothing can be written under the name that comes first.
    let in_the_way = |name: &str| folder.path().join(name).join("something");
    std::fs::create_dir_all(in_the_way("server.crt.renewed.new")).unwrap();
    assert!(files.keep(&second.0, &second.1).is_err());
    assert_eq!(files.read().unwrap().certificate, first.0);
    std::fs::remove_dir_all(folder.path().join("server.crt.renewed.new")).unwrap();
    std::fs::create_dir_all(in_the_way("server.key.new")).unwrap();
    files.keep(&second.0, &second.1).unwrap();
    assert_eq!(std::fs::read_to_string(&files.key).unwrap(), first.1, "the key has not taken its place");
    for _ in 0..2 {
        let stored = files.read().unwrap();
        assert_eq!((stored.certificate, stored.key), second.clone());
    }
    std::fs::remove_dir_all(folder.path().join("server.key.new")).unwrap();
    assert_eq!(files.read().unwrap().key, second.1);
    assert_eq!(std::fs::read_to_string(&files.key).unwrap(), second.1);
    assert!(!files.renewed().exists());
}

#[test]
fn a_third_file_is_judged_by_what_works_before_it_is_by_its_date() {
    // The clock of the cloud was set back between the two: the new pair is the elder one by its date.
    let dated_back = || {
        let (folder, files, [first, second]) = prepared();
        files.keep(&second.0, &second.1).unwrap();
        (folder, files, second, first)
    };
    // Cut off between key and certificate: what is in place is no pair.
    let (_folder, files, old, new) = dated_back();
    std::fs::write(files.renewed(), format!("{}{}", new.1, new.0)).unwrap();
    std::fs::write(&files.key, &new.1).unwrap();
    assert!(!is_pair(&der(&old.0), &new.1).unwrap());
    for _ in 0..2 {
        let stored = files.read().unwrap();
        assert_eq!((stored.certificate, stored.key), new.clone());
    }
    // Cut off before: what is in place is the very pair that was to be replaced, and the cloud may take it for replaced already.
    for steps in 1..WriteStep::ALL.len() {
        let (_folder, files, _, new) = dated_back();
        for step in WriteStep::ALL.into_iter().take(steps) {
            files.take(step, &new.0, &new.1).unwrap();
        }
        let stored = files.read().unwrap();
        assert_eq!((stored.certificate, stored.key), new, "after {steps} steps");
    }
    // Somebody has put another pair in place since: the later one counts.
    let (_folder, files, old, new) = dated_back();
    files.take(WriteStep::Beside, &new.0, &new.1).unwrap();
    let authority = Authority::create(SystemTime::now(), [1; 16]).unwrap();
    let restored = pair(&authority, "edge-1", 40);
    std::fs::write(&files.certificate, &restored.0).unwrap();
    std::fs::write(&files.key, &restored.1).unwrap();
    let stored = files.read().unwrap();
    assert_eq!((stored.certificate, stored.key), restored);
    assert!(!files.renewed().exists());
    assert_ne!(old, new);
}

#[test]
fn the_only_pair_that_is_good_is_not_removed_when_the_next_one_cannot_be_written() {
    let (folder, files, [first, second]) = prepared();
    let in_the_way = |name: &str| folder.path().join(name).join("something");
    // The second cannot take its place: it stands beside, the node uses it, and the first is worth nothing from then on.
    std::fs::create_dir_all(in_the_way("server.key.new")).unwrap();
    files.keep(&second.0, &second.1).unwrap();
    assert_eq!(std::fs::read_to_string(&files.certificate).unwrap(), first.0);
    // And a third finds no room at all.
    std::fs::create_dir_all(in_the_way("server.crt.renewed.new")).unwrap();
    let authority = Authority::create(SystemTime::now(), [1; 16]).unwrap();
    let third = pair(&authority, "edge-1", 30);
    assert!(files.keep(&third.0, &third.1).is_err());
    let stored = files.read().unwrap();
    assert_eq!((stored.certificate, stored.key), second);
}

#[test]
fn whoever_only_looks_sees_the_pair_that_counts_and_changes_nothing() {
    let (folder, files, [_, second]) = prepared();
    for step in [WriteStep::Beside, WriteStep::Key] {
        files.take(step, &second.0, &second.1).unwrap();
    }
    std::fs::write(folder.path().join("server.crt.new"), "half").unwrap();
    let content = || {
        let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut content: Vec<_> = names.map(|path| (std::fs::read(&path).unwrap(), path)).collect();
        content.sort();
        content
    };
    let before = content();
    let stored = files.look().unwrap();
    assert_eq!((stored.certificate, stored.key), second);
    assert_eq!(content(), before);
    let leftovers = files.leftovers();
    for name in
        ["server.crt.renewed", "server.crt.renewed.new", "server.crt.new", "server.key.new", "rootCA.crt.new"]
    {
        assert!(leftovers.iter().any(|path| path.file_name().unwrap() == name), "{name}: {leftovers:?}");
    }
}
