//! Who is linked or about to be, held against the register of nodes. Pure.
//!
//! An arrival is on the roll before its node is looked up in the register, so that no change falls between that look and
//! its link: it is either seen there, or told here. The roll is as long as there are links.

use std::collections::BTreeMap;

use contract::NodeName;
use noderegistry::{Heard, Sight};

/// One arrival, from its hello to its end.
struct Entry {
    serial: String,
    /// The list in which its name was seen, or that had begun when it came.
    seen: u64,
    condemned: Option<&'static str>,
}

/// The roll.
#[derive(Default)]
pub(crate) struct Roll {
    last: u64,
    /// How many lists of the register have begun.
    list: u64,
    entries: BTreeMap<(NodeName, u64), Entry>,
}

/// An entry that is to end, and why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Condemned {
    pub(crate) node: NodeName,
    pub(crate) id: u64,
    pub(crate) reason: &'static str,
}

impl Roll {
    /// A node arrives with a certificate of this serial. Answers its number.
    pub(crate) fn enter(&mut self, node: &NodeName, serial: &str) -> u64 {
        self.last += 1;
        let entry = Entry { serial: serial.to_owned(), seen: self.list, condemned: None };
        self.entries.insert((node.clone(), self.last), entry);
        self.last
    }

    /// It has ended, or was not let in.
    pub(crate) fn leave(&mut self, node: &NodeName, id: u64) {
        self.entries.remove(&(node.clone(), id));
    }

    /// Why it must end, if it must.
    pub(crate) fn condemned(&self, node: &NodeName, id: u64) -> Option<&'static str> {
        self.entries.get(&(node.clone(), id))?.condemned
    }

    /// Takes what the watch of the register tells. Answers who must end that was not to before.
    pub(crate) fn hear(&mut self, heard: Heard) -> Vec<Condemned> {
        match heard {
            Heard::Begins => {
                self.list += 1;
                Vec::new()
            }
            Heard::Is(node, sight) => {
                let list = self.list;
                self.condemn(Some(&node), |entry| {
                    entry.seen = list;
                    sight.against(&entry.serial)
                })
            }
            Heard::Gone(node) => self.condemn(Some(&node), |_| Some(Sight::FORGOTTEN)),
            Heard::Complete => {
                let list = self.list;
                self.condemn(None, |entry| (entry.seen < list).then_some(Sight::FORGOTTEN))
            }
        }
    }

    fn condemn(
        &mut self,
        of: Option<&NodeName>,
        mut judge: impl FnMut(&mut Entry) -> Option<&'static str>,
    ) -> Vec<Condemned> {
        let range = match of {
            Some(node) => self.entries.range_mut((node.clone(), 0)..=(node.clone(), u64::MAX)),
            None => self.entries.range_mut(..),
        };
        let mut found = Vec::new();
        for ((node, id), entry) in range {
            if let (Some(reason), None) = (judge(entry), entry.condemned) {
                entry.condemned = Some(reason);
                found.push(Condemned { node: node.clone(), id: *id, reason });
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeName {
        NodeName::parse(name).unwrap()
    }

    fn is(name: &str, living: Option<&str>, is_barred: bool) -> Heard {
        Heard::Is(node(name), Sight { living: living.map(str::to_owned), is_barred, is_ending: false })
    }

    fn ids(condemned: Vec<Condemned>) -> Vec<u64> {
        condemned.into_iter().map(|one| one.id).collect()
    }

    #[test]
    fn only_the_living_serial_of_a_name_that_is_not_barred_stays() {
        let mut roll = Roll::default();
        let (old, new, other) =
            (roll.enter(&node("a"), "aa"), roll.enter(&node("a"), "bb"), roll.enter(&node("a-b"), "aa"));
        assert_eq!(ids(roll.hear(is("a", Some("bb"), false))), [old]);
        assert_eq!(ids(roll.hear(is("a", Some("bb"), false))), [0; 0], "said once");
        assert!(roll.condemned(&node("a"), old).is_some() && roll.condemned(&node("a"), new).is_none());
        assert_eq!(ids(roll.hear(is("a", Some("bb"), true))), [new]);
        assert_eq!(ids(roll.hear(Heard::Gone(node("a-b")))), [other]);
        roll.leave(&node("a"), old);
        roll.leave(&node("a"), new);
        roll.leave(&node("a-b"), other);
        assert!(roll.entries.is_empty());
    }

    #[test]
    fn a_name_that_a_list_does_not_have_is_gone_unless_it_came_meanwhile() {
        let mut roll = Roll::default();
        let (gone, stays) = (roll.enter(&node("a"), "aa"), roll.enter(&node("b"), "bb"));
        assert_eq!(roll.hear(Heard::Begins), []);
        let fresh = roll.enter(&node("c"), "cc");
        assert_eq!(roll.hear(is("b", Some("bb"), false)), []);
        assert_eq!(ids(roll.hear(Heard::Complete)), [gone]);
        assert_eq!(roll.condemned(&node("b"), stays), None);
        assert_eq!(roll.hear(Heard::Begins), []);
        assert_eq!(roll.hear(is("b", Some("bb"), false)), []);
        assert_eq!(ids(roll.hear(Heard::Complete)), [fresh]);
    }
}
