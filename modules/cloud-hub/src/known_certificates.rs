//! What the register said last of which certificates are good, for whoever counts places by name. Pure.
//!
//! A certificate that TLS takes may be worth nothing: replaced, given back, revoked, of a name that was freed. Who holds one of those must
//! not take what the node itself needs. So a certificate that the register is known to take for good has places of its own, and all
//! others of a name share some, until the register was asked about the one that comes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use beehive::link::PeerName;
use contract::NodeName;
use noderegistry::RegistryEvent;
use pki::NODE_PREFIX;

/// Whose places a connection takes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Holder {
    /// Those of one certificate, which the register takes for good. A name has a few of them at the most.
    Known {
        /// The common name.
        name: String,
        /// The serial, lower-case hex.
        serial: String,
    },
    /// Those of all other certificates of a name together.
    Unknown {
        /// The common name.
        name: String,
    },
}

impl Holder {
    /// A certificate that the register takes for good.
    pub(crate) fn known(peer: &PeerName) -> Self {
        Holder::Known { name: peer.as_str().to_owned(), serial: peer.serial().to_owned() }
    }

    /// Whether the register is known to take it for good.
    pub(crate) fn is_known(&self) -> bool {
        matches!(self, Holder::Known { .. })
    }

    /// As one word, for who counts by words. A name of a node has no space.
    pub(crate) fn word(&self) -> String {
        match self {
            Holder::Known { name, serial } => format!("{name} {serial}"),
            Holder::Unknown { name } => name.clone(),
        }
    }
}

/// What is good of one name.
#[derive(Default)]
struct GoodCertificates {
    serials: Vec<String>,
    /// The list in which the name was seen, or that had begun when it came.
    seen: u64,
}

#[derive(Default)]
struct State {
    /// How many lists of the register have begun.
    list: u64,
    /// Whether a list is complete.
    is_listed: bool,
    names: BTreeMap<NodeName, GoodCertificates>,
}

/// The certificates that are good by the register's last word. Its clones are one, on all threads.
#[derive(Clone, Default)]
pub struct KnownCertificates(Arc<Mutex<State>>);

impl KnownCertificates {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the watch of the register tells.
    pub(crate) fn apply(&self, event: &RegistryEvent) {
        let mut state = self.state();
        let seen = state.list;
        match event {
            RegistryEvent::Init => state.list += 1,
            RegistryEvent::Apply(node, status) => {
                let serials = status.clone().good();
                state.names.insert(node.clone(), GoodCertificates { serials, seen });
            }
            RegistryEvent::Delete(node) => drop(state.names.remove(node)),
            RegistryEvent::InitDone => {
                state.names.retain(|_, good| good.seen >= seen);
                state.is_listed = true;
            }
        }
    }

    /// Whether the register has a good certificate of this name: it is not barred, freed or unknown. `None`: the register is not known yet.
    pub fn has(&self, node: &NodeName) -> Option<bool> {
        let state = self.state();
        let has = state.names.get(node).is_some_and(|good| !good.serials.is_empty());
        (has || state.is_listed).then_some(has)
    }

    /// The register has said of this one just now that it is good; the watch may be later.
    pub(crate) fn note(&self, node: &NodeName, serial: &str) {
        let mut state = self.state();
        let seen = state.list;
        let good = state.names.entry(node.clone()).or_default();
        good.seen = seen;
        if !good.serials.iter().any(|known| known == serial) {
            good.serials.push(serial.to_owned());
        }
    }

    /// Whose places a connection of `peer` takes.
    pub(crate) fn holder(&self, peer: &PeerName) -> Holder {
        let node = peer.as_str().strip_prefix(NODE_PREFIX).and_then(|name| NodeName::parse(name).ok());
        let state = self.state();
        let good = node.and_then(|node| state.names.get(&node));
        match good {
            Some(good) if good.serials.iter().any(|serial| serial == peer.serial()) => Holder::known(peer),
            _ => Holder::Unknown { name: peer.as_str().to_owned() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use noderegistry::RegistryStatus;

    fn node(name: &str) -> NodeName {
        NodeName::parse(name).unwrap()
    }

    fn is(name: &str, living: &str, next: &[&str], is_barred: bool) -> RegistryEvent {
        let next = next.iter().map(|serial| (*serial).to_owned()).collect();
        let living = Some(living.to_owned());
        RegistryEvent::Apply(node(name), RegistryStatus { living, next, is_barred, is_ending: false })
    }

    fn is_known(known: &KnownCertificates, name: &str, serial: &str) -> bool {
        known.holder(&PeerName::verified(format!("{NODE_PREFIX}{name}"), serial)).is_known()
    }

    #[test]
    fn only_what_the_register_takes_for_good_has_places_of_its_own() {
        let known = KnownCertificates::default();
        assert!(!is_known(&known, "a", "aa"));
        known.apply(&is("a", "aa", &["ab", "ac"], false));
        assert!(["aa", "ab", "ac"].iter().all(|serial| is_known(&known, "a", serial)));
        assert!(!is_known(&known, "a", "ad") && !is_known(&known, "b", "aa"));
        let holder = |serial| known.holder(&PeerName::verified("system:node:a", serial));
        assert_ne!(holder("aa"), holder("ab"));
        assert_eq!(holder("0a"), holder("0b"), "the others share");
        // It is replaced; barred; let in again; forgotten.
        known.apply(&is("a", "ac", &[], false));
        assert!(!is_known(&known, "a", "aa") && is_known(&known, "a", "ac"));
        known.apply(&is("a", "ac", &[], true));
        assert!(!is_known(&known, "a", "ac"));
        known.note(&node("a"), "ac");
        assert!(is_known(&known, "a", "ac"));
        known.apply(&RegistryEvent::Delete(node("a")));
        assert!(!is_known(&known, "a", "ac"));
        assert!(!known.holder(&PeerName::verified("system:masters", "ac")).is_known());
    }

    #[test]
    fn a_name_is_ours_while_it_has_a_good_certificate_and_nothing_is_said_of_others_before_the_list() {
        let known = KnownCertificates::default();
        assert_eq!(known.has(&node("a")), None);
        known.apply(&RegistryEvent::Init);
        known.apply(&is("a", "aa", &[], false));
        known.apply(&is("b", "bb", &[], true));
        assert_eq!((known.has(&node("a")), known.has(&node("b"))), (Some(true), None));
        known.apply(&RegistryEvent::InitDone);
        assert_eq!((known.has(&node("b")), known.has(&node("c"))), (Some(false), Some(false)));
        known.apply(&is("a", "aa", &[], true));
        assert_eq!(known.has(&node("a")), Some(false), "revoked");
    }

    #[test]
    fn a_name_that_a_list_does_not_have_is_gone_unless_it_came_meanwhile() {
        let known = KnownCertificates::default();
        known.apply(&is("a", "aa", &[], false));
        known.apply(&RegistryEvent::Init);
        known.apply(&is("b", "bb", &[], false));
        known.note(&node("c"), "cc");
        known.apply(&RegistryEvent::InitDone);
        assert!(!is_known(&known, "a", "aa"));
        assert!(is_known(&known, "b", "bb") && is_known(&known, "c", "cc"));
    }
}
