//! What MetaManager accepts: from its own node, and from the cloud over the link.

use beehive::{Address, Message, Reply};
use serde::{Deserialize, Serialize};

use crate::devicecontroller::DeviceUp;
use crate::edgecontroller::EdgeUp;
use crate::router::RouterUp;
use crate::{Change, Digest, Held, TokenGrant, TokenQuery};

/// Messages to MetaManager.
#[derive(Debug)]
pub enum MetaMsg {
    /// The link is up; these are the cloud's mailboxes.
    LinkUp {
        /// The edge controller.
        edge: Address<EdgeUp>,
        /// The device controller.
        device: Address<DeviceUp>,
        /// The router.
        router: Address<RouterUp>,
    },
    /// The link is down.
    LinkDown,
    /// From the cloud.
    Down(MetaDown),
    /// Somebody committed rows to the outbox: look.
    OutboxGrew,
    /// Edged makes progress: said every 6.5 s, passed on while the link is up.
    EdgedAlive,
    /// The cloud confirmed these outbox rows, or a delivery failed (`None`).
    Delivered {
        /// Of which queue.
        queue: OutboxQueue,
        /// Which delivery.
        delivery: u64,
        /// The rows, by their sequence.
        confirmed: Option<Vec<i64>>,
    },
    /// A token for a pod's service account. Only the cloud can grant one.
    Token {
        /// Which.
        query: TokenQuery,
        /// The token, or why not.
        reply: Reply<Result<TokenGrant, NoToken>>,
    },
}

/// What leaves the outbox side by side: neither a backlog of telemetry nor devices whose status cannot be written hold up
/// the status of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutboxQueue {
    /// Status and events of the node and its pods.
    Node,
    /// Twins and states of devices.
    Devices,
    /// Telemetry.
    Telemetry,
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoToken {
    /// The cloud is out of reach, and only it can grant one.
    #[error("the cloud is out of reach, and only it can grant a token")]
    OutOfReach,
    /// The cloud grants none.
    #[error("{0}")]
    Refused(String),
}

/// What the cloud may say to a node's MetaManager.
#[derive(Debug)]
pub enum MetaDown {
    /// What do you hold, in short? The answer begins a new offer: what belongs to an older one is not taken any more.
    Offer {
        /// The offer.
        reply: Reply<Offer>,
    },
    /// What exactly do you hold in these buckets of your offer?
    Holdings {
        /// Which offer.
        offer: u64,
        /// The buckets.
        buckets: Vec<u16>,
        /// Every object held in them.
        reply: Reply<Vec<Held>>,
    },
    /// Hold or forget these. Answered after the commit.
    Apply {
        /// Which offer it starts from.
        offer: u64,
        /// The batch's place behind that offer, from 1. One that comes out of turn is not taken.
        place: u64,
        /// In order.
        changes: Vec<Change>,
        /// `Err`: nothing of the batch was applied.
        reply: Reply<Result<(), NotApplied>>,
    },
}

/// What a node holds at one moment, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Random: batches name it, so that one which a broken link left behind is known by it.
    pub number: u64,
    /// What it holds.
    pub digest: Digest,
}

/// Why a batch was not applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NotApplied {
    /// The node's store refused it, for this reason. The offer ends with it: what is on its way behind the batch would
    /// come before what it may need.
    Refused(String),
    /// It belongs to an offer that has ended, or comes out of turn.
    Stale,
}

impl Message for MetaMsg {
    fn name(&self) -> &'static str {
        match self {
            MetaMsg::LinkUp { .. } => "LinkUp",
            MetaMsg::LinkDown => "LinkDown",
            MetaMsg::Down(MetaDown::Offer { .. }) => "Offer",
            MetaMsg::Down(MetaDown::Holdings { .. }) => "Holdings",
            MetaMsg::Down(MetaDown::Apply { .. }) => "Apply",
            MetaMsg::OutboxGrew => "OutboxGrew",
            MetaMsg::EdgedAlive => "EdgedAlive",
            MetaMsg::Delivered { .. } => "Delivered",
            MetaMsg::Token { .. } => "Token",
        }
    }
    fn lane(&self) -> beehive::Lane {
        match self {
            MetaMsg::LinkUp { .. } | MetaMsg::LinkDown => beehive::Lane::Control,
            MetaMsg::Down(_)
            | MetaMsg::OutboxGrew
            | MetaMsg::EdgedAlive
            | MetaMsg::Delivered { .. }
            | MetaMsg::Token { .. } => beehive::Lane::Work,
        }
    }
}

impl Message for MetaDown {
    fn name(&self) -> &'static str {
        match self {
            MetaDown::Offer { .. } => "Offer",
            MetaDown::Holdings { .. } => "Holdings",
            MetaDown::Apply { .. } => "Apply",
        }
    }
}
