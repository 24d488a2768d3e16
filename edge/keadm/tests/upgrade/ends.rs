//! Everything is ended at each phase, as by a power cut, or the supervisor alone; then the machine starts, or somebody finishes it.

use std::path::PathBuf;

use nodeupgrade::{JournalFolder, Outcome, Phase};

use crate::node::{Node, kill, standin, until};
use crate::{NEW, OLD};

/// Who is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whom {
    /// All, as by a power cut.
    All,
    /// The supervisor, while edgecore goes on.
    Supervisor,
}

/// What the new program is, in which phase what is ended, and how it may come out.
type Case = (&'static str, Phase, Whom, &'static [Outcome]);

const BACK: &[Outcome] = &[Outcome::RolledBack];
/// The phase may be over before the end comes.
const EITHER: &[Outcome] = &[Outcome::RolledBack, Outcome::Confirmed];
const UNCHANGED: &[Outcome] = &[Outcome::Refused, Outcome::RolledBack];

const CASES: [Case; 21] = [
    ("healthy", Phase::PreCheck, Whom::All, UNCHANGED),
    ("healthy", Phase::BackUp, Whom::All, UNCHANGED),
    ("healthy", Phase::Stop, Whom::All, BACK),
    ("healthy", Phase::BackUpStore, Whom::All, BACK),
    ("healthy", Phase::Swap, Whom::All, BACK),
    ("healthy", Phase::Start, Whom::All, BACK),
    ("healthy", Phase::Health, Whom::All, BACK),
    ("healthy", Phase::Confirm, Whom::All, &[Outcome::Confirmed]),
    ("spoils", Phase::Swap, Whom::All, BACK),
    ("spoils", Phase::Start, Whom::All, BACK),
    ("spoils", Phase::Health, Whom::All, BACK),
    // Whoever starts edgecore does so again and again, until a supervisor puts the store of before back.
    ("poisons", Phase::Health, Whom::All, BACK),
    ("dies", Phase::RollBack, Whom::All, BACK),
    ("dies", Phase::RestorePrograms, Whom::All, BACK),
    ("dies", Phase::RestoreStore, Whom::All, BACK),
    ("dies", Phase::Restart, Whom::All, BACK),
    ("dies", Phase::CheckRestarted, Whom::All, BACK),
    ("healthy", Phase::Swap, Whom::Supervisor, EITHER),
    ("healthy", Phase::Health, Whom::Supervisor, EITHER),
    ("unlinked", Phase::Health, Whom::Supervisor, BACK),
    ("dies", Phase::RestoreStore, Whom::Supervisor, BACK),
];

/// What has come of one.
fn end_at((behaviour, phase, whom, outcomes): Case) -> Outcome {
    let (old, new) = (standin(OLD, "healthy"), standin(NEW, behaviour));
    let node = Node::new(&old);
    node.start();
    let mut upgrade = node.begin_upgrade(&new, &["--timeout", "10"]);
    // By the phases that come after, too: what is over is over.
    until("the phase", || node.journal().filter(|journal| journal.progress.phase >= phase));
    match whom {
        Whom::All => node.kill_all(),
        Whom::Supervisor => {
            kill(upgrade.id());
            until("the supervisor", || node.supervisors().first().copied().map(kill));
            until("the journal's lock", || JournalFolder::of(&node.store).lock().unwrap().map(drop));
        }
    }
    let _ = upgrade.wait();
    // Before edgecore is started, as the unit does it; and again, which finds nothing.
    for _ in 0..2 {
        let (good, said) = node.keadm("upgrade", &["--take-up"]);
        assert!(good, "{behaviour}, {phase:?}, {whom:?}: {said}");
    }
    if whom == Whom::All || node.edgecores().is_empty() {
        node.start();
    }
    // Where the new one had the store, it is looked how the old one is with it.
    until("the end", || node.journal().filter(|journal| journal.progress.is_done()));
    let (outcome, cause) = node.outcome();
    assert!(outcomes.contains(&outcome), "{behaviour}, {phase:?}, {whom:?}: {outcome:?}, {cause}");
    let runs: PathBuf = match outcome {
        Outcome::Confirmed => new,
        _ => {
            assert!(!cause.is_empty(), "{behaviour}, {phase:?}, {whom:?}");
            old
        }
    };
    node.runs_only(&runs);
    node.store_is_whole();
    let (good, said) = node.keadm("upgrade", &["--status"]);
    assert!(good && said.contains(&cause), "{said}");
    outcome
}

#[test]
fn upgrades_with_an_end_at_each_phase_leave_the_old_or_the_new_version() {
    let mut came = Vec::new();
    // Four at a time: most of a run is waiting.
    for cases in CASES.chunks(4) {
        let runs: Vec<_> =
            cases.iter().map(|case| (*case, std::thread::spawn(move || end_at(*case)))).collect();
        for ((behaviour, phase, whom, _), run) in runs {
            let outcome = run.join().unwrap_or_else(|_| panic!("{behaviour}, {phase:?}, {whom:?}"));
            came.push(outcome);
        }
    }
    assert_eq!(came.len(), CASES.len());
}

#[test]
fn a_terminal_that_is_closed_does_not_end_who_takes_it_up() {
    let (old, new) = (standin(OLD, "healthy"), standin(NEW, "unlinked"));
    let node = Node::new(&old);
    node.start();
    let mut upgrade = node.begin_upgrade(&new, &["--timeout", "10"]);
    until("the phase", || node.journal().filter(|journal| journal.progress.phase == Phase::Health));
    kill(upgrade.id());
    let _ = upgrade.wait();
    until("the supervisor", || node.supervisors().first().copied().map(kill));
    let journals = JournalFolder::of(&node.store);
    until("the journal's lock", || journals.lock().unwrap().map(drop));
    let mut takes_up = node.command("upgrade", &["--take-up"]).spawn().unwrap();
    until("who takes it up", || journals.lock().unwrap().is_none().then_some(()));
    let hangup = rustix::process::Pid::from_child(&takes_up);
    rustix::process::kill_process(hangup, rustix::process::Signal::HUP).unwrap();
    assert!(takes_up.wait().unwrap().success());
    assert_eq!(node.outcome().0, Outcome::RolledBack);
    node.runs_only(&old);
}
