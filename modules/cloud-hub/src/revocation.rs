//! The certificates of those who are linked or about to be, held against the register of nodes. Pure.
//!
//! A certificate is entered here before its node is looked up in the register, so that no change falls between that look
//! and its session: it is either seen there, or told here.

use std::collections::BTreeMap;

use contract::NodeName;
use noderegistry::plan::NEXT_MAX;
use noderegistry::{RegistryEvent, RegistryStatus};

/// A certificate that a node has shown or was given over its link.
struct HeldCertificate {
    serial: String,
    /// When it begins and ends, in seconds since 1970, if it was given over the link.
    given_valid: Option<(u64, u64)>,
}

/// One certificate, from its hello to the end of its session.
struct CertificateEntry {
    /// The one that the node has, and behind it those that it was given since over its link: one of them has to be good.
    held: Vec<HeldCertificate>,
    /// The list in which its name was seen, or that had begun when it came.
    seen: u64,
    revoked: Option<&'static str>,
}

impl CertificateEntry {
    fn serials(&self) -> Vec<String> {
        self.held.iter().map(|held| held.serial.clone()).collect()
    }

    /// The one with this serial is what the node has now. Answers whether that is news.
    fn kept(&mut self, serial: &str) -> bool {
        match self.held.iter().position(|held| held.serial == serial) {
            None | Some(0) => false,
            Some(at) => {
                self.held.drain(..at);
                true
            }
        }
    }
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
        let held = vec![HeldCertificate { serial: serial.to_owned(), given_valid: None }];
        let entry = CertificateEntry { held, seen: self.list, revoked: None };
        self.entries.insert((node.clone(), self.last), entry);
        self.last
    }

    /// Over its link the node is about to be given another certificate, which is as good as its own from now on. Answers whether it is
    /// still there.
    pub(crate) fn renew(&mut self, node: &NodeName, id: u64, serial: &str, valid: (u64, u64)) -> bool {
        let Some(entry) = self.entries.get_mut(&(node.clone(), id)) else { return false };
        entry.held.push(HeldCertificate { serial: serial.to_owned(), given_valid: Some(valid) });
        // As many as the register has: which of them is on the node's disk is known when it says so, and that may be late.
        if entry.held.len() > NEXT_MAX.saturating_add(1) {
            entry.held.remove(1);
        }
        true
    }

    /// The node has that certificate on its disk, and those before it are good for nothing any more. Answers whether that is news, which it
    /// is for one that was given over this link.
    pub(crate) fn kept(&mut self, node: &NodeName, id: u64, serial: &str) -> bool {
        self.entries.get_mut(&(node.clone(), id)).is_some_and(|entry| entry.kept(serial))
    }

    /// The serial of the certificate that the node has, and behind it those that it was given over its link since.
    pub(crate) fn serials(&self, node: &NodeName, id: u64) -> Vec<String> {
        self.entries.get(&(node.clone(), id)).map(CertificateEntry::serials).unwrap_or_default()
    }

    /// When the certificate that the node has begins and ends, in seconds since 1970, if it was given over this link.
    pub(crate) fn given_valid(&self, node: &NodeName, id: u64) -> Option<(u64, u64)> {
        self.entries.get(&(node.clone(), id))?.held.first()?.given_valid
    }

    /// Its session has ended, or none was opened.
    pub(crate) fn leave(&mut self, node: &NodeName, id: u64) {
        self.entries.remove(&(node.clone(), id));
    }

    /// Why it is not good any more, if it is not.
    pub(crate) fn revoked(&self, node: &NodeName, id: u64) -> Option<&'static str> {
        self.entries.get(&(node.clone(), id))?.revoked
    }

    /// Takes what the watch of the register tells. Answers whether a certificate is not good any more that was before, or has taken the place
    /// of the one before it: the node's word for that may have been noted late, or by another CloudCore.
    pub(crate) fn apply(&mut self, event: RegistryEvent) -> bool {
        match event {
            RegistryEvent::Init => {
                self.list += 1;
                false
            }
            RegistryEvent::Apply(node, status) => {
                let (list, mut is_renewed) = (self.list, false);
                let is_revoked = self.revoke(Some(&node), |entry| {
                    entry.seen = list;
                    is_renewed |= status.living.as_deref().is_some_and(|living| entry.kept(living));
                    status.reason_against_all(&entry.serials())
                });
                is_revoked || is_renewed
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
            RegistryStatus {
                living: living.map(str::to_owned),
                next: Vec::new(),
                is_barred,
                is_ending: false,
            },
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
    fn a_link_goes_on_under_the_certificate_that_was_given_over_it_and_no_other_does() {
        let mut check = CertificateCheck::default();
        let (own, other) = (check.enter(&node("a"), "aa"), check.enter(&node("a"), "aa"));
        assert!(check.renew(&node("a"), own, "bb", (1, 2)) && !check.renew(&node("b"), own, "bb", (1, 2)));
        assert_eq!(check.serials(&node("a"), own), ["aa", "bb"]);
        assert!(!check.kept(&node("a"), own, "cc"), "it was given another");
        let both = RegistryStatus {
            living: Some("aa".to_owned()),
            next: vec!["bb".to_owned()],
            is_barred: false,
            is_ending: false,
        };
        assert!(!check.apply(RegistryEvent::Apply(node("a"), both)));
        assert_eq!(check.given_valid(&node("a"), own), None);
        assert!(check.kept(&node("a"), own, "bb") && !check.kept(&node("a"), own, "bb"), "said once");
        assert_eq!(
            (check.serials(&node("a"), own), check.given_valid(&node("a"), own)),
            (vec!["bb".to_owned()], Some((1, 2)))
        );
        assert!(check.apply(is("a", Some("bb"), false)), "the other link has only what is dead now");
        assert!(check.revoked(&node("a"), own).is_none() && check.revoked(&node("a"), other).is_some());
        assert!(check.apply(is("a", Some("cc"), false)) && check.revoked(&node("a"), own).is_some());
    }

    #[test]
    fn a_word_that_a_certificate_is_kept_which_is_noted_late_is_heard_of_by_the_watch() {
        let mut check = CertificateCheck::default();
        let own = check.enter(&node("a"), "aa");
        for (serial, ends) in [("bb", 2), ("cc", 3)] {
            assert!(check.renew(&node("a"), own, serial, (1, ends)));
        }
        // The one that was given first is the one that is on the disk; what was given after it may be as well.
        let status = RegistryStatus {
            living: Some("bb".to_owned()),
            next: vec!["cc".to_owned()],
            is_barred: false,
            is_ending: false,
        };
        assert!(check.apply(RegistryEvent::Apply(node("a"), status.clone())));
        assert!(!check.apply(RegistryEvent::Apply(node("a"), status)), "said once");
        assert_eq!(check.serials(&node("a"), own), ["bb", "cc"]);
        assert_eq!(check.given_valid(&node("a"), own), Some((1, 2)));
        assert!(check.revoked(&node("a"), own).is_none());
        // As many as the register keeps, and the one that the node has.
        for number in 0..100 {
            check.renew(&node("a"), own, &format!("d{number}"), (1, 4));
        }
        let held = check.serials(&node("a"), own);
        assert_eq!((held.len(), held[0].as_str(), held[NEXT_MAX].as_str()), (NEXT_MAX + 1, "bb", "d99"));
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
