//! How the bounded tables are shared: sessions, filters, retained messages, and what waits for the cloud. Pure.

use std::collections::BTreeMap;

use crate::identity::Owner;

/// Whose entries may be how many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Quotas {
    /// Whether clients log in: where none does, the anonymous ones are all that there are.
    pub(crate) users: bool,
}

impl Quotas {
    pub(crate) fn of(config: &config::edge::EventBus) -> Self {
        let by_password = !config.password_file.as_os_str().is_empty();
        let by_certificate = config.tls.enable && !config.tls.client_ca_file.as_os_str().is_empty();
        Quotas { users: by_password || by_certificate }
    }

    /// How much of `bound` an owner may have: all anonymous clients together half, where there are users; a user three
    /// quarters, as one listener has of the connections; the node itself all.
    pub(crate) fn quota(self, owner: &Owner, bound: usize) -> usize {
        match owner {
            Owner::Anonymous if self.users => bound / 2,
            Owner::User(_) => bound - bound / 4,
            Owner::Anonymous | Owner::Node => bound,
        }
    }
}

/// How much each owner has.
#[derive(Debug, Default)]
pub(crate) struct Usage(BTreeMap<Owner, usize>);

impl Usage {
    pub(crate) fn of(&self, owner: &Owner) -> usize {
        self.0.get(owner).copied().unwrap_or_default()
    }

    /// Returns what it is then.
    pub(crate) fn add(&mut self, owner: &Owner, more: usize) -> usize {
        let held = self.0.entry(owner.clone()).or_default();
        *held += more;
        *held
    }

    /// Returns what it is then.
    pub(crate) fn take(&mut self, owner: &Owner, less: usize) -> usize {
        let Some(held) = self.0.get_mut(owner) else { return 0 };
        *held = held.saturating_sub(less);
        let left = *held;
        if left == 0 {
            self.0.remove(owner);
        }
        left
    }
}

/// A session in the table of all.
#[derive(Debug, Clone)]
pub(crate) struct SessionEntry<C> {
    pub(crate) client: C,
    pub(crate) owner: Owner,
    /// `None` while its client is there; else the older, the smaller.
    pub(crate) left: Option<u64>,
}

/// What becomes of a new session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SessionRoom<C> {
    Free,
    /// This one is forgotten.
    Evict(C),
    /// There is none: all the others are of clients that are there, or of pending_connects.
    Refused,
}

/// Whether there is room for a new session of `owner` among `bound`. Who has all of his share gives of his own, the one
/// first that was away longest; else an anonymous client's makes room, and only then one's own. Nobody's makes room for
/// another user's or an anonymous client's.
pub(crate) fn room<C>(
    quotas: Quotas,
    bound: usize,
    entries: Vec<SessionEntry<C>>,
    owner: &Owner,
) -> SessionRoom<C> {
    let own = entries.iter().filter(|entry| entry.owner == *owner).count();
    let over = own >= quotas.quota(owner, bound);
    if !over && entries.len() < bound {
        return SessionRoom::Free;
    }
    let may = |entry: &SessionEntry<C>| entry.owner == *owner || (!over && entry.owner == Owner::Anonymous);
    let away = entries.into_iter().filter(|entry| may(entry));
    let away = away.filter_map(|entry| Some((entry.owner != Owner::Anonymous, entry.left?, entry.client)));
    away.min_by_key(|(named, left, _)| (*named, *left))
        .map_or(SessionRoom::Refused, |(_, _, client)| SessionRoom::Evict(client))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(client: &'static str, owner: &Owner, left: Option<u64>) -> SessionEntry<&'static str> {
        SessionEntry { client, owner: owner.clone(), left }
    }

    #[test]
    fn anonymous_sessions_go_first_and_nobodys_goes_for_a_stranger() {
        let (nobody, a, b) = (Owner::Anonymous, Owner::User("a".into()), Owner::User("b".into()));
        let quotas = Quotas { users: true };
        let all = vec![
            entry("a1", &a, Some(1)),
            entry("a2", &a, Some(2)),
            entry("n1", &nobody, Some(3)),
            entry("n2", &nobody, None),
        ];
        // Of four, two are the anonymous clients' and three a user's.
        assert_eq!(room(quotas, 4, all.clone(), &nobody), SessionRoom::Evict("n1"));
        assert_eq!(room(quotas, 4, all.clone(), &a), SessionRoom::Evict("n1"));
        assert_eq!(room(quotas, 4, all.clone(), &b), SessionRoom::Evict("n1"));
        assert_eq!(room(quotas, 8, all.clone(), &nobody), SessionRoom::Free);
        let users = vec![entry("a1", &a, Some(2)), entry("a2", &a, Some(1)), entry("a3", &a, None)];
        assert_eq!(room(quotas, 3, users.clone(), &nobody), SessionRoom::Refused);
        assert_eq!(room(quotas, 3, users.clone(), &b), SessionRoom::Refused);
        assert_eq!(room(quotas, 4, users.clone(), &b), SessionRoom::Free);
        assert_eq!(room(quotas, 4, users, &a), SessionRoom::Evict("a2"));
    }

    #[test]
    fn without_users_anonymous_clients_have_everything() {
        let nobody = Owner::Anonymous;
        assert_eq!(Quotas { users: false }.quota(&nobody, 100), 100);
        assert_eq!(Quotas { users: true }.quota(&nobody, 100), 50);
        assert_eq!(Quotas { users: true }.quota(&Owner::User("a".into()), 100), 75);
        assert_eq!(Quotas { users: true }.quota(&Owner::Node, 100), 100);
        let mut config = config::edge::EventBus::default();
        assert!(!Quotas::of(&config).users);
        config.password_file = "/etc/passwords".into();
        assert!(Quotas::of(&config).users);
    }

    #[test]
    fn what_is_held_is_counted_by_owner() {
        let mut held = Usage::default();
        assert_eq!((held.add(&Owner::Node, 3), held.add(&Owner::Anonymous, 1)), (3, 1));
        assert_eq!((held.take(&Owner::Node, 1), held.of(&Owner::Node)), (2, 2));
        assert_eq!(
            (held.take(&Owner::Anonymous, 9), held.take(&Owner::Anonymous, 1), held.0.len()),
            (0, 0, 1)
        );
    }
}
