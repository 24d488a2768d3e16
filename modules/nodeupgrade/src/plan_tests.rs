//! The plan on a machine of a few facts, which is cut off before and within every effect.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Old,
    New,
}

/// What the new program does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    NeverHealthy,
    /// Not healthy, and the old release cannot read what it leaves.
    SpoilsStore,
    /// Not healthy, and what it leaves looks sound to the old release and is not.
    PoisonsStore,
    NoDisk(Phase),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StoreState {
    Sound,
    Spoilt,
    Poisoned,
}

/// It was cut off.
struct CutOff;

#[derive(Debug)]
struct Machine {
    fault: Fault,
    program: Version,
    is_staged: bool,
    has_previous: bool,
    has_backup: bool,
    store: StoreState,
    runs: Option<Version>,
    on_disk: Progress,
    /// Steps until it is cut off.
    left: usize,
    was_healthy: bool,
}

impl Machine {
    fn new(fault: Fault) -> Machine {
        Machine {
            fault,
            program: Version::Old,
            is_staged: false,
            has_previous: false,
            has_backup: false,
            store: StoreState::Sound,
            runs: Some(Version::Old),
            on_disk: Progress::default(),
            left: usize::MAX,
            was_healthy: false,
        }
    }

    fn step(&mut self) -> Result<(), CutOff> {
        self.left = self.left.checked_sub(1).ok_or(CutOff)?;
        Ok(())
    }

    fn start(&mut self) {
        self.runs = Some(self.program);
        if self.program == Version::New {
            self.store = match self.fault {
                Fault::SpoilsStore => StoreState::Spoilt,
                Fault::PoisonsStore => StoreState::Poisoned,
                _ => self.store,
            };
        }
    }

    fn is_healthy(&self) -> bool {
        match self.runs {
            None => false,
            Some(Version::Old) => self.store == StoreState::Sound,
            Some(Version::New) => matches!(self.fault, Fault::None | Fault::NoDisk(_)),
        }
    }

    fn effect(&mut self, progress: &Progress) -> Result<Result<(), String>, CutOff> {
        self.step()?;
        if self.fault == Fault::NoDisk(progress.phase) {
            return Ok(Err("no space left on device".to_owned()));
        }
        match progress.phase {
            Phase::PreCheck => self.is_staged = true,
            Phase::BackUp => {}
            Phase::Stop | Phase::RollBack => self.runs = None,
            Phase::BackUpStore => {
                assert!(self.runs.is_none() && self.store == StoreState::Sound, "{self:?}");
                self.has_backup = true;
            }
            Phase::Swap => {
                assert!(self.runs.is_none() && self.has_backup, "{self:?}");
                self.has_previous = true;
                self.step()?;
                if self.is_staged {
                    (self.program, self.is_staged) = (Version::New, false);
                }
            }
            Phase::Start | Phase::Restart => self.start(),
            Phase::Health => {
                if !self.is_healthy() {
                    return Ok(Err("the new edgecore is not ready".to_owned()));
                }
                self.was_healthy = true;
            }
            Phase::Confirm => {
                assert!(self.was_healthy, "{self:?}");
                self.has_previous = false;
            }
            Phase::RestorePrograms => {
                if self.has_previous {
                    (self.program, self.has_previous) = (Version::Old, false);
                }
                self.step()?;
                self.is_staged = false;
            }
            Phase::RestoreStore => {
                assert!(self.runs.is_none(), "{self:?}");
                if progress.must_restore_store || self.store == StoreState::Spoilt {
                    assert!(self.has_backup, "{self:?}");
                    self.store = StoreState::Sound;
                }
            }
            Phase::CheckRestarted => {
                if !self.is_healthy() {
                    return Ok(Err("the old edgecore does not answer".to_owned()));
                }
            }
            Phase::Done => {}
        }
        self.step()?;
        Ok(Ok(()))
    }

    fn drive(&mut self, mut progress: Progress) -> Result<(), CutOff> {
        loop {
            self.step()?;
            self.on_disk = progress.clone();
            if progress.is_done() || progress.awaits_start() {
                return Ok(());
            }
            match self.effect(&progress)? {
                Ok(()) => progress.succeeded(),
                Err(why) => progress.failed(&why),
            }
        }
    }

    /// Runs it with an end after each of these counts of steps; `true`: of the whole machine.
    fn through(&mut self, ends: &[(usize, bool)]) {
        let mut next = Progress::default();
        let (mut is_booting, mut boots) = (false, 0);
        let mut ends = ends.iter();
        loop {
            let end = ends.next();
            self.left = end.map_or(usize::MAX, |(after, _)| *after);
            let finder = match (self.drive(next), end) {
                (Ok(()), _) if self.on_disk.awaits_start() => {
                    // Whoever starts the machine starts edgecore, and a supervisor looks how that is.
                    self.start();
                    is_booting = false;
                    Finder::Supervisor
                }
                (Ok(()), _) => return self.check(),
                (Err(CutOff), Some((_, true))) => {
                    self.runs = None;
                    boots += 1;
                    is_booting = true;
                    Finder::Boot
                }
                // Whoever was to make the machine ready is asked again: edgecore does not run.
                (Err(CutOff), _) if is_booting && self.runs.is_none() => Finder::Boot,
                (Err(CutOff), _) => {
                    is_booting = false;
                    Finder::Supervisor
                }
            };
            let mut found = self.on_disk.clone();
            found.found_by(finder, &format!("boot {boots}"));
            next = found;
        }
    }

    fn check(&mut self) {
        let progress = &self.on_disk;
        assert!(progress.is_done(), "{self:?}");
        // Nobody has the time for it: edgecore starts, whichever it is, and sets aside by itself what it cannot read.
        let gave_up = progress.tries > TRIES_MAX;
        match progress.outcome {
            Some(Outcome::Confirmed) => assert!(self.program == Version::New && self.was_healthy, "{self:?}"),
            Some(Outcome::RolledBack | Outcome::Refused) => {
                assert!(self.program == Version::Old && progress.cause.is_some(), "{self:?}");
                assert!(gave_up || self.store != StoreState::Spoilt, "{self:?}");
            }
            Some(Outcome::Failed) if gave_up => {}
            other => panic!("{other:?}: {self:?}"),
        }
        if progress.is_booting {
            self.start();
        }
        assert!(gave_up || self.is_healthy(), "{self:?}");
    }
}

const FAULTS: [Fault; 12] = [
    Fault::None,
    Fault::NeverHealthy,
    Fault::SpoilsStore,
    Fault::PoisonsStore,
    Fault::NoDisk(Phase::PreCheck),
    Fault::NoDisk(Phase::BackUp),
    Fault::NoDisk(Phase::Stop),
    Fault::NoDisk(Phase::BackUpStore),
    Fault::NoDisk(Phase::Swap),
    Fault::NoDisk(Phase::Start),
    Fault::NoDisk(Phase::Health),
    Fault::NoDisk(Phase::Confirm),
];

/// More than the longest run has.
const STEPS: usize = 64;

#[test]
fn without_a_fault_the_new_program_is_confirmed_and_with_one_the_old_one_is_back() {
    for fault in FAULTS {
        let mut machine = Machine::new(fault);
        machine.through(&[]);
        let wanted = match fault {
            Fault::None | Fault::NoDisk(Phase::Confirm) => Outcome::Confirmed,
            Fault::NoDisk(Phase::PreCheck | Phase::BackUp) => Outcome::Refused,
            _ => Outcome::RolledBack,
        };
        assert_eq!(machine.on_disk.outcome, Some(wanted), "{fault:?}");
        let named = machine.on_disk.cause.unwrap_or_default();
        let phase = match fault {
            Fault::None => "",
            Fault::NoDisk(phase) => &format!("{phase:?}: no space"),
            _ => "Health: ",
        };
        assert!(named.starts_with(phase), "{fault:?}: {named}");
    }
}

#[test]
fn an_end_at_any_instant_and_another_while_it_is_taken_up_leave_the_old_or_the_new_version() {
    let mut ends = 0;
    for fault in FAULTS {
        for first in 0..STEPS {
            for whole in [true, false] {
                Machine::new(fault).through(&[(first, whole)]);
                for second in 0..STEPS {
                    for again in [true, false] {
                        Machine::new(fault).through(&[(first, whole), (second, again)]);
                        ends += 1;
                    }
                }
            }
        }
    }
    assert_eq!(ends, FAULTS.len() * STEPS * STEPS * 4);
}

#[test]
fn a_power_cut_is_the_cause_that_is_named() {
    for (phase, word) in [(Phase::Stop, "Stop"), (Phase::Swap, "Swap"), (Phase::Health, "Health")] {
        let mut progress = Progress { phase, ..Progress::default() };
        progress.found_by(Finder::Boot, "1");
        let cause = progress.cause.clone().unwrap();
        assert!(cause.starts_with(word) && cause.contains("power cut"), "{cause}");
        assert_eq!(progress.phase, Phase::RestorePrograms);
    }
    let mut progress = Progress { phase: Phase::Confirm, ..Progress::default() };
    progress.found_by(Finder::Boot, "1");
    assert_eq!((progress.phase, progress.cause), (Phase::Confirm, None), "it was healthy");
}

#[test]
fn a_supervisor_that_is_ended_again_and_again_goes_back() {
    let mut progress = Progress { phase: Phase::Health, ..Progress::default() };
    for _ in 0..RESUMES_MAX {
        progress.found_by(Finder::Supervisor, "1");
        assert_eq!(progress.phase, Phase::Health);
    }
    progress.found_by(Finder::Supervisor, "1");
    assert_eq!(progress.phase, Phase::RollBack);
}

#[test]
fn what_takes_longer_than_a_start_may_is_not_begun_for_ever() {
    for (phase, wanted) in [
        (Phase::Confirm, Outcome::Confirmed),
        (Phase::RestorePrograms, Outcome::Failed),
        (Phase::RestoreStore, Outcome::RolledBack),
    ] {
        let mut progress = Progress { phase, may_have_run: true, ..Progress::default() };
        for _ in 0..TRIES_MAX {
            progress.found_by(Finder::Boot, "1");
            assert_eq!(progress.phase, phase);
        }
        // A machine that is started anew has all its tries again.
        let mut other = progress.clone();
        other.found_by(Finder::Boot, "2");
        assert_eq!(other.phase, phase);
        progress.found_by(Finder::Boot, "1");
        assert_eq!((progress.phase, progress.outcome), (Phase::Done, Some(wanted)), "{phase:?}");
        assert!(progress.cause.is_some_and(|cause| cause.contains("3 times")), "{phase:?}");
    }
}

#[test]
fn a_store_that_nobody_else_has_had_does_not_go_back() {
    let mut progress = Progress::default();
    for wanted in [Phase::BackUp, Phase::Stop, Phase::BackUpStore, Phase::Swap] {
        progress.succeeded();
        assert_eq!((progress.phase, progress.may_have_run), (wanted, false));
    }
    let mut back = progress.clone();
    back.failed("no room");
    for _ in [Phase::RollBack, Phase::RestorePrograms, Phase::RestoreStore, Phase::Restart] {
        back.succeeded();
    }
    assert_eq!(back.phase, Phase::CheckRestarted);
    back.failed("it does not answer");
    assert_eq!((back.must_restore_store, back.outcome), (false, Some(Outcome::Failed)));
    progress.succeeded();
    assert!(progress.may_have_run);
}

#[test]
fn after_a_power_cut_it_is_looked_how_the_old_one_is_where_the_new_one_had_the_store() {
    let mut progress = Progress { phase: Phase::Health, may_have_run: true, ..Progress::default() };
    progress.found_by(Finder::Boot, "1");
    progress.succeeded();
    progress.succeeded();
    assert!(progress.awaits_start() && !progress.is_done());
    let mut unwatched = progress.clone();
    unwatched.unwatched();
    assert_eq!((unwatched.phase, unwatched.outcome), (Phase::Done, Some(Outcome::RolledBack)));
    // Started again before anybody has looked.
    progress.found_by(Finder::Boot, "1");
    assert!(progress.awaits_start());
    progress.found_by(Finder::Supervisor, "1");
    assert!(!progress.awaits_start());
    progress.failed("it ends again and again");
    assert!(progress.must_restore_store && progress.phase == Phase::RollBack);
}

#[test]
fn a_program_that_cannot_go_back_is_a_failure_whatever_comes_after() {
    let mut progress = Progress { phase: Phase::RestorePrograms, ..Progress::default() };
    progress.failed("the copy is torn");
    assert_eq!((progress.phase, progress.is_done()), (Phase::Restart, false));
    progress.succeeded();
    progress.succeeded();
    assert_eq!((progress.phase, progress.outcome), (Phase::Done, Some(Outcome::Failed)));
}

proptest! {
    #[test]
    fn however_often_it_is_ended_it_comes_to_an_end(
        fault in 0..FAULTS.len(),
        ends in proptest::collection::vec((0..STEPS, any::<bool>()), 0..8),
    ) {
        Machine::new(FAULTS[fault]).through(&ends);
    }
}
