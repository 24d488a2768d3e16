//! What MetaManager accepts: from its own node, and from the cloud over the link.

use beehive::{Address, Message, Reply};

use crate::devicecontroller::DeviceUp;
use crate::edgecontroller::EdgeUp;
use crate::{Change, Held, TokenGrant, TokenQuery};

/// Messages to MetaManager.
#[derive(Debug)]
pub enum MetaMsg {
    /// The link is up; these are the cloud's mailboxes.
    LinkUp {
        /// The edge controller.
        edge: Address<EdgeUp>,
        /// The device controller.
        device: Address<DeviceUp>,
    },
    /// The link is down.
    LinkDown,
    /// From the cloud.
    Down(MetaDown),
    /// Somebody committed rows to the outbox: look.
    OutboxGrew,
    /// Edged makes progress: said every 10 s, passed on while the link is up.
    EdgedAlive,
    /// The cloud confirmed these outbox rows, or a delivery failed (`None`).
    Delivered {
        /// Which delivery.
        delivery: u64,
        /// The rows, by their sequence.
        confirmed: Option<Vec<i64>>,
    },
    /// A token for a pod's service account. Only the cloud can grant one.
    Token {
        /// Which.
        query: TokenQuery,
        /// The token, or a sentence why not.
        reply: Reply<Result<TokenGrant, String>>,
    },
}

/// What the cloud may say to a node's MetaManager.
#[derive(Debug)]
pub enum MetaDown {
    /// What do you hold?
    Holdings {
        /// Every object held.
        reply: Reply<Vec<Held>>,
    },
    /// Hold or forget these. Answered after the commit.
    Apply {
        /// In order.
        changes: Vec<Change>,
        /// `Err` names what the node's store refused; nothing of the batch was applied then.
        reply: Reply<Result<(), String>>,
    },
}

impl Message for MetaMsg {
    fn name(&self) -> &'static str {
        match self {
            MetaMsg::LinkUp { .. } => "LinkUp",
            MetaMsg::LinkDown => "LinkDown",
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
            MetaDown::Holdings { .. } => "Holdings",
            MetaDown::Apply { .. } => "Apply",
        }
    }
}
