//! What clients subscribe to: every filter once, with whom it is for and whose it is. Pure.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::identity::{self, Owner};
use crate::quotas::Usage;
use crate::trie::Trie;

pub(crate) struct Filter {
    pub(crate) number: usize,
    /// Whether the router knows it.
    pub(crate) routed: bool,
    /// Clients and the QoS that they were granted.
    pub(crate) members: BTreeMap<Rc<str>, u8>,
    /// How many of the members each owner has.
    owners: Usage,
}

/// All filters that somebody subscribes to.
#[derive(Default)]
pub(crate) struct Filters {
    numbers: BTreeMap<String, usize>,
    all: BTreeMap<usize, Filter>,
    by_level: Trie<usize>,
    /// How many filters each owner has a member in.
    owned: Usage,
    last: usize,
}

impl Filters {
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.numbers.contains_key(name)
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut Filter> {
        self.numbers.get(name).and_then(|number| self.all.get_mut(number))
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.numbers.keys().cloned().collect()
    }

    pub(crate) fn routed(&self) -> usize {
        self.all.values().filter(|filter| filter.routed).count()
    }

    /// The router is gone, and knows none any more.
    pub(crate) fn unroute(&mut self) {
        self.all.values_mut().for_each(|filter| filter.routed = false);
    }

    /// How many filters `owner` would have with this one, too.
    pub(crate) fn owned_with(&self, owner: &Owner, name: &str) -> usize {
        let known = self.numbers.get(name).and_then(|number| self.all.get(number));
        let has_it = known.is_some_and(|filter| filter.owners.of(owner) > 0);
        self.owned.of(owner) + usize::from(!has_it)
    }

    /// A client subscribes. Says whether the filter is a new one.
    pub(crate) fn join(&mut self, name: &str, client: &Rc<str>, qos: u8) -> bool {
        let is_new = !self.contains(name);
        if is_new {
            self.last += 1;
            let (number, members) = (self.last, BTreeMap::new());
            let filter = Filter { number, routed: false, members, owners: Usage::default() };
            self.numbers.insert(name.to_owned(), number);
            self.all.insert(number, filter);
            self.by_level.insert(name, number);
        }
        let filter = self.numbers.get(name).and_then(|number| self.all.get_mut(number));
        if let Some(filter) = filter
            && filter.members.insert(Rc::clone(client), qos).is_none()
        {
            let owner = identity::owner(client);
            if filter.owners.add(&owner, 1) == 1 {
                self.owned.add(&owner, 1);
            }
        }
        is_new
    }

    /// A client leaves. Returns the filter if nobody is left in it; then it is gone.
    pub(crate) fn leave(&mut self, name: &str, client: &Rc<str>) -> Option<Filter> {
        let number = *self.numbers.get(name)?;
        let filter = self.all.get_mut(&number)?;
        if filter.members.remove(client).is_some() {
            let owner = identity::owner(client);
            if filter.owners.take(&owner, 1) == 0 {
                self.owned.take(&owner, 1);
            }
        }
        if !filter.members.is_empty() {
            return None;
        }
        self.numbers.remove(name);
        self.by_level.remove(name);
        self.all.remove(&number)
    }

    /// The filters that take a topic, and what it cost to find them: places looked at and members.
    pub(crate) fn matching(&self, router_form: &str) -> (Vec<&Filter>, usize) {
        let mut found = Vec::new();
        let looked_at = self.by_level.find(router_form, |number| found.extend(self.all.get(number)));
        let members: usize = found.iter().map(|filter| filter.members.len()).sum();
        (found, looked_at + members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_counted_once_for_each_owner_as_long_as_one_of_its_clients_is_in_it() {
        let mut filters = Filters::default();
        let (one, two, user): (Rc<str>, Rc<str>, Rc<str>) = ("1".into(), "2".into(), "user=plc;1".into());
        assert!(
            filters.join("u/a", &one, 0) && !filters.join("u/a", &two, 1) && !filters.join("u/a", &user, 1)
        );
        assert!(!filters.join("u/a", &one, 1) && filters.join("u/+", &user, 0));
        let plc = Owner::User("plc".into());
        assert_eq!((filters.owned.of(&Owner::Anonymous), filters.owned.of(&plc)), (1, 2));
        assert_eq!((filters.owned_with(&plc, "u/a"), filters.owned_with(&Owner::Anonymous, "u/+")), (2, 2));
        let (found, cost) = filters.matching("u/a");
        assert_eq!((found.len(), cost > 4), (2, true));
        assert!(filters.leave("u/a", &one).is_none() && filters.leave("u/a", &one).is_none());
        assert_eq!(filters.owned.of(&Owner::Anonymous), 1);
        assert!(filters.leave("u/a", &user).is_none() && filters.leave("u/a", &two).is_some());
        assert!(filters.leave("u/a", &two).is_none() && filters.leave("u/+", &user).is_some());
        assert_eq!((filters.len(), filters.owned.of(&Owner::Anonymous), filters.owned.of(&plc)), (0, 0, 0));
    }
}
