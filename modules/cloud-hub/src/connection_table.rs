//! The hub's connections, and how many there may be: bounds per node's name and per address, over all transports. Pure.
//!
//! A name is what a certificate says. A third connection that has said nothing takes the place of the first: whoever holds
//! the same certificate cannot keep a node out by saying nothing, and silent ones cost no more than two.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use beehive::link::accept_limiter::address_prefix;

/// 2: connections of one name that have not said hello.
const SILENT_EACH: usize = 2;
/// 2: connections of one name whose hello is being answered.
const HELLOS_EACH: usize = 2;
/// 3: links of one name: the one that is, and two that come to their end.
const SESSIONS_EACH: usize = 3;
/// 1024: connections in all that have not said hello.
const SILENT_MAX: usize = 1024;
/// 256 of them from one address.
const SILENT_OF_ADDRESS: usize = 256;
/// 1 s: what is asked to wait that has too many links already. One ends within 2 s.
const WAIT: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConnectionStage {
    /// It has not said hello.
    Silent,
    /// Its hello is being answered.
    Hello,
    /// It carries a session.
    Session,
}

#[derive(Debug)]
struct ConnectionEntry {
    name: String,
    address: Option<IpAddr>,
    stage: ConnectionStage,
}

/// All connections of the hub, from the moment that it took them until they are closed.
#[derive(Debug, Default)]
pub(crate) struct ConnectionTable {
    last: u64,
    entries: BTreeMap<u64, ConnectionEntry>,
}

impl ConnectionTable {
    /// Another one has come. Answers its number, and whose place it takes.
    pub(crate) fn enter(&mut self, name: &str, address: Option<IpAddr>) -> (u64, Option<u64>) {
        let address = address.map(address_prefix);
        let leaves = self.full(name, address);
        if let Some(id) = leaves {
            self.entries.remove(&id);
        }
        self.last += 1;
        self.entries.insert(
            self.last,
            ConnectionEntry { name: name.to_owned(), address, stage: ConnectionStage::Silent },
        );
        (self.last, leaves)
    }

    /// The oldest silent one of a bound that is reached.
    fn full(&self, name: &str, address: Option<IpAddr>) -> Option<u64> {
        let silent = || self.entries.iter().filter(|(_, entry)| entry.stage == ConnectionStage::Silent);
        let of_name = || silent().filter(|(_, entry)| entry.name == name);
        if of_name().count() >= SILENT_EACH {
            return of_name().next().map(|(id, _)| *id);
        }
        let of = |address: Option<IpAddr>| silent().filter(move |(_, entry)| entry.address == address);
        if address.is_some() && of(address).count() >= SILENT_OF_ADDRESS {
            return of(address).next().map(|(id, _)| *id);
        }
        if silent().count() < SILENT_MAX {
            return None;
        }
        let mut counts = BTreeMap::<Option<IpAddr>, usize>::new();
        silent().for_each(|(_, entry)| *counts.entry(entry.address).or_default() += 1);
        let (most, _) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        of(most).next().map(|(id, _)| *id)
    }

    /// It has said hello.
    ///
    /// # Errors
    /// How long it has to wait: others of its name are being answered or end.
    pub(crate) fn hello(&mut self, id: u64) -> Result<(), Duration> {
        let Some(entry) = self.entries.get(&id) else { return Err(WAIT) };
        let count = |stage| {
            self.entries.values().filter(|other| other.stage == stage && other.name == entry.name).count()
        };
        if count(ConnectionStage::Hello) >= HELLOS_EACH || count(ConnectionStage::Session) >= SESSIONS_EACH {
            return Err(WAIT);
        }
        self.becomes(id, ConnectionStage::Hello);
        Ok(())
    }

    /// It is let in.
    pub(crate) fn session(&mut self, id: u64) {
        self.becomes(id, ConnectionStage::Session);
    }

    fn becomes(&mut self, id: u64, stage: ConnectionStage) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.stage = stage;
        }
    }

    /// It is closed.
    pub(crate) fn leave(&mut self, id: u64) {
        self.entries.remove(&id);
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
        let mut table = ConnectionTable::default();
        assert_eq!(table.enter("a", ip(1)), (1, None));
        assert_eq!(table.enter("b", ip(1)), (2, None));
        assert_eq!(table.enter("a", ip(2)), (3, None));
        assert_eq!(table.enter("a", ip(3)), (4, Some(1)));
        // Who has said hello is not shown out, and makes room.
        table.hello(3).unwrap();
        assert_eq!(table.enter("a", ip(1)), (5, None));
        assert_eq!(table.enter("a", ip(1)), (6, Some(4)));
    }

    #[test]
    fn hellos_and_links_of_one_name_are_bounded() {
        let mut table = ConnectionTable::default();
        let say = |table: &mut ConnectionTable, name| {
            let (id, _) = table.enter(name, ip(1));
            table.hello(id).map(|()| id)
        };
        let (first, second) = (say(&mut table, "a").unwrap(), say(&mut table, "a").unwrap());
        assert_eq!(say(&mut table, "a"), Err(WAIT));
        assert!(say(&mut table, "b").is_ok());
        for id in [first, second] {
            table.session(id);
        }
        let third = say(&mut table, "a").unwrap();
        table.session(third);
        assert_eq!(say(&mut table, "a"), Err(WAIT));
        table.leave(first);
        assert!(say(&mut table, "a").is_ok());
    }

    #[test]
    fn an_address_with_many_names_has_its_share_and_the_greediest_gives_way() {
        let mut table = ConnectionTable::default();
        for number in 0..SILENT_OF_ADDRESS {
            assert_eq!(table.enter(&format!("a{number}"), ip(1)).1, None);
        }
        assert_eq!(table.enter("more", ip(1)).1, Some(1));
        assert_eq!(table.enter("b", ip(2)).1, None);
        for number in 0..SILENT_MAX - SILENT_OF_ADDRESS - 1 {
            let address = u8::try_from(3 + number / 200).unwrap();
            assert_eq!(table.enter(&format!("c{number}"), ip(address)).1, None);
        }
        assert_eq!(table.enter("honest", ip(100)).1, Some(2));
    }
}
