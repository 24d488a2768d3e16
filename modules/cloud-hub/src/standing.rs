//! Who stands before the hub: bounds per node's name and per address, whichever way they came. Pure.
//!
//! A name is what a certificate says. A third connection that has said nothing takes the place of the first: whoever holds
//! the same certificate cannot keep a node out by saying nothing, and silent ones cost no more than two.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use beehive::link::door::origin;

/// 2: connections of one name that have not said hello.
const SILENT_EACH: usize = 2;
/// 2: connections of one name whose hello is being answered.
const ASKING_EACH: usize = 2;
/// 3: links of one name: the one that is, and two that come to their end.
const LINKS_EACH: usize = 3;
/// 1024: connections in all that have not said hello.
const SILENT_MAX: usize = 1024;
/// 256 of them from one address.
const SILENT_OF_ADDRESS: usize = 256;
/// 1 s: what is asked to wait that has too many links already. One ends within 2 s.
const WAIT: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Silent,
    Asking,
    Linked,
}

#[derive(Debug)]
struct Guest {
    name: String,
    address: Option<IpAddr>,
    stage: Stage,
}

/// All connections of the hub, from the moment that it took them until they are closed.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    last: u64,
    here: BTreeMap<u64, Guest>,
}

impl Standing {
    /// Another one has come. Answers its number, and whose place it takes.
    pub(crate) fn enter(&mut self, name: &str, address: Option<IpAddr>) -> (u64, Option<u64>) {
        let address = address.map(origin);
        let leaves = self.full(name, address);
        if let Some(id) = leaves {
            self.here.remove(&id);
        }
        self.last += 1;
        self.here.insert(self.last, Guest { name: name.to_owned(), address, stage: Stage::Silent });
        (self.last, leaves)
    }

    /// The oldest silent one of a bound that is reached.
    fn full(&self, name: &str, address: Option<IpAddr>) -> Option<u64> {
        let silent = || self.here.iter().filter(|(_, guest)| guest.stage == Stage::Silent);
        let of_name = || silent().filter(|(_, guest)| guest.name == name);
        if of_name().count() >= SILENT_EACH {
            return of_name().next().map(|(id, _)| *id);
        }
        let of = |address: Option<IpAddr>| silent().filter(move |(_, guest)| guest.address == address);
        if address.is_some() && of(address).count() >= SILENT_OF_ADDRESS {
            return of(address).next().map(|(id, _)| *id);
        }
        if silent().count() < SILENT_MAX {
            return None;
        }
        let mut counts = BTreeMap::<Option<IpAddr>, usize>::new();
        silent().for_each(|(_, guest)| *counts.entry(guest.address).or_default() += 1);
        let (most, _) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        of(most).next().map(|(id, _)| *id)
    }

    /// It has said hello.
    ///
    /// # Errors
    /// How long it has to wait: others of its name are being answered or end.
    pub(crate) fn asks(&mut self, id: u64) -> Result<(), Duration> {
        let Some(guest) = self.here.get(&id) else { return Err(WAIT) };
        let count = |stage| {
            self.here.values().filter(|other| other.stage == stage && other.name == guest.name).count()
        };
        if count(Stage::Asking) >= ASKING_EACH || count(Stage::Linked) >= LINKS_EACH {
            return Err(WAIT);
        }
        self.becomes(id, Stage::Asking);
        Ok(())
    }

    /// It is let in.
    pub(crate) fn links(&mut self, id: u64) {
        self.becomes(id, Stage::Linked);
    }

    fn becomes(&mut self, id: u64, stage: Stage) {
        if let Some(guest) = self.here.get_mut(&id) {
            guest.stage = stage;
        }
    }

    /// It is closed.
    pub(crate) fn leaves(&mut self, id: u64) {
        self.here.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> Option<IpAddr> {
        Some([10, 0, 0, last].into())
    }

    #[test]
    fn a_third_that_says_nothing_takes_the_place_of_the_first_of_its_name() {
        let mut standing = Standing::default();
        assert_eq!(standing.enter("a", ip(1)), (1, None));
        assert_eq!(standing.enter("b", ip(1)), (2, None));
        assert_eq!(standing.enter("a", ip(2)), (3, None));
        assert_eq!(standing.enter("a", ip(3)), (4, Some(1)));
        // Who has said hello is not shown out, and makes room.
        standing.asks(3).unwrap();
        assert_eq!(standing.enter("a", ip(1)), (5, None));
        assert_eq!(standing.enter("a", ip(1)), (6, Some(4)));
    }

    #[test]
    fn hellos_and_links_of_one_name_are_bounded() {
        let mut standing = Standing::default();
        let say = |standing: &mut Standing, name| {
            let (id, _) = standing.enter(name, ip(1));
            standing.asks(id).map(|()| id)
        };
        let (first, second) = (say(&mut standing, "a").unwrap(), say(&mut standing, "a").unwrap());
        assert_eq!(say(&mut standing, "a"), Err(WAIT));
        assert!(say(&mut standing, "b").is_ok());
        for id in [first, second] {
            standing.links(id);
        }
        let third = say(&mut standing, "a").unwrap();
        standing.links(third);
        assert_eq!(say(&mut standing, "a"), Err(WAIT));
        standing.leaves(first);
        assert!(say(&mut standing, "a").is_ok());
    }

    #[test]
    fn an_address_with_many_names_has_its_share_and_the_greediest_gives_way() {
        let mut standing = Standing::default();
        for number in 0..SILENT_OF_ADDRESS {
            assert_eq!(standing.enter(&format!("a{number}"), ip(1)).1, None);
        }
        assert_eq!(standing.enter("more", ip(1)).1, Some(1));
        assert_eq!(standing.enter("b", ip(2)).1, None);
        for number in 0..SILENT_MAX - SILENT_OF_ADDRESS - 1 {
            let address = u8::try_from(3 + number / 200).unwrap();
            assert_eq!(standing.enter(&format!("c{number}"), ip(address)).1, None);
        }
        assert_eq!(standing.enter("honest", ip(100)).1, Some(2));
    }
}
