//! What comes next in an upgrade or a rollback of a node's programs, or an update of its settings, after each effect and after an end at any instant.
//!
//! The phase that is written down is the one that is being done. Each effect can be done again wherever it was cut off, so whoever finds
//! an unfinished journal begins with the phase that stands there.

use serde::{Deserialize, Serialize};

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A new program.
    Upgrade,
    /// One of a backup.
    Rollback,
    /// Other values in the settings; the program stays.
    ConfigUpdate,
}

/// Three: a supervisor that is ended more often than this is not begun again with the new program.
const RESUMES_MAX: u32 = 3;
/// Three: systemd ends what runs before edgecore after a while (`TimeoutStartSec`), and begins again; so often within one start of the
/// machine the same is tried.
const TRIES_MAX: u32 = 3;

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// The new program is fetched and looked at; nothing of the node is changed.
    PreCheck,
    /// Program, settings and store are copied while edgecore runs.
    BackUp,
    /// edgecore is stopped.
    Stop,
    /// The store, now that nobody writes it, is copied once more.
    BackUpStore,
    /// The new files take their names.
    Swap,
    /// edgecore is started.
    Start,
    /// It is waited until the new edgecore is healthy.
    Health,
    /// It is: what belongs to the release beside it takes its name, and what was kept for the way back goes.
    Confirm,
    /// The way back begins: edgecore is stopped.
    RollBack,
    /// The files that were there before take their names.
    RestorePrograms,
    /// The store goes back, if the release that was there before cannot use it as it is.
    RestoreStore,
    /// The edgecore that was there before is started.
    Restart,
    /// It is waited until it answers.
    CheckRestarted,
    /// Nothing is left to do.
    Done,
}

impl Phase {
    /// The phases until the new program is confirmed, in their order.
    pub const FORWARD: [Phase; 8] = [
        Phase::PreCheck,
        Phase::BackUp,
        Phase::Stop,
        Phase::BackUpStore,
        Phase::Swap,
        Phase::Start,
        Phase::Health,
        Phase::Confirm,
    ];

    /// KubeEdge's action of a NodeUpgradeJob or ConfigUpdateJob that this phase is a part of.
    pub fn action(self, event: Event) -> &'static str {
        match self {
            Phase::PreCheck => "Check",
            Phase::BackUp => "BackUp",
            Phase::Stop
            | Phase::BackUpStore
            | Phase::Swap
            | Phase::Start
            | Phase::Health
            | Phase::Confirm
            | Phase::Done
                if event == Event::ConfigUpdate =>
            {
                "Update"
            }
            Phase::Stop
            | Phase::BackUpStore
            | Phase::Swap
            | Phase::Start
            | Phase::Health
            | Phase::Confirm
            | Phase::Done => "Upgrade",
            Phase::RollBack
            | Phase::RestorePrograms
            | Phase::RestoreStore
            | Phase::Restart
            | Phase::CheckRestarted => "RollBack",
        }
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// What was wanted runs, and is healthy.
    Confirmed,
    /// What was there before is there again.
    RolledBack,
    /// Nothing was changed.
    Refused,
    /// Neither is sure: somebody has to look.
    Failed,
}

/// Where it stands: what the decisions are made by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// How it ended, once it has.
    pub outcome: Option<Outcome>,
    /// Why it was not confirmed, or what of it was not done.
    pub cause: Option<String>,
    /// How often a supervisor took it up again.
    pub resumes: u32,
    /// Whether the store is to go back whatever it is worth.
    pub must_restore_store: bool,
    /// Whether whoever starts the machine starts edgecore, too: it is only made ready then.
    pub is_booting: bool,
    /// Whether the new program may have been started: nothing has changed the store before.
    #[serde(default = "somebody_else_did_not_say")]
    pub may_have_run: bool,
    /// In which start of the machine it was last found before edgecore ran; empty: in none.
    #[serde(default)]
    pub boot: String,
    /// How often in that one.
    #[serde(default)]
    pub tries: u32,
}

/// A journal of a release that did not write it down.
fn somebody_else_did_not_say() -> bool {
    true
}

impl Default for Progress {
    fn default() -> Self {
        Progress {
            phase: Phase::PreCheck,
            outcome: None,
            cause: None,
            resumes: 0,
            must_restore_store: false,
            is_booting: false,
            may_have_run: false,
            boot: String::new(),
            tries: 0,
        }
    }
}

/// Who finds an unfinished journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finder {
    /// A supervisor, while the machine goes on: the one before was ended.
    Supervisor,
    /// Whoever starts edgecore, before it runs: after a power cut, or after edgecore and its supervisor were ended.
    Boot,
}

impl Progress {
    /// Whether nothing is left to do.
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// Whether nothing can be done before edgecore is started, by whoever starts the machine: then a supervisor looks how it is.
    pub fn awaits_start(&self) -> bool {
        self.is_booting && self.phase == Phase::CheckRestarted
    }

    /// Nobody can look how edgecore is once it is started: it ends as it is.
    pub fn unwatched(&mut self) {
        if self.awaits_start() {
            self.end(Outcome::RolledBack);
        }
    }

    /// The phase was done.
    pub fn succeeded(&mut self) {
        self.phase = match self.phase {
            Phase::PreCheck => Phase::BackUp,
            Phase::BackUp => Phase::Stop,
            Phase::Stop => Phase::BackUpStore,
            Phase::BackUpStore => Phase::Swap,
            Phase::Swap => {
                self.may_have_run = true;
                Phase::Start
            }
            Phase::Start => Phase::Health,
            Phase::Health => Phase::Confirm,
            Phase::Confirm => return self.end(Outcome::Confirmed),
            Phase::RollBack => Phase::RestorePrograms,
            Phase::RestorePrograms => Phase::RestoreStore,
            // Whoever starts the machine starts it. A store that the new one had may look sound and not be it: that shows only then.
            Phase::RestoreStore if self.is_booting && self.may_have_run && !self.must_restore_store => {
                Phase::CheckRestarted
            }
            Phase::RestoreStore if self.is_booting => return self.end(Outcome::RolledBack),
            Phase::RestoreStore => Phase::Restart,
            Phase::Restart => Phase::CheckRestarted,
            Phase::CheckRestarted => return self.end(Outcome::RolledBack),
            Phase::Done => Phase::Done,
        };
    }

    /// The phase could not be done.
    pub fn failed(&mut self, why: &str) {
        let at = self.phase;
        self.blame(why);
        match at {
            Phase::PreCheck | Phase::BackUp => self.end(Outcome::Refused),
            Phase::Stop | Phase::BackUpStore | Phase::Swap | Phase::Start | Phase::Health => {
                self.phase = Phase::RollBack;
            }
            // The new edgecore was healthy: it stays, and what is not done beside it is said.
            Phase::Confirm => self.end(Outcome::Confirmed),
            // The files can go back under a program that does not end.
            Phase::RollBack => self.phase = Phase::RestorePrograms,
            // The program decides which version it is; without it nothing that follows is the old version.
            Phase::RestorePrograms if self.is_booting => self.end(Outcome::Failed),
            Phase::RestorePrograms => {
                self.phase = Phase::Restart;
                self.outcome = Some(Outcome::Failed);
            }
            // edgecore sets a broken store aside by itself, and is the old version all the same.
            Phase::RestoreStore if self.is_booting => self.end(Outcome::RolledBack),
            Phase::RestoreStore => self.phase = Phase::Restart,
            // It may be the store that the new one left: that of before is put back, once.
            Phase::Restart | Phase::CheckRestarted
                if self.may_have_run && !self.must_restore_store && self.outcome.is_none() =>
            {
                self.must_restore_store = true;
                self.phase = Phase::RollBack;
            }
            Phase::Restart | Phase::CheckRestarted => self.end(Outcome::Failed),
            Phase::Done => {}
        }
    }

    /// Somebody finds it unfinished; `boot` says which start of the machine this is.
    pub fn found_by(&mut self, finder: Finder, boot: &str) {
        let at = self.phase;
        self.is_booting = finder == Finder::Boot;
        self.resumes = self.resumes.saturating_add(1);
        if self.is_booting {
            self.tries = if self.boot == boot { self.tries.saturating_add(1) } else { 1 };
            boot.clone_into(&mut self.boot);
            // What takes longer than it is given does so the next time, too; edgecore is to start at last.
            if self.tries > TRIES_MAX
                && matches!(at, Phase::Confirm | Phase::RestorePrograms | Phase::RestoreStore)
            {
                return self
                    .failed(&format!("it was ended here {TRIES_MAX} times before edgecore could start"));
            }
        }
        let ended = format!("it was ended in the phase {at:?} (a power cut, or somebody killed it)");
        match at {
            Phase::PreCheck | Phase::BackUp => {
                self.blame(&ended);
                self.end(Outcome::Refused);
            }
            Phase::Stop | Phase::BackUpStore | Phase::Swap | Phase::Start | Phase::Health => {
                if self.is_booting {
                    self.blame(&ended);
                    self.phase = Phase::RestorePrograms;
                } else if self.resumes > RESUMES_MAX {
                    self.blame(&format!("{ended}, and {RESUMES_MAX} times before"));
                    self.phase = Phase::RollBack;
                }
            }
            // It was healthy.
            Phase::Confirm => {}
            Phase::RollBack if self.is_booting => self.phase = Phase::RestorePrograms,
            Phase::Restart | Phase::CheckRestarted if self.is_booting => {
                if self.may_have_run && !self.must_restore_store && self.outcome.is_none() {
                    self.phase = Phase::CheckRestarted;
                } else {
                    self.end(self.outcome.unwrap_or(Outcome::RolledBack));
                }
            }
            Phase::RollBack
            | Phase::RestorePrograms
            | Phase::RestoreStore
            | Phase::Restart
            | Phase::CheckRestarted
            | Phase::Done => {}
        }
    }

    fn end(&mut self, outcome: Outcome) {
        self.phase = Phase::Done;
        // What could not be put back is not made good by what comes after.
        if self.outcome != Some(Outcome::Failed) {
            self.outcome = Some(outcome);
        }
    }

    /// The first cause is what a person has to know; what follows from it stands behind it.
    fn blame(&mut self, why: &str) {
        let said = format!("{:?}: {why}", self.phase);
        self.cause = Some(match self.cause.take() {
            None => said,
            Some(first) if first.len() > 4096 => first,
            Some(first) => format!("{first}; then {said}"),
        });
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
