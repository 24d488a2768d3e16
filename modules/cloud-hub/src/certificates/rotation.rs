//! When a CA gives way to its successor, and what is written then. Pure.

use std::time::{Duration, SystemTime};

use pki::{Authority, AuthorityError, Validity, validity_of};

use super::record::{AuthorityRecord, NextAuthority, PreviousAuthority};

/// How long CAs live, and are trusted beside each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthorityLives {
    /// A CA's own life.
    pub own: Duration,
    /// How long a successor is trusted before it signs.
    pub lead: Duration,
    /// How long a CA is trusted after its successor signs: as long as a certificate that it has signed may be renewed.
    pub trail: Duration,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RotationStep {
    /// Nothing.
    Nothing,
    /// A successor is to be made.
    Prepare,
    /// The successor is to sign.
    Switch,
    /// The predecessor is trusted no longer.
    Forget,
}

impl RotationStep {
    /// What an operator reads of it; `None`: nothing has happened.
    pub(crate) fn words(self) -> Option<&'static str> {
        match self {
            RotationStep::Nothing => None,
            RotationStep::Prepare => Some("a successor of the CA is made; both are trusted from now on"),
            RotationStep::Switch => Some("the successor of the CA signs from now on"),
            RotationStep::Forget => Some("the predecessor of the CA is trusted no longer"),
        }
    }
}

/// 1 h: a successor that signs that much later than one that was made now has been made by a clock that was ahead, or by another setting.
const ODD: Duration = Duration::from_secs(3600);

/// What is to be done at `now`. One CA after the other: while the predecessor of the one that signs is trusted, no successor is made,
/// so that there are two at a time. A successor that would sign too late gives way to another one.
pub(crate) fn next_step(
    record: &AuthorityRecord,
    signing: Validity,
    lives: &AuthorityLives,
    now: SystemTime,
) -> RotationStep {
    match (&record.next, &record.previous) {
        (Some(next), _) if now >= next.signs_at => RotationStep::Switch,
        (Some(next), _) if next.signs_at > now + lives.lead + ODD => RotationStep::Prepare,
        (Some(_), _) => RotationStep::Nothing,
        (None, Some(previous)) if now >= previous.until => RotationStep::Forget,
        (None, Some(_)) => RotationStep::Nothing,
        (None, None) if record.is_asked_for || now >= prepare_at(signing, lives) => RotationStep::Prepare,
        (None, None) => RotationStep::Nothing,
    }
}

/// Early enough that the CA is good until its last certificate may be renewed no more, but not in the first half of its life: a CA
/// that lives too shortly for its settings would else be replaced all the time.
fn prepare_at(signing: Validity, lives: &AuthorityLives) -> SystemTime {
    let early = signing.not_after.checked_sub(lives.lead + lives.trail).unwrap_or(SystemTime::UNIX_EPOCH);
    early.max(signing.not_before + signing.life() / 2)
}

/// The record after `step` was taken at `now`. `serial` makes a number that no certificate has.
///
/// # Errors
/// When the machine gives no randomness, or the CA cannot sign.
pub(crate) fn taken(
    record: &AuthorityRecord,
    step: RotationStep,
    lives: &AuthorityLives,
    now: SystemTime,
    serial: impl Fn() -> [u8; 16],
) -> Result<AuthorityRecord, AuthorityError> {
    let mut after = record.clone();
    match step {
        RotationStep::Nothing => {}
        RotationStep::Prepare => {
            let elder = Authority::from_pem(&record.certificate, &record.key)?;
            let next = Authority::create_for(now, lives.own, serial())?;
            after.is_asked_for = false;
            after.next = Some(NextAuthority {
                certificate: next.cert_pem().to_owned(),
                key: next.key_pem().to_owned(),
                signs_at: now + lives.lead,
            });
            // One that has ended has nobody left who trusts it.
            after.cross = elder.cross_sign(&next, now, serial()).ok();
        }
        RotationStep::Switch => {
            let Some(next) = after.next.take() else { return Ok(after) };
            after.previous = Some(PreviousAuthority {
                certificate: std::mem::replace(&mut after.certificate, next.certificate),
                until: now + lives.trail,
            });
            after.key = next.key;
        }
        RotationStep::Forget => (after.previous, after.cross) = (None, None),
    }
    Ok(after)
}

/// When the CA that signs begins and ends.
///
/// # Errors
/// When it is no certificate.
pub(crate) fn signing_validity(record: &AuthorityRecord) -> Result<Validity, AuthorityError> {
    let signing = Authority::from_pem(&record.certificate, &record.key)?;
    validity_of(signing.cert_der())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    const DAY: Duration = Duration::from_secs(86_400);
    const LIVES: AuthorityLives = AuthorityLives {
        own: Duration::from_secs(1000 * 86_400),
        lead: DAY,
        trail: Duration::from_secs(3 * 86_400),
    };

    fn start() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000)
    }

    fn fresh() -> AuthorityRecord {
        let authority = Authority::create_for(start(), LIVES.own, [1; 16]).unwrap();
        AuthorityRecord::of(&authority)
    }

    fn step(record: &AuthorityRecord, now: SystemTime) -> RotationStep {
        next_step(record, signing_validity(record).unwrap(), &LIVES, now)
    }

    /// Takes a step, and answers the record after it.
    fn take(record: &AuthorityRecord, now: SystemTime) -> AuthorityRecord {
        let serial = Cell::new(2);
        let next = || {
            serial.set(serial.get() + 1);
            [serial.get(); 16]
        };
        taken(record, step(record, now), &LIVES, now, next).unwrap()
    }

    #[test]
    fn a_ca_is_replaced_ahead_of_its_end_in_three_steps_and_then_again() {
        let first = fresh();
        let end = signing_validity(&first).unwrap().not_after;
        assert_eq!(step(&first, end - 5 * DAY), RotationStep::Nothing);
        let prepare = end - 4 * DAY;
        assert_eq!(step(&first, prepare), RotationStep::Prepare);
        let prepared = take(&first, prepare);
        assert_eq!(prepared.certificate, first.certificate, "the elder signs still");
        assert_eq!(prepared.authorities().unwrap().trusted().len(), 2);
        assert_eq!(step(&prepared, prepare + DAY - DAY / 24), RotationStep::Nothing);
        let switched = take(&prepared, prepare + DAY);
        assert_ne!(switched.certificate, first.certificate);
        let both = switched.authorities().unwrap();
        assert_eq!(both.trusted().len(), 2);
        assert_eq!(step(&switched, prepare + 3 * DAY), RotationStep::Nothing);
        let forgotten = take(&switched, prepare + 4 * DAY);
        assert_eq!(forgotten.authorities().unwrap().trusted().len(), 1);
        assert_eq!(forgotten.cross, None);
        let again = signing_validity(&forgotten).unwrap().not_after - 4 * DAY;
        assert_eq!(step(&forgotten, again), RotationStep::Prepare);
    }

    #[test]
    fn it_is_replaced_when_somebody_asks_and_the_wish_is_fulfilled_once() {
        let asked = AuthorityRecord { is_asked_for: true, ..fresh() };
        assert_eq!(step(&asked, start()), RotationStep::Prepare);
        let prepared = take(&asked, start());
        assert!(!prepared.is_asked_for);
        let asked = AuthorityRecord { is_asked_for: true, ..prepared };
        assert_eq!(step(&asked, start()), RotationStep::Nothing, "one after the other");
    }

    #[test]
    fn a_successor_that_a_clock_made_which_was_ahead_gives_way_to_another_one() {
        let ahead = start() + 3000 * DAY;
        let prepared = take(&fresh(), ahead);
        assert!(prepared.next.is_some());
        assert_eq!(step(&prepared, start() + DAY), RotationStep::Prepare);
        let mended = take(&prepared, start() + DAY);
        assert_ne!(mended.next, prepared.next);
        assert_eq!(step(&mended, start() + DAY), RotationStep::Nothing);
        let switched = take(&mended, start() + 2 * DAY);
        assert!(signing_validity(&switched).unwrap().holds(start() + 2 * DAY));
    }

    #[test]
    fn one_that_lives_too_shortly_for_its_settings_is_not_replaced_all_the_time() {
        let short = Authority::create_for(start(), 2 * DAY, [1; 16]).unwrap();
        let record = AuthorityRecord::of(&short);
        assert_eq!(step(&record, start()), RotationStep::Nothing);
        assert_eq!(step(&record, start() + DAY), RotationStep::Prepare);
    }
}
