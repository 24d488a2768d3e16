//! The certificates of those who are linked or about to be, held against the register of nodes. Pure.
//!
//! A certificate is entered here before its node is looked up in the register, so that no change falls between that look
//! and its session: it is either seen there, or told here.

use std::collections::BTreeMap;

use contract::NodeName;
use noderegistry::{RegistryEvent, RegistryStatus};

/// One certificate, from its hello to the end of its session.
struct CertificateEntry {
    serial: String,
    /// The list in which its name was seen, or that had begun when it came.
    seen: u64,
    revoked: Option<&'static str>,
}

/// All of them.
#[derive(Default)]
pub(crate) struct CertificateCheck {
    last: u64,
    /// How many lists of the register have begun.
    list: u64,
    entries: BTreeMap<(NodeName, u64), CertificateEntry>,
}

impl CertificateCheck {
    /// A node arrives with a certificate of this serial. Answers its number.
    pub(crate) fn enter(&mut self, node: &NodeName, serial: &str) -> u64 {
        self.last += 1;
        let entry = CertificateEntry { serial: serial.to_owned(), seen: self.list, revoked: None };
        self.entries.insert((node.clone(), self.last), entry);
        self.last
    }

    /// Its session has ended, or none was opened.
    pub(crate) fn leave(&mut self, node: &NodeName, id: u64) {
        self.entries.remove(&(node.clone(), id));
    }

    /// Why it is not good any more, if it is not.
    pub(crate) fn revoked(&self, node: &NodeName, id: u64) -> Option<&'static str> {
        self.entries.get(&(node.clone(), id))?.revoked
    }

    /// Takes what the watch of the register tells. Answers whether a certificate is not good any more that was before.
    pub(crate) fn apply(&mut self, event: RegistryEvent) -> bool {
        match event {
            RegistryEvent::Init => {
                self.list += 1;
                false
            }
            RegistryEvent::Apply(node, status) => {
                let list = self.list;
                self.revoke(Some(&node), |entry| {
                    entry.seen = list;
                    status.reason_against(&entry.serial)
                })
            }
            RegistryEvent::Delete(node) => self.revoke(Some(&node), |_| Some(RegistryStatus::FORGOTTEN)),
            RegistryEvent::InitDone => {
                let list = self.list;
                self.revoke(None, |entry| (entry.seen < list).then_some(RegistryStatus::FORGOTTEN))
            }
        }
    }

    fn revoke(
        &mut self,
        of: Option<&NodeName>,
        mut judge: impl FnMut(&mut CertificateEntry) -> Option<&'static str>,
    ) -> bool {
        let range = match of {
            Some(node) => self.entries.range_mut((node.clone(), 0)..=(node.clone(), u64::MAX)),
            None => self.entries.range_mut(..),
        };
        let mut found = false;
        for entry in range.map(|(_, entry)| entry) {
            if let (Some(reason), None) = (judge(entry), entry.revoked) {
                entry.revoked = Some(reason);
                found = true;
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

    fn is(name: &str, living: Option<&str>, is_barred: bool) -> RegistryEvent {
        RegistryEvent::Apply(
            node(name),
            RegistryStatus { living: living.map(str::to_owned), is_barred, is_ending: false },
        )
    }

    #[test]
    fn only_the_living_serial_of_a_name_that_is_not_barred_stays() {
        let mut check = CertificateCheck::default();
        let (old, new, other) =
            (check.enter(&node("a"), "aa"), check.enter(&node("a"), "bb"), check.enter(&node("a-b"), "aa"));
        assert!(check.apply(is("a", Some("bb"), false)));
        assert!(!check.apply(is("a", Some("bb"), false)), "said once");
        assert!(check.revoked(&node("a"), old).is_some() && check.revoked(&node("a"), new).is_none());
        assert!(check.apply(is("a", Some("bb"), true)) && check.revoked(&node("a"), new).is_some());
        assert!(check.revoked(&node("a-b"), other).is_none());
        assert!(
            check.apply(RegistryEvent::Delete(node("a-b"))) && check.revoked(&node("a-b"), other).is_some()
        );
        check.leave(&node("a"), old);
        check.leave(&node("a"), new);
        check.leave(&node("a-b"), other);
        assert!(check.entries.is_empty());
    }

    #[test]
    fn a_name_that_a_list_does_not_have_is_gone_unless_it_came_meanwhile() {
        let mut check = CertificateCheck::default();
        let (gone, stays) = (check.enter(&node("a"), "aa"), check.enter(&node("b"), "bb"));
        assert!(!check.apply(RegistryEvent::Init));
        let fresh = check.enter(&node("c"), "cc");
        assert!(!check.apply(is("b", Some("bb"), false)));
        assert!(check.apply(RegistryEvent::InitDone));
        assert!(check.revoked(&node("a"), gone).is_some());
        assert!(check.revoked(&node("b"), stays).is_none() && check.revoked(&node("c"), fresh).is_none());
        assert!(!check.apply(RegistryEvent::Init) && !check.apply(is("b", Some("bb"), false)));
        assert!(check.apply(RegistryEvent::InitDone) && check.revoked(&node("c"), fresh).is_some());
    }
}
