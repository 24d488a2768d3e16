//! What NodeLease accepts: who has which node, in which session, and of which Node object that session is.
//!
//! A session's number is the epoch of the node's Lease (`spec.leaseTransitions`): it grows with each claim, whichever
//! CloudCore makes it, and survives every restart. Whoever keeps something of a session compares that number and nothing
//! else.

use std::sync::Arc;
use std::time::Duration;

use beehive::link::{Traffic, Transport};
use beehive::{Message, Reply};

use crate::NodeName;
use crate::synccontroller::SyncStatus;

/// Messages to NodeLease.
#[derive(Debug)]
pub enum NodeLeaseMsg {
    /// A node's link was found good: take the node, whoever has it.
    Claim {
        /// The node.
        node: NodeName,
        /// Serial number of the certificate that it came with, lower-case hex.
        certificate: String,
        /// The number of the new session, which is the Lease's epoch, or why the node could not be taken.
        reply: Reply<Result<u64, ClaimRefused>>,
    },
    /// CloudHub began anew, or says again who is linked: no session is open but those that are told after this.
    AllNodesDown,
    /// A session opened.
    NodeUp {
        /// The node.
        node: NodeName,
        /// The session.
        session: u64,
        /// Serial number of the node's certificate, lower-case hex.
        certificate: String,
        /// Its link.
        link: OpenLink,
    },
    /// The node's certificate was renewed in this session: the one before is good for nothing any more.
    CertificateRenewed {
        /// The node.
        node: NodeName,
        /// The session.
        session: u64,
        /// Serial number of the new one, lower-case hex.
        certificate: String,
        /// When it begins and ends, in seconds since 1970.
        valid: (u64, u64),
    },
    /// A session ended.
    NodeDown {
        /// The node.
        node: NodeName,
        /// The session.
        session: u64,
        /// Why its certificate is good for nothing any more, in a sentence's words, if it was ended for that: nobody hears of the node under it.
        revoked: Option<&'static str>,
    },
    /// What the node's word is worth in that session.
    Session {
        /// The node.
        node: NodeName,
        /// The session.
        session: u64,
        /// What it is worth now.
        reply: Reply<SessionState>,
    },
    /// There is a Node of that name now, made for this session as it seems: note in the register whose it is.
    NodeCreated {
        /// The node.
        node: NodeName,
        /// The session.
        session: u64,
        /// What the session is worth after that, or a sentence why nobody can say now.
        reply: Reply<Result<SessionState, String>>,
    },
    /// The Node that the session is of was not found, or another one was found in its place: look, and end the session if so.
    NodeMissing {
        /// The node.
        node: NodeName,
        /// The session.
        session: u64,
    },
    /// Whether this CloudCore still has the node since that session, by the Lease as it is now.
    Holds {
        /// The node.
        node: NodeName,
        /// The session.
        session: u64,
        /// Whether, or a sentence why nobody can say now.
        reply: Reply<Result<bool, String>>,
    },
    /// Which CloudCore has the node by its Lease, whoever that is.
    Holder {
        /// The node.
        node: NodeName,
        /// It, or a sentence why nobody can say now; `None`: no Node has that name, or no CloudCore has it.
        reply: Reply<Result<Option<NodeHolder>, String>>,
    },
    /// Edged makes progress: renew the Lease.
    Renew {
        /// The node.
        node: NodeName,
        /// The session.
        session: u64,
    },
    /// Write the condition `kubehive.io/Synced` of the Node.
    ShowSynced {
        /// The node.
        node: NodeName,
        /// What it should say.
        status: SyncStatus,
        /// Whether it was written, or is not this CloudCore's to write.
        reply: Reply<bool>,
    },
}

/// 5 s for taking a node: for as long who asks waits, and who takes it tries.
pub const CLAIM_DEADLINE: Duration = Duration::from_secs(5);
/// 2 s: what a node is asked to wait that could not be taken now.
pub const CLAIM_WAIT: Duration = Duration::from_secs(2);

/// Why a node was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRefused {
    /// In a sentence that the node may read; it says what to do where somebody can do something.
    pub reason: String,
    /// When it is worth to come again: seconds where something is out of reach, a minute where an administrator has to act.
    /// `None`: the node's own pace.
    pub wait: Option<Duration>,
}

/// The CloudCore that has a node, as the node's Lease names it. Nobody has looked whether it is still there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeHolder {
    /// Its identity.
    pub cloudcore: String,
    /// Where other CloudCores reach it, as it stands there; `None`: it says nothing of that.
    pub address: Option<String>,
    /// Whether it is the one that was asked.
    pub is_here: bool,
}

/// What a node's word is worth in a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionState {
    /// It counts.
    Open {
        /// The uid of the Node object that the session is of.
        node_uid: String,
    },
    /// There is no Node of the node yet: the node's report about itself counts, which makes it, and nothing else.
    WithoutNode {
        /// Serial number of the certificate that the Node is made for, lower-case hex.
        certificate: String,
    },
    /// The Node seems to be gone or another one: it is being looked into, and nothing counts meanwhile.
    InDoubt,
    /// It is not the newest session of the node here, or was ended: the node says it again in another one, if it may.
    Ended,
}

/// Which of a node's reports an object holds: the newer one wins, whoever writes, and no memory is asked.
///
/// A new session has a higher number, and rows of one session grow with time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReportVersion {
    /// The session in which it was sent.
    pub session: u64,
    /// The row of the node's outbox.
    pub row: i64,
}

/// The link of a session.
#[derive(Debug, Clone)]
pub struct OpenLink {
    /// What carries it.
    pub transport: Transport,
    /// The bytes that cross it.
    pub traffic: Arc<Traffic>,
    /// When the certificate of its node begins and ends, in seconds since 1970; `None`: it has no end.
    pub certificate_valid: Option<(u64, u64)>,
}

impl ReportVersion {
    /// What [`crate::ids::REPORTED_ANNOTATION`] holds on the object with this uid: `SESSION.ROW/UID`, and of a pod more
    /// behind it ([`crate::pod_status::annotation`]). What was copied from another object, or written by somebody else, counts as none.
    pub fn of_object(annotation: &str, uid: &str) -> Option<Self> {
        let (version, rest) = annotation.split_once('/')?;
        let of = rest.split_once('/').map_or(rest, |(uid, _)| uid);
        let (session, row) = version.split_once('.')?;
        if of.is_empty() || of != uid {
            return None;
        }
        Some(ReportVersion { session: session.parse().ok()?, row: row.parse().ok()? })
    }

    /// What [`crate::ids::REPORTED_ANNOTATION`] is to hold on the object with this uid.
    pub fn for_object(self, uid: &str) -> String {
        format!("{self}/{uid}")
    }
}

impl std::fmt::Display for ReportVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.session, self.row)
    }
}

impl Message for NodeLeaseMsg {
    fn name(&self) -> &'static str {
        match self {
            NodeLeaseMsg::Claim { .. } => "Claim",
            NodeLeaseMsg::AllNodesDown => "AllNodesDown",
            NodeLeaseMsg::NodeUp { .. } => "NodeUp",
            NodeLeaseMsg::CertificateRenewed { .. } => "CertificateRenewed",
            NodeLeaseMsg::NodeDown { .. } => "NodeDown",
            NodeLeaseMsg::Session { .. } => "Session",
            NodeLeaseMsg::NodeCreated { .. } => "NodeCreated",
            NodeLeaseMsg::NodeMissing { .. } => "NodeMissing",
            NodeLeaseMsg::Holds { .. } => "Holds",
            NodeLeaseMsg::Holder { .. } => "Holder",
            NodeLeaseMsg::Renew { .. } => "Renew",
            NodeLeaseMsg::ShowSynced { .. } => "ShowSynced",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_version_is_two_numbers_of_one_object() {
        let of = |text: &str| ReportVersion::of_object(text, "u");
        let version = ReportVersion { session: 3, row: 17 };
        assert_eq!((version.for_object("u").as_str(), of("3.17/u")), ("3.17/u", Some(version)));
        assert_eq!(of("3.17/u/Failed"), Some(version), "of a pod that has ended");
        assert_eq!(of("3.17/v"), None, "copied from another object");
        assert!(of("3.9/u") < of("3.10/u") && of("9.99/u") < of("10.1/u"));
        for bad in ["", "3.17", "3/u", "3./u", ".3/u", "a.b/u", "3.4.5/u", "-1.2/u", "3,4/u", "3.17/"] {
            assert_eq!(of(bad), None, "{bad}");
        }
        assert_eq!(ReportVersion::of_object("3.17/", ""), None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_trusted_and_a_report_version_comes_back(text in ".{0,40}", session: u64, row: i64) {
            let _ = ReportVersion::of_object(&text, "u");
            let version = ReportVersion { session, row };
            proptest::prop_assert_eq!(ReportVersion::of_object(&version.for_object("u"), "u"), Some(version));
        }
    }
}
