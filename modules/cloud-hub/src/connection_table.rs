//! The hub's connections, and how many there may be: bounds per holder and per address, over all transports. Pure.
//!
//! A holder is a certificate that the register is known to take for good, or all others of a name together ([`Holder`]): whoever has one
//! of those that are worth nothing takes no place that the node's own connection needs. What is not known yet has bounds by address and in
//! all besides, and makes room for what is.
//!
//! A third connection that has said nothing takes the place of the first: whoever holds
//! the same certificate cannot keep a node out by saying nothing, and silent ones cost no more than two.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use beehive::link::accept_limiter::address_prefix;

use crate::known_certificates::Holder;

/// 2: connections of one holder that have not said hello.
const SILENT_EACH: usize = 2;
/// 2: connections of one holder whose hello is being answered.
const HELLOS_EACH: usize = 2;
/// 3: links of one holder: the one that is, and two that come to their end.
const SESSIONS_EACH: usize = 3;
/// 1024: connections in all that have not said hello.
const SILENT_MAX: usize = 1024;
/// 256 of them from one address.
const SILENT_OF_ADDRESS: usize = 256;
/// 1024: hellos in all that are being answered of certificates that nobody knows to be good.
const UNKNOWN_MAX: usize = 1024;
/// 256 of them from one address: a site behind one address comes back at once to a CloudCore that has just started.
const UNKNOWN_OF_ADDRESS: usize = 256;
/// 1 s: what is asked to wait that has too many links already. One ends within 2 s.
const WAIT: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConnectionStage {
    /// It has not said hello.
    Silent,
    /// Its hello is being answered.
    Hello,
    /// It carries a session, or renews its certificate.
    Session,
}

#[derive(Debug)]
struct ConnectionEntry {
    holder: Holder,
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
    pub(crate) fn enter(&mut self, holder: Holder, address: Option<IpAddr>) -> (u64, Option<u64>) {
        let address = address.map(address_prefix);
        let leaves = self.full(&holder, address);
        if let Some(id) = leaves {
            self.entries.remove(&id);
        }
        self.last += 1;
        let stage = ConnectionStage::Silent;
        self.entries.insert(self.last, ConnectionEntry { holder, address, stage });
        (self.last, leaves)
    }

    /// The oldest silent one of a bound that is reached; one that nobody knows to be good goes first.
    fn full(&self, holder: &Holder, address: Option<IpAddr>) -> Option<u64> {
        let silent = || self.entries.iter().filter(|(_, entry)| entry.stage == ConnectionStage::Silent);
        let of_holder = || silent().filter(|(_, entry)| entry.holder == *holder);
        if of_holder().count() >= SILENT_EACH {
            return of_holder().next().map(|(id, _)| *id);
        }
        let of = |address: Option<IpAddr>| silent().filter(move |(_, entry)| entry.address == address);
        let first_of = |address| {
            of(address).min_by_key(|(id, entry)| (entry.holder.is_known(), **id)).map(|(id, _)| *id)
        };
        if address.is_some() && of(address).count() >= SILENT_OF_ADDRESS {
            return first_of(address);
        }
        if silent().count() < SILENT_MAX {
            return None;
        }
        let has_unknown = silent().any(|(_, entry)| !entry.holder.is_known());
        let may_leave = silent().filter(|(_, entry)| !(has_unknown && entry.holder.is_known()));
        let mut counts = BTreeMap::<Option<IpAddr>, usize>::new();
        may_leave.for_each(|(_, entry)| *counts.entry(entry.address).or_default() += 1);
        let (most, _) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        first_of(most)
    }

    /// It has said hello, as `holder`: what is known of it may have changed since it came.
    ///
    /// # Errors
    /// How long it has to wait: others of its holder are being answered or end, or too many are that nobody knows.
    pub(crate) fn hello(&mut self, id: u64, holder: &Holder) -> Result<(), Duration> {
        let Some(entry) = self.entries.get(&id) else { return Err(WAIT) };
        let count = |stage| {
            self.entries.values().filter(|other| other.stage == stage && other.holder == *holder).count()
        };
        if count(ConnectionStage::Hello) >= HELLOS_EACH || count(ConnectionStage::Session) >= SESSIONS_EACH {
            return Err(WAIT);
        }
        if !holder.is_known() {
            let unknown = || {
                self.entries
                    .values()
                    .filter(|other| other.stage == ConnectionStage::Hello && !other.holder.is_known())
            };
            let of_address = unknown().filter(|other| other.address == entry.address).count();
            let is_crowded = entry.address.is_some() && of_address >= UNKNOWN_OF_ADDRESS;
            if is_crowded || unknown().count() >= UNKNOWN_MAX {
                return Err(WAIT);
            }
        }
        self.becomes(id, ConnectionStage::Hello, holder);
        Ok(())
    }

    /// It is let in, as `holder`.
    pub(crate) fn session(&mut self, id: u64, holder: &Holder) {
        self.becomes(id, ConnectionStage::Session, holder);
    }

    fn becomes(&mut self, id: u64, stage: ConnectionStage, holder: &Holder) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.stage = stage;
            entry.holder = holder.clone();
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

    fn unknown(name: &str) -> Holder {
        Holder::Unknown { name: name.to_owned() }
    }

    fn known(name: &str, serial: &str) -> Holder {
        Holder::Known { name: name.to_owned(), serial: serial.to_owned() }
    }

    /// One more that says hello at once.
    fn say(table: &mut ConnectionTable, holder: &Holder) -> Result<u64, Duration> {
        let (id, _) = table.enter(holder.clone(), ip(1));
        table.hello(id, holder).map(|()| id).inspect_err(|_| table.leave(id))
    }

    #[test]
    fn a_third_that_says_nothing_takes_the_place_of_the_first_of_its_holder() {
        for (a, b) in [(unknown("a"), unknown("b")), (known("a", "aa"), known("a", "ab"))] {
            let mut table = ConnectionTable::default();
            assert_eq!(table.enter(a.clone(), ip(1)), (1, None));
            assert_eq!(table.enter(b.clone(), ip(1)), (2, None));
            assert_eq!(table.enter(a.clone(), ip(2)), (3, None));
            assert_eq!(table.enter(a.clone(), ip(3)), (4, Some(1)));
            // Who has said hello is not shown out, and makes room.
            table.hello(3, &a).unwrap();
            assert_eq!(table.enter(a.clone(), ip(1)), (5, None));
            assert_eq!(table.enter(a.clone(), ip(1)), (6, Some(4)));
        }
    }

    #[test]
    fn hellos_and_links_of_one_holder_are_bounded() {
        for (a, b) in [(unknown("a"), unknown("b")), (known("a", "aa"), known("a", "ab"))] {
            let mut table = ConnectionTable::default();
            let (first, second) = (say(&mut table, &a).unwrap(), say(&mut table, &a).unwrap());
            assert_eq!(say(&mut table, &a), Err(WAIT));
            assert!(say(&mut table, &b).is_ok());
            for id in [first, second] {
                table.session(id, &a);
            }
            let third = say(&mut table, &a).unwrap();
            table.session(third, &a);
            assert_eq!(say(&mut table, &a), Err(WAIT));
            table.leave(first);
            assert!(say(&mut table, &a).is_ok());
        }
    }

    #[test]
    fn who_has_a_certificate_that_is_worth_nothing_takes_no_place_of_the_nodes_own() {
        let (dead, own) = (unknown("a"), known("a", "aa"));
        let mut table = ConnectionTable::default();
        // As many as he likes, silent, in the middle of a hello, and one behind the other.
        for number in 0..50 {
            let (id, _) = table.enter(dead.clone(), ip(number));
            let _ = table.hello(id, &dead);
            table.enter(dead.clone(), ip(number));
        }
        assert_eq!(say(&mut table, &dead), Err(WAIT));
        let (silent, leaves) = table.enter(own.clone(), ip(1));
        assert_eq!(leaves, None, "it is in nobody's way");
        for number in 0..50 {
            assert_ne!(table.enter(dead.clone(), ip(number)).1, Some(silent));
        }
        table.hello(silent, &own).unwrap();
        table.session(silent, &own);
        // Nor does a copy of one that is good until the node uses its next one.
        let copied = known("a", "bb");
        while say(&mut table, &copied).is_ok() {}
        assert!(say(&mut table, &own).is_ok());
    }

    #[test]
    fn one_that_the_register_has_judged_meanwhile_takes_its_own_places() {
        let mut table = ConnectionTable::default();
        let (first, _) = table.enter(unknown("a"), ip(1));
        table.hello(first, &known("a", "aa")).unwrap();
        say(&mut table, &unknown("a")).unwrap();
        let second = say(&mut table, &unknown("a")).unwrap();
        table.session(second, &known("a", "ab"));
        assert!(say(&mut table, &unknown("a")).is_ok());
    }

    #[test]
    fn an_address_with_many_names_has_its_share_and_the_greediest_gives_way() {
        let mut table = ConnectionTable::default();
        for number in 0..SILENT_OF_ADDRESS {
            assert_eq!(table.enter(unknown(&format!("a{number}")), ip(1)).1, None);
        }
        assert_eq!(table.enter(unknown("more"), ip(1)).1, Some(1));
        assert_eq!(table.enter(unknown("b"), ip(2)).1, None);
        for number in 0..SILENT_MAX - SILENT_OF_ADDRESS - 1 {
            let address = u8::try_from(3 + number / 200).unwrap();
            assert_eq!(table.enter(unknown(&format!("c{number}")), ip(address)).1, None);
        }
        assert_eq!(table.enter(unknown("honest"), ip(100)).1, Some(2));
    }

    #[test]
    fn what_nobody_knows_makes_room_for_what_is_known() {
        let mut table = ConnectionTable::default();
        // A site of nodes that are good, behind one address, and somebody with as many addresses as he likes.
        for number in 0..200 {
            table.enter(known(&format!("a{number}"), "aa"), ip(1));
        }
        for number in 0..SILENT_MAX - 200 {
            let address = u8::try_from(10 + number / 5).unwrap();
            table.enter(unknown(&format!("c{number}")), ip(address));
        }
        for number in 0..500 {
            let (_, leaves) = table.enter(unknown(&format!("d{number}")), ip(3));
            assert!(leaves.is_some_and(|leaves| leaves > 200), "a good one is shown out: {leaves:?}");
        }
        // At their own address, too.
        for number in 0..SILENT_OF_ADDRESS {
            let (_, leaves) = table.enter(unknown(&format!("e{number}")), ip(1));
            assert!(leaves.is_none_or(|leaves| leaves > 200), "a good one is shown out: {leaves:?}");
        }
    }

    #[test]
    fn hellos_that_nobody_knows_are_bounded_by_address_and_in_all_and_those_that_are_known_are_not() {
        let mut table = ConnectionTable::default();
        let mut say = |holder: &Holder, address: u8| {
            let (id, _) = table.enter(holder.clone(), ip(address));
            table.hello(id, holder)
        };
        for number in 0..UNKNOWN_OF_ADDRESS {
            say(&unknown(&format!("a{number}")), 1).unwrap();
        }
        assert_eq!(say(&unknown("more"), 1), Err(WAIT));
        say(&known("b", "bb"), 1).unwrap();
        for number in 0..UNKNOWN_MAX - UNKNOWN_OF_ADDRESS {
            let address = u8::try_from(2 + number / 100).unwrap();
            say(&unknown(&format!("c{number}")), address).unwrap();
        }
        assert_eq!(say(&unknown("more"), 200), Err(WAIT));
        say(&known("b", "bb"), 200).unwrap();
    }
}
