//! Other values in `edgecore.yaml` of a node whose edgecore is a stand-in, by keadm as it is shipped: with values by which it does not
//! come back, and with everything ended at each phase.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nodeupgrade::{Event, JournalFolder, Outcome, Phase};

use crate::OLD;
use crate::node::{Node, kill, standin, until};

const HEARTBEAT: &str = "modules.edgeHub.heartbeat";

fn pair(heartbeat: &str) -> String {
    format!("{HEARTBEAT}={heartbeat}")
}

fn running() -> Node {
    let node = Node::new(&standin(OLD, "healthy"));
    let text = fs::read_to_string(&node.config).unwrap();
    fs::write(&node.config, format!("# a person's\n{text}")).unwrap();
    fs::set_permissions(&node.config, fs::Permissions::from_mode(0o640)).unwrap();
    node.start();
    node
}

fn text(node: &Node) -> String {
    assert_eq!(fs::metadata(&node.config).unwrap().permissions().mode() & 0o7777, 0o640);
    fs::read_to_string(&node.config).unwrap()
}

fn before(node: &Node) -> PathBuf {
    node.config.with_extension("yaml.before")
}

/// Nothing lies beside the file that waits for its name, or for the way back.
fn is_clean(node: &Node) {
    let entries = fs::read_dir(node.config.parent().unwrap()).unwrap();
    let names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    assert!(
        !names.iter().any(|name| name.starts_with(".edgecore.yaml") || name.starts_with(".real")),
        "{names:?}"
    );
}

#[test]
fn a_value_is_another_one_the_rest_of_the_file_stays_and_what_is_so_already_restarts_nothing() {
    let node = running();
    let (old, first) = (text(&node), node.edgecores());
    let (good, said) = node.update(&["--set", &pair("20")]);
    assert!(good, "{said}");
    for word in ["ok      Settings", "ok      BackUp", "Health: edgecore is linked and the node Ready"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let new = text(&node);
    assert_eq!(new, old.replace("heartbeat: 10\n", "heartbeat: 20\n"));
    assert_eq!(fs::read_to_string(before(&node)).unwrap(), old);
    node.runs_only(&standin(OLD, "healthy"));
    let second = node.edgecores();
    assert_ne!(first, second);
    node.store_is_whole();
    let journal = node.journal().unwrap();
    let mut flow: Vec<&str> = journal.steps.iter().map(|step| step.action.as_str()).collect();
    flow.dedup();
    assert_eq!((journal.event, flow), (Event::ConfigUpdate, vec!["Check", "BackUp", "Update"]));
    let (good, said) = node.keadm("upgrade", &["--status"]);
    assert!(good && said.contains("confirmed: edgecore runs with the new values"), "{said}");
    is_clean(&node);

    let (good, said) = node.update(&["--set", &pair("20")]);
    assert!(good && said.contains("there is nothing to do"), "{said}");
    assert_eq!((node.edgecores(), node.journal().unwrap()), (second, journal));

    // At a link the file behind it is exchanged; of the files before the newest alone is kept.
    let real = node.folder.join("real.yaml");
    fs::rename(&node.config, &real).unwrap();
    std::os::unix::fs::symlink(&real, &node.config).unwrap();
    let (good, said) =
        node.update(&["--set", &pair("30"), "--set", "modules.edged.nodeLabels.example\\.com/site=c-d"]);
    assert!(good, "{said}");
    assert!(fs::symlink_metadata(&node.config).unwrap().is_symlink());
    assert!(
        text(&node).contains("\"example.com/site\": \"c-d\"\n") && text(&node).starts_with("# a person's\n"),
        "{}",
        text(&node)
    );
    assert_eq!(fs::read_to_string(node.folder.join("real.yaml.before")).unwrap(), new);
    is_clean(&node);

    // An upgrade finds the program where it is, and not where the last update was.
    node.kill_all();
    let (good, said) = node.keadm("rollback", &[]);
    assert!(!good && said.contains("bin/edgecore is exchanged"), "{said}");
}

#[test]
fn for_a_job_keadm_changes_what_a_job_may_and_says_so_of_the_rest() {
    let node = running();
    let (old, first) = (text(&node), node.edgecores());
    let of_programs = "modules.edged.tailoredKubeletConfig.staticPodPath=/tmp";
    let (good, said) = node.update(&["--by-job", "--set", &pair("33"), "--set", of_programs]);
    assert!(!good && said.contains("staticPodPath` may be changed by no job"), "{said}");
    assert_eq!((text(&node), node.edgecores()), (old.clone(), first));
    let (good, said) = node.update(&["--by-job", "--set", &pair("33")]);
    assert!(good, "{said}");
    assert_eq!(text(&node), old.replace("heartbeat: 10\n", "heartbeat: 33\n"));
}

#[test]
fn values_by_which_edgecore_does_not_come_back_are_taken_back_with_their_cause() {
    let faults = [("66", "Health", "no link to the cloud"), ("77", "Start", "ended at once")];
    let taken_back = |(heartbeat, phase, cause): (&str, &str, &str)| {
        let node = running();
        let old = text(&node);
        let (good, said) = node.update(&["--set", &pair(heartbeat), "--timeout", "10"]);
        assert!(!good && said.contains("rolled back: edgecore.yaml is as it was"), "{heartbeat}: {said}");
        let (outcome, why) = node.outcome();
        assert_eq!(outcome, Outcome::RolledBack);
        assert!(why.starts_with(phase) && why.contains(cause), "{heartbeat}: {why}");
        assert_eq!(text(&node), old);
        assert!(!before(&node).exists());
        node.runs_only(&standin(OLD, "healthy"));
        node.store_is_whole();
        is_clean(&node);
    };
    std::thread::scope(|scope| {
        for fault in faults {
            scope.spawn(move || taken_back(fault));
        }
    });
}

#[test]
fn what_is_wrong_is_refused_by_name_and_nothing_is_changed() {
    let node = running();
    let (old, first) = (text(&node), node.edgecores());
    let refused = |set: &[&str], word: &str| {
        let arguments: Vec<&str> = set.iter().flat_map(|pair| ["--set", pair]).collect();
        let (good, said) = node.update(&arguments);
        assert!(!good && said.contains(word), "{word}: {said}");
        assert_eq!((text(&node), node.edgecores()), (old.clone(), first.clone()));
        assert!(node.journal().is_none() && !before(&node).exists());
        is_clean(&node);
    };
    refused(&["modules.edgeHub.heartbeet=20"], "failed  Settings: `modules.edgeHub.heartbeet` is no setting");
    refused(&[&pair("often")], "`modules.edgeHub.heartbeat` is to be `often`");
    refused(&[&pair("0")], "with these values, ");
    refused(
        &[&pair("20"), "database.dataSource=/tmp/x.db"],
        "`database.dataSource` is where the supervisor looks",
    );
    refused(
        &["modules.edgeStream.enable=false"],
        "`modules.edgeStream.socket` is where the supervisor looks",
    );
    refused(&[HEARTBEAT], "is not key=value");
    let lock = until("the journal's lock", || JournalFolder::of(&node.store).lock().unwrap());
    refused(&[&pair("20")], "Lock: another upgrade of this node is under way");
    drop(lock);
    let (good, said) = node.update(&[]);
    assert!(!good && said.contains("--set"), "{said}");
}

const BACK: &[Outcome] = &[Outcome::RolledBack];
/// The phase may be over before the end comes.
const EITHER: &[Outcome] = &[Outcome::RolledBack, Outcome::Confirmed];
const UNCHANGED: &[Outcome] = &[Outcome::Refused, Outcome::RolledBack];

/// The value, in which phase what is ended, whether that is the supervisor alone, and how it may come out.
type Case = (&'static str, Phase, bool, &'static [Outcome]);

const CASES: [Case; 16] = [
    ("20", Phase::PreCheck, false, UNCHANGED),
    ("20", Phase::BackUp, false, UNCHANGED),
    ("20", Phase::Stop, false, BACK),
    ("20", Phase::Swap, false, BACK),
    ("20", Phase::Start, false, BACK),
    ("20", Phase::Health, false, BACK),
    ("20", Phase::Confirm, false, &[Outcome::Confirmed]),
    ("66", Phase::Swap, false, BACK),
    ("66", Phase::Health, false, BACK),
    ("77", Phase::RollBack, false, BACK),
    ("77", Phase::RestorePrograms, false, BACK),
    ("77", Phase::Restart, false, BACK),
    ("77", Phase::CheckRestarted, false, BACK),
    ("20", Phase::Swap, true, EITHER),
    ("20", Phase::Health, true, EITHER),
    ("66", Phase::Health, true, BACK),
];

fn end_at((heartbeat, phase, is_supervisor_alone, outcomes): Case) {
    let case = format!("{heartbeat}, {phase:?}, {is_supervisor_alone}");
    let node = running();
    let old = text(&node);
    let mut update = node.begin_update(&["--set", &pair(heartbeat), "--timeout", "10"]);
    until("the phase", || node.journal().filter(|journal| journal.progress.phase >= phase));
    if is_supervisor_alone {
        kill(update.id());
        until("the supervisor", || node.supervisors().first().copied().map(kill));
        until("the journal's lock", || JournalFolder::of(&node.store).lock().unwrap().map(drop));
    } else {
        node.kill_all();
    }
    let _ = update.wait();
    // Before edgecore is started, as the unit does it; and again, which finds nothing.
    for _ in 0..2 {
        let (good, said) = node.keadm("upgrade", &["--take-up"]);
        assert!(good, "{case}: {said}");
    }
    if !is_supervisor_alone || node.edgecores().is_empty() {
        node.start();
    }
    until("the end", || node.journal().filter(|journal| journal.progress.is_done()));
    let (outcome, cause) = node.outcome();
    assert!(outcomes.contains(&outcome), "{case}: {outcome:?}, {cause}");
    let found = text(&node);
    match outcome {
        Outcome::Confirmed => assert!(found.contains(&format!("heartbeat: {heartbeat}\n")), "{case}"),
        _ => assert_eq!((found, cause.is_empty()), (old, false), "{case}"),
    }
    until("one edgecore", || (node.edgecores().len() == 1).then_some(()));
    assert!(node.has(Path::new(&standin(OLD, "healthy"))));
    node.store_is_whole();
    is_clean(&node);
}

#[test]
fn updates_with_an_end_at_each_phase_leave_the_old_or_the_new_file() {
    // Four at a time: most of a run is waiting.
    for cases in CASES.chunks(4) {
        std::thread::scope(|scope| {
            for case in cases {
                scope.spawn(move || end_at(*case));
            }
        });
    }
}

/// By hand or by `config-update`: who made a backup before has the settings of it back, also where edgecore does not run any more.
#[test]
fn settings_come_back_from_the_backup_of_the_version_that_runs() {
    let node = running();
    let old = text(&node);
    let (good, said) = node.keadm("backup", &[]);
    assert!(good, "{said}");
    let back = |node: &Node| node.keadm("rollback", &["--historical-version", OLD]);
    let (good, said) = back(&node);
    assert!(good && said.contains("is as in the backup: there is nothing to do"), "{said}");
    let (good, said) = node.update(&["--set", &pair("20")]);
    assert!(good, "{said}");
    let first = node.edgecores();
    let (good, said) = node.keadm("rollback", &["--historical-version", OLD, "--restore-store"]);
    assert!(!good && said.contains("--restore-store: edgecore"), "{said}");
    assert_eq!(node.edgecores(), first);
    let (good, said) = back(&node);
    assert!(good && said.contains("Health: edgecore is linked and the node Ready"), "{said}");
    assert_eq!(text(&node), old);
    assert_ne!(node.edgecores(), first);
    node.runs_only(&standin(OLD, "healthy"));
    node.store_is_whole();
    is_clean(&node);
    // The one that was edited is beside it.
    assert!(fs::read_to_string(before(&node)).unwrap().contains("heartbeat: 20\n"));

    node.kill_all();
    fs::write(&node.config, old.replace("heartbeat: 10\n", "heartbeat: 30\n")).unwrap();
    let (good, said) = back(&node);
    assert!(good, "{said}");
    assert_eq!((text(&node), node.edgecores().is_empty()), (old, false), "{said}");
}
