//! Who may be connected: strangers, who have shown no credential yet, and users. Pure.
//!
//! Strangers have places by address, which they lose to others: see [`AcceptLimiter`]. Users have a number of connections each, and
//! lose none; nobody has more than are still free, so that a dozen who take all that they may leave somebody new a place.

use std::collections::BTreeMap;
use std::net::IpAddr;

use beehive::Moment;
use beehive::link::accept_limiter::AcceptLimiter;

use crate::{Limits, TooMany};

/// What a newcomer finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum AdmissionOutcome {
    /// A place, and perhaps one that is closed for it.
    Admitted {
        /// Its number.
        id: u64,
        /// Whose place it has.
        instead_of: Option<u64>,
    },
    /// No place.
    Full,
}

/// All connections of a server.
pub(crate) struct Admission {
    strangers: AcceptLimiter,
    users: BTreeMap<String, usize>,
    /// Connections of users in all.
    identified: usize,
    /// Connections in all.
    open: usize,
    limits: Limits,
}

impl Admission {
    pub(crate) fn new(limits: &Limits) -> Self {
        Admission {
            strangers: AcceptLimiter::new(
                limits.strangers,
                limits.strangers_per_address,
                limits.yields_after,
            ),
            users: BTreeMap::new(),
            identified: 0,
            open: 0,
            limits: *limits,
        }
    }

    /// A connection of `address` has come.
    pub(crate) fn enter(&mut self, address: IpAddr, now: Moment) -> AdmissionOutcome {
        match self.strangers.acquire(address, now) {
            Some((id, instead_of)) => {
                self.open += 1;
                AdmissionOutcome::Admitted { id, instead_of }
            }
            None => AdmissionOutcome::Full,
        }
    }

    /// The connection has shown a user's credential.
    ///
    /// # Errors
    /// The user, or all of them, have too many; or the connection has been closed for a newer one. It stays a stranger then.
    pub(crate) fn identify(&mut self, id: u64, user: &str, is_privileged: bool) -> Result<(), TooMany> {
        let own = self.users.get(user).copied().unwrap_or_default();
        if !self.strangers.holds(id) || self.free(is_privileged) == 0 && own == 0 {
            return Err(TooMany::InAll);
        }
        if own >= self.most_of_one(is_privileged) {
            return Err(TooMany::OfOne);
        }
        self.strangers.release(id);
        self.users.insert(user.to_owned(), own + 1);
        self.identified += 1;
        Ok(())
    }

    /// Places of users that nobody has.
    fn free(&self, is_privileged: bool) -> usize {
        let Limits { users, reserved, .. } = self.limits;
        let places = if is_privileged { users + reserved } else { users };
        places.saturating_sub(self.identified)
    }

    /// How many one user may have, now that these are free.
    fn most_of_one(&self, is_privileged: bool) -> usize {
        let Limits { users, connections_per_user, .. } = self.limits;
        let free = self.free(is_privileged);
        match (free, is_privileged || connections_per_user >= users) {
            (0, _) => 0,
            // He is not to share.
            (_, true) => usize::MAX,
            (_, false) => connections_per_user.min(free),
        }
    }

    /// The connection has ended. `user` is who it was identified as.
    pub(crate) fn leave(&mut self, id: u64, user: Option<&str>) {
        self.open = self.open.saturating_sub(1);
        self.strangers.release(id);
        let Some(user) = user else { return };
        self.identified = self.identified.saturating_sub(1);
        match self.users.get_mut(user) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                self.users.remove(user);
            }
        }
    }

    /// Connections that have not ended, those that were told to included.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// Connections of users.
    pub(crate) fn identified(&self) -> usize {
        self.identified
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn admission(change: impl FnOnce(&mut Limits)) -> Admission {
        let mut limits = Limits { strangers: 4, strangers_per_address: 3, ..Limits::default() };
        change(&mut limits);
        Admission::new(&limits)
    }

    fn entered(admission: &mut Admission, address: IpAddr) -> Option<u64> {
        match admission.enter(address, Moment(Duration::from_secs(1))) {
            AdmissionOutcome::Admitted { id, .. } => Some(id),
            AdmissionOutcome::Full => None,
        }
    }

    #[test]
    fn idle_strangers_of_one_address_shut_nobody_out() {
        let mut admission = admission(|limits| limits.yields_after = Duration::from_secs(3));
        assert_eq!((0..9).filter_map(|_| entered(&mut admission, A)).count(), 3);
        assert!(entered(&mut admission, B).is_some());
        // All are taken, and the address with most gives one up.
        let AdmissionOutcome::Admitted { instead_of, .. } =
            admission.enter(B, Moment(Duration::from_secs(1)))
        else {
            panic!("kept out");
        };
        assert_eq!(instead_of, Some(1));
        assert_eq!(admission.identify(1, "late", false), Err(TooMany::InAll), "it was told to go");
        assert_eq!(admission.open(), 5, "and counts until it has gone");
    }

    #[test]
    fn a_user_is_no_stranger_any_more_and_has_a_number_of_connections() {
        let mut admission = admission(|limits| {
            (limits.users, limits.connections_per_user, limits.reserved) = (3, 2, 1);
        });
        let mut come = |user: &str, is_privileged: bool| {
            let id = entered(&mut admission, A).unwrap();
            let known = admission.identify(id, user, is_privileged).is_ok();
            if !known {
                admission.leave(id, None);
            }
            known.then_some(id)
        };
        let (first, _second) = (come("a", false).unwrap(), come("a", false).unwrap());
        assert_eq!(come("a", false), None);
        assert!(come("b", false).is_some());
        assert_eq!(come("c", false), None);
        assert!(come("admin", true).is_some() && come("admin", true).is_none());
        admission.leave(first, Some("a"));
        assert_eq!((admission.open(), admission.identified()), (3, 3));
        admission.leave(2, Some("a"));
        assert!(!admission.users.contains_key("a"));
    }

    #[test]
    fn a_dozen_greedy_users_leave_somebody_new_a_place() {
        let mut admission = admission(|limits| (limits.users, limits.connections_per_user) = (512, 64));
        let mut come = |user: &str| {
            let id = entered(&mut admission, A).unwrap();
            let known = admission.identify(id, user, false);
            if known.is_err() {
                admission.leave(id, None);
            }
            known
        };
        let mut held = Vec::new();
        // Seven have their 64, and each after them half of what is left.
        for greedy in 0..13 {
            let name = format!("greedy {greedy}");
            held.push((0..100).filter(|_| come(&name).is_ok()).count());
            assert_eq!(come(&name), Err(TooMany::OfOne));
        }
        assert_eq!(held, [64, 64, 64, 64, 64, 64, 64, 32, 16, 8, 4, 2, 1]);
        assert_eq!(come("new"), Ok(()));
        // Whoever is there may not take the last places.
        assert_eq!(come("greedy 0"), Err(TooMany::OfOne));
        assert_eq!(come("one too many"), Err(TooMany::InAll));
    }

    #[test]
    fn a_user_with_whom_nobody_shares_has_all_places() {
        let mut admission = admission(|limits| (limits.users, limits.connections_per_user) = (3, 3));
        for _ in 0..3 {
            let id = entered(&mut admission, A).unwrap();
            assert_eq!(admission.identify(id, "local", false), Ok(()));
        }
        let id = entered(&mut admission, A).unwrap();
        assert_eq!(admission.identify(id, "local", false), Err(TooMany::OfOne));
        assert_eq!(admission.identify(id, "other", false), Err(TooMany::InAll));
    }

    #[test]
    fn a_privileged_user_has_no_number_of_his_own() {
        let mut admission = admission(|limits| {
            (limits.users, limits.connections_per_user, limits.reserved) = (3, 1, 2);
        });
        let known: Vec<bool> = (0..6)
            .map(|_| {
                let id = entered(&mut admission, A).unwrap();
                let known = admission.identify(id, "apiserver", true).is_ok();
                if !known {
                    admission.leave(id, None);
                }
                known
            })
            .collect();
        assert_eq!(known, [true, true, true, true, true, false]);
    }
}
