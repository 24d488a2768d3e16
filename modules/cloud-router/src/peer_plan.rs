//! Which CloudCore a call is passed on to, how long it may take there, and what its caller hears where it gets nowhere. Pure.
//!
//! A call is passed on once. Whoever takes one from another CloudCore ([`crate::peer_door`]) has nobody to pass it on to; the headers
//! here are read there alone, from whom has proven that it is a CloudCore, and come in and go out nowhere else.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use beehive::Moment;
use contract::NodeName;
use contract::nodelease::NodeHolder;
use http::{HeaderMap, HeaderName, StatusCode};

/// 1 s for a word which CloudCore has a node.
pub const LOOKUP_WITHIN: Duration = Duration::from_secs(1);
/// 1 s for the connection to that one, its handshake included.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// 1 s beyond what the other one was given, for its answer to be on its way.
pub const BEYOND: Duration = Duration::from_secs(1);
/// 10 s for which the word counts that a CloudCore has a node: it says so itself where that has changed.
const HELD_FOR: Duration = Duration::from_secs(10);
/// 1 s for which the word counts that none has it.
const NOBODY_FOR: Duration = Duration::from_secs(1);
/// 4096 nodes of which is known who has them; the one that was asked for longest ago makes room.
pub const HOLDERS: usize = 4096;
/// 64 CloudCores that were not reached are told apart.
pub const UNREACHED: usize = 64;
/// 63 bytes of a CloudCore's identity: a label of a DNS name.
const IDENTITY_MAX: usize = 63;

/// What stands before the headers with which CloudCores pass calls on.
const OWN: &str = "kubehive-forward-";
/// How long the call may take yet, in milliseconds.
pub static WITHIN: HeaderName = HeaderName::from_static("kubehive-forward-within");
/// On an answer that is the other CloudCore's own refusal, and no service's: [`REFUSED`] or [`MOVED`].
pub static OUTCOME: HeaderName = HeaderName::from_static("kubehive-forward-outcome");
/// The call was refused.
pub const REFUSED: &str = "refused";
/// The node is not there any more.
pub const MOVED: &str = "moved";

/// Whether a header is of this module, and of nobody else: those of callers and of services end where they come.
pub fn is_own(name: &HeaderName) -> bool {
    name.as_str().starts_with(OWN)
}

/// Another CloudCore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its identity, which its certificate has to name.
    pub identity: String,
    /// Where it is.
    pub at: SocketAddr,
}

/// Where a node is that is not linked here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// With that CloudCore.
    Peer(Peer),
    /// With one to which nothing can be passed on.
    Closed {
        /// Its identity, as it stands in the Lease.
        cloudcore: String,
    },
    /// With none: this one had it last, no Node has that name, or none ever had it.
    Nowhere,
}

/// What the node's Lease means. Whoever may write Leases wrote it: what is no identity or no address leads nowhere.
pub fn place(holder: Option<NodeHolder>) -> Place {
    let Some(NodeHolder { cloudcore, address, is_here: false }) = holder else { return Place::Nowhere };
    let at = address.and_then(|address| address.parse::<SocketAddr>().ok()).filter(leads_somewhere);
    match at {
        Some(at) if is_identity(&cloudcore) => Place::Peer(Peer { identity: cloudcore, at }),
        _ => Place::Closed { cloudcore: printable(&cloudcore) },
    }
}

fn leads_somewhere(at: &SocketAddr) -> bool {
    at.port() != 0 && !at.ip().is_unspecified() && !at.ip().is_multicast()
}

fn is_identity(text: &str) -> bool {
    (1..=IDENTITY_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// It is said to a caller.
fn printable(text: &str) -> String {
    text.chars().take(IDENTITY_MAX).map(|each| if each.is_ascii_graphic() { each } else { '?' }).collect()
}

#[derive(Debug)]
struct Known {
    place: Place,
    at: Moment,
}

/// Which CloudCores have nodes, as was heard last; and which of them were not reached.
#[derive(Debug, Default)]
pub struct KnownPeers {
    nodes: BTreeMap<NodeName, Known>,
    /// By identity: how often in a row.
    unreached: BTreeMap<String, u64>,
}

impl KnownPeers {
    /// Where the node is, as far as that counts yet.
    pub fn place(&self, node: &NodeName, now: Moment) -> Option<Place> {
        let Known { place, at } = self.nodes.get(node)?;
        let counts_for = if matches!(place, Place::Nowhere) { NOBODY_FOR } else { HELD_FOR };
        (now.since(*at) < counts_for).then(|| place.clone())
    }

    /// Where it was, however long ago: for when nobody can say now.
    pub fn last(&self, node: &NodeName) -> Option<Place> {
        self.nodes.get(node).map(|known| known.place.clone())
    }

    /// The Lease has said so.
    pub fn found(&mut self, node: &NodeName, place: Place, now: Moment) {
        if !self.nodes.contains_key(node) && self.nodes.len() >= HOLDERS {
            let eldest = self.nodes.iter().min_by_key(|(_, known)| known.at).map(|(node, _)| node.clone());
            eldest.and_then(|eldest| self.nodes.remove(&eldest));
        }
        self.nodes.insert(node.clone(), Known { place, at: now });
    }

    /// What is known of the node has shown itself wrong.
    pub fn forget(&mut self, node: &NodeName) {
        self.nodes.remove(node);
    }

    /// How many nodes there are of which is known who has them.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// The CloudCore was not reached. Answers how often in a row.
    pub fn not_reached(&mut self, identity: &str) -> u64 {
        if !self.unreached.contains_key(identity) && self.unreached.len() >= UNREACHED {
            // Who has gone for good is never reached again: another life of it has another name.
            self.unreached.pop_first();
        }
        let times = self.unreached.entry(identity.to_owned()).or_default();
        *times = times.saturating_add(1);
        *times
    }

    /// The CloudCore was reached. Answers whether it was not before.
    pub fn reached(&mut self, identity: &str) -> bool {
        self.unreached.remove(identity).is_some()
    }

    /// Those that were not reached when they were called last.
    pub fn unreached(&self) -> impl Iterator<Item = (&str, u64)> {
        self.unreached.iter().map(|(identity, times)| (identity.as_str(), *times))
    }
}

/// What is left of `within` at `now`, for a call that began at `began`; `None`: nothing.
pub fn left(within: Duration, began: Moment, now: Moment) -> Option<Duration> {
    within.checked_sub(now.since(began)).filter(|left| left.as_millis() > 0)
}

/// How long a call may take that another CloudCore has passed on: as it says, and not longer than `most`. `None`: it says nothing of
/// the kind, and is no such call.
pub fn within_of(headers: &HeaderMap, most: Duration) -> Option<Duration> {
    let mut said = headers.get_all(&WITHIN).iter();
    let (text, None) = (said.next()?.to_str().ok()?, said.next()) else { return None };
    let is_number = !text.is_empty() && text.len() <= 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    let milliseconds = text.parse().ok().filter(|milliseconds| is_number && *milliseconds > 0)?;
    Some(Duration::from_millis(milliseconds).min(most))
}

/// Why a call has no answer of the CloudCore that it was passed on to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PassError {
    /// It was not reached: nothing of the call was sent.
    Unreached {
        /// Which.
        peer: Peer,
        /// Why.
        why: String,
    },
    /// It went away or hangs with the call in hand: nobody knows what became of it.
    Lost {
        /// Which.
        peer: Peer,
        /// How.
        why: String,
    },
    /// It has not answered in time.
    Late {
        /// Which.
        peer: Peer,
        /// How long it had.
        within: Duration,
    },
    /// What the caller sends is longer than it may be.
    TooLong {
        /// How long that is, in bytes.
        most: u64,
    },
}

impl PassError {
    /// What the caller hears. A 503 says that nothing was done, and may be tried again.
    pub fn answer(&self) -> (StatusCode, String) {
        match self {
            PassError::Unreached { peer: Peer { identity, at }, why } => (
                StatusCode::SERVICE_UNAVAILABLE,
                format!(
                    "CloudCore `{identity}`, which has the node, was not reached at {at} ({why}): the call was not made, try again"
                ),
            ),
            PassError::Lost { peer: Peer { identity, at }, why } => (
                StatusCode::BAD_GATEWAY,
                format!(
                    "CloudCore `{identity}` at {at}, which has the node, broke off ({why}): whether the call was made is not known"
                ),
            ),
            PassError::Late { peer: Peer { identity, .. }, within } => (
                StatusCode::REQUEST_TIMEOUT,
                format!(
                    "wait to get response time out: CloudCore `{identity}`, which has the node, has not answered within {} s",
                    within.as_secs()
                ),
            ),
            PassError::TooLong { most } => {
                (StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {most} bytes"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn node(name: &str) -> NodeName {
        NodeName::parse(name).unwrap()
    }

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    fn holder(cloudcore: &str, address: Option<&str>, is_here: bool) -> Option<NodeHolder> {
        Some(NodeHolder { cloudcore: cloudcore.to_owned(), address: address.map(str::to_owned), is_here })
    }

    fn peer(identity: &str) -> Peer {
        Peer { identity: identity.to_owned(), at: "192.0.2.1:9444".parse().unwrap() }
    }

    #[test]
    fn a_lease_leads_to_another_cloudcore_or_nowhere() {
        let good = Some("192.0.2.1:9444");
        assert_eq!(place(holder("cloudcore-0a", good, false)), Place::Peer(peer("cloudcore-0a")));
        let of_v6 = place(holder("a", Some("[2001:db8::1]:9444"), false));
        assert!(matches!(of_v6, Place::Peer(Peer { at, .. }) if at.is_ipv6()), "{of_v6:?}");
        assert_eq!(
            place(holder("cloudcore-0a", good, true)),
            Place::Nowhere,
            "it is this one, without a link"
        );
        assert_eq!(place(None), Place::Nowhere);
    }

    #[test]
    fn what_stands_in_a_lease_is_dialled_only_if_it_is_an_address_of_a_cloudcore() {
        for address in [
            None,
            Some(""),
            Some("192.0.2.1"),
            Some("192.0.2.1:0"),
            Some("0.0.0.0:9444"),
            Some("[::]:9444"),
            Some("224.0.0.1:9444"),
            Some("cloud.example:9444"),
            Some("https://192.0.2.1:9444"),
        ] {
            let closed = Place::Closed { cloudcore: "cloudcore-0a".to_owned() };
            assert_eq!(place(holder("cloudcore-0a", address, false)), closed, "{address:?}");
        }
        let long = "a".repeat(IDENTITY_MAX + 1);
        for identity in ["", "A", "a.b", "-a", "a-", "a b", "ü", &long, "a\r\nx: y"] {
            let found = place(holder(identity, Some("192.0.2.1:9444"), false));
            let Place::Closed { cloudcore } = found else { panic!("{found:?}") };
            let is_plain = cloudcore.bytes().all(|byte| byte.is_ascii_graphic());
            assert!(is_plain && cloudcore.len() <= IDENTITY_MAX, "{cloudcore}");
        }
    }

    #[test]
    fn what_was_heard_counts_for_a_while_and_what_was_wrong_does_not() {
        let mut peers = KnownPeers::default();
        assert_eq!(peers.place(&node("n"), at(0)), None);
        peers.found(&node("n"), Place::Peer(peer("a")), at(0));
        peers.found(&node("m"), Place::Nowhere, at(0));
        assert_eq!(peers.place(&node("n"), at(9)), Some(Place::Peer(peer("a"))));
        assert_eq!(peers.place(&node("n"), at(10)), None);
        assert_eq!(peers.place(&node("m"), Moment(Duration::from_millis(999))), Some(Place::Nowhere));
        assert_eq!(peers.place(&node("m"), at(1)), None, "it may have come");
        assert_eq!(peers.last(&node("n")), Some(Place::Peer(peer("a"))), "better than nothing");
        peers.forget(&node("n"));
        assert_eq!((peers.place(&node("n"), at(0)), peers.last(&node("n"))), (None, None));
    }

    #[test]
    fn many_nodes_and_many_cloudcores_stay_within_the_bounds() {
        let mut peers = KnownPeers::default();
        for n in 0..HOLDERS as u64 + 10 {
            peers.found(&node(&format!("n{n}")), Place::Nowhere, at(n));
            peers.not_reached(&format!("cloudcore-{n}"));
        }
        assert_eq!((peers.count(), peers.unreached().count()), (HOLDERS, UNREACHED));
        assert_eq!(peers.last(&node("n9")), None, "the eldest went");
        assert!(peers.last(&node("n10")).is_some());
    }

    #[test]
    fn failures_of_a_cloudcore_are_counted_until_it_is_reached() {
        let mut peers = KnownPeers::default();
        assert_eq!((peers.not_reached("a"), peers.not_reached("a"), peers.not_reached("b")), (1, 2, 1));
        assert_eq!((peers.reached("a"), peers.reached("a")), (true, false));
        assert_eq!(peers.not_reached("a"), 1);
    }

    #[test]
    fn a_deadline_goes_along_and_grows_nowhere() {
        let second = Duration::from_secs(1);
        assert_eq!(left(20 * second, at(5), at(7)), Some(18 * second));
        assert_eq!((left(second, at(5), at(6)), left(second, at(5), at(60))), (None, None));
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(&WITHIN, HeaderValue::from_str(value).unwrap());
            }
            within_of(&headers, 20 * second)
        };
        assert_eq!((of(&["1500"]), of(&["60000"])), (Some(Duration::from_millis(1500)), Some(20 * second)));
        let wrong = ["", "0", "-1", "+1", "1.5", "1s", " 1", "0x10", "1111111111111"];
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["1", "2"]), None, "of two nobody knows which one counts");
        for wrong in wrong {
            assert_eq!(of(&[wrong]), None, "{wrong}");
        }
    }

    #[test]
    fn own_headers_are_told_from_all_others() {
        assert!(is_own(&WITHIN) && is_own(&OUTCOME));
        for other in ["kubehive-node", "authorization", "forwarded", "x-forwarded-for"] {
            assert!(!is_own(&HeaderName::from_static(other)), "{other}");
        }
    }

    #[test]
    fn only_a_call_that_was_not_made_may_be_tried_again() {
        let why = || "it is gone".to_owned();
        let of = |error: PassError| error.answer();
        let (status, words) = of(PassError::Unreached { peer: peer("a"), why: why() });
        assert!(
            status == 503 && words.contains("192.0.2.1:9444") && words.contains("was not made"),
            "{words}"
        );
        let (status, words) = of(PassError::Lost { peer: peer("a"), why: why() });
        assert!(status == 502 && words.contains("is not known"), "{words}");
        let (status, words) = of(PassError::Late { peer: peer("a"), within: Duration::from_secs(7) });
        assert!(status == 408 && words.starts_with("wait to get response time out") && words.contains("7 s"));
        assert_eq!(of(PassError::TooLong { most: 5 }).0, 413);
    }
}
