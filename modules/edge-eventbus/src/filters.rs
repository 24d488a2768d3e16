//! What clients subscribe to: every filter once, with whom it is for and whose it is. Pure.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::identity::{self, Owner};
use crate::quotas::Usage;
use crate::session::Subscription;
use crate::trie::Trie;

pub(crate) struct Filter {
    pub(crate) number: usize,
    /// Whether the router knows it.
    pub(crate) routed: bool,
    /// Clients and what they were granted.
    pub(crate) members: BTreeMap<Rc<str>, Subscription>,
    /// Groups, of whose members each message goes to one.
    pub(crate) groups: BTreeMap<Box<str>, Group>,
    /// How many of the members each owner has.
    owners: Usage,
}

impl Filter {
    /// How many members it has, those of groups included.
    fn weight(&self) -> usize {
        self.members.len() + self.groups.values().map(|group| group.members.len()).sum::<usize>()
    }
}

/// The members of a shared subscription.
#[derive(Default)]
pub(crate) struct Group {
    pub(crate) members: BTreeMap<Rc<str>, Subscription>,
    turn: Cell<usize>,
}

impl Group {
    /// Whose turn it is among those for whom `rank` is lowest; `None` of it is left out.
    pub(crate) fn next<R: Ord>(
        &self,
        rank: impl Fn(&Rc<str>, &Subscription) -> Option<R>,
    ) -> Option<(&Rc<str>, &Subscription)> {
        let ranked =
            self.members.iter().filter_map(|(client, member)| Some((rank(client, member)?, client, member)));
        let mut ranked: Vec<_> = ranked.collect();
        let best = ranked.iter().map(|(rank, _, _)| rank).min()?;
        let count = ranked.iter().filter(|(rank, _, _)| rank == best).count();
        ranked.sort_by(|(one, _, _), (other, _, _)| one.cmp(other));
        let turn = self.turn.replace(self.turn.get().wrapping_add(1));
        ranked.get(turn % count.max(1)).map(|(_, client, member)| (*client, *member))
    }
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

    /// A client subscribes, by itself or in a group. Says whether the filter is a new one.
    pub(crate) fn join(
        &mut self,
        name: &str,
        group: Option<&str>,
        client: &Rc<str>,
        subscription: Subscription,
    ) -> bool {
        let is_new = !self.contains(name);
        if is_new {
            self.last += 1;
            let (members, groups, owners) = (BTreeMap::new(), BTreeMap::new(), Usage::default());
            let filter = Filter { number: self.last, routed: false, members, groups, owners };
            self.numbers.insert(name.to_owned(), self.last);
            self.all.insert(self.last, filter);
            self.by_level.insert(name, self.last);
        }
        let Some(filter) = self.numbers.get(name).and_then(|number| self.all.get_mut(number)) else {
            return is_new;
        };
        let members = match group {
            Some(group) => &mut filter.groups.entry(group.into()).or_default().members,
            None => &mut filter.members,
        };
        if members.insert(Rc::clone(client), subscription).is_none() {
            let owner = identity::owner(client);
            if filter.owners.add(&owner, 1) == 1 {
                self.owned.add(&owner, 1);
            }
        }
        is_new
    }

    /// A client leaves. Returns the filter if nobody is left in it; then it is gone.
    pub(crate) fn leave(&mut self, name: &str, group: Option<&str>, client: &Rc<str>) -> Option<Filter> {
        let number = *self.numbers.get(name)?;
        let filter = self.all.get_mut(&number)?;
        let left = match group {
            Some(group) => {
                let members = &mut filter.groups.get_mut(group)?.members;
                let left = members.remove(client);
                if members.is_empty() {
                    filter.groups.remove(group);
                }
                left
            }
            None => filter.members.remove(client),
        };
        if left.is_some() {
            let owner = identity::owner(client);
            if filter.owners.take(&owner, 1) == 0 {
                self.owned.take(&owner, 1);
            }
        }
        if !filter.members.is_empty() || !filter.groups.is_empty() {
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
        let members: usize = found.iter().map(|filter| filter.weight()).sum();
        (found, looked_at + members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(qos: u8) -> Subscription {
        Subscription { qos, ..Subscription::default() }
    }

    #[test]
    fn the_members_of_a_group_take_turns_and_those_of_the_lowest_rank_only() {
        let mut filters = Filters::default();
        let clients: Vec<Rc<str>> = ["a", "b", "c"].map(Rc::from).to_vec();
        for client in &clients {
            assert_eq!(filters.join("u/t", Some("g"), client, at(1)), &**client == "a");
        }
        filters.join("u/t", Some("h"), &clients[0], at(0));
        let (found, _) = filters.matching("u/t");
        let group = &found[0].groups["g"];
        let turns = |rank: fn(&str) -> Option<u8>| {
            let turn = |_| group.next(|client, _| rank(client)).map(|(client, _)| client.to_string());
            (0..4).filter_map(turn).collect::<Vec<String>>()
        };
        assert_eq!(turns(|_| Some(0)), ["a", "b", "c", "a"]);
        assert_eq!(turns(|client| (client != "b").then_some(u8::from(client == "a"))), ["c"; 4]);
        assert_eq!(turns(|_| None), [""; 0]);
        for client in &clients {
            assert!(filters.leave("u/t", Some("g"), client).is_none());
        }
        assert!(filters.leave("u/t", Some("h"), &clients[0]).is_some());
        assert_eq!((filters.len(), filters.owned.of(&Owner::Anonymous)), (0, 0));
    }

    #[test]
    fn a_filter_is_counted_once_for_each_owner_as_long_as_one_of_its_clients_is_in_it() {
        let mut filters = Filters::default();
        let (one, two, user): (Rc<str>, Rc<str>, Rc<str>) = ("1".into(), "2".into(), "user=plc;1".into());
        assert!(
            filters.join("u/a", None, &one, at(0))
                && !filters.join("u/a", None, &two, at(1))
                && !filters.join("u/a", None, &user, at(1))
        );
        assert!(!filters.join("u/a", None, &one, at(1)) && filters.join("u/+", None, &user, at(0)));
        let plc = Owner::User("plc".into());
        assert_eq!((filters.owned.of(&Owner::Anonymous), filters.owned.of(&plc)), (1, 2));
        assert_eq!((filters.owned_with(&plc, "u/a"), filters.owned_with(&Owner::Anonymous, "u/+")), (2, 2));
        let (found, cost) = filters.matching("u/a");
        assert_eq!((found.len(), cost > 4), (2, true));
        assert!(filters.leave("u/a", None, &one).is_none() && filters.leave("u/a", None, &one).is_none());
        assert_eq!(filters.owned.of(&Owner::Anonymous), 1);
        assert!(filters.leave("u/a", None, &user).is_none() && filters.leave("u/a", None, &two).is_some());
        assert!(filters.leave("u/a", None, &two).is_none() && filters.leave("u/+", None, &user).is_some());
        assert_eq!((filters.len(), filters.owned.of(&Owner::Anonymous), filters.owned.of(&plc)), (0, 0, 0));
    }
}
