//! What MetaManager accepts: from its own node, and from the cloud over the link.

use beehive::link::Capabilities;
use beehive::{Address, Message, Reply};

pub use crate::downlink::{Inventory, MetaDown, NotApplied};
pub use crate::report::OutboxQueue;
use crate::rule_call::{RuleAnswer, RuleCall};
use crate::uplink::{DeviceUp, EdgeUp, RouterUp, TaskUp};
use crate::{TokenGrant, TokenQuery};

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
        /// The task manager.
        tasks: Address<TaskUp>,
        /// What they understand: what needs anything else is not sent to them.
        peer: Capabilities,
    },
    /// The link is down.
    LinkDown,
    /// From the cloud.
    Down(MetaDown),
    /// Somebody committed rows to the outbox: look.
    OutboxGrew,
    /// Edged makes progress: said every 5.7 s, passed on while the link is up.
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
    /// An application of the node calls the target of a rule, which is in the cloud.
    RuleCall {
        /// How.
        call: RuleCall,
        /// What came of it, or why nothing did.
        reply: Reply<RuleAnswer>,
    },
    /// The topics of rules that waited for their targets may be tried again.
    RulesDue,
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

impl Message for MetaMsg {
    fn name(&self) -> &'static str {
        match self {
            MetaMsg::LinkUp { .. } => "LinkUp",
            MetaMsg::LinkDown => "LinkDown",
            MetaMsg::Down(message) => message.name(),
            MetaMsg::OutboxGrew => "OutboxGrew",
            MetaMsg::EdgedAlive => "EdgedAlive",
            MetaMsg::Delivered { .. } => "Delivered",
            MetaMsg::Token { .. } => "Token",
            MetaMsg::RuleCall { .. } => "RuleCall",
            MetaMsg::RulesDue => "RulesDue",
        }
    }
    fn lane(&self) -> beehive::Lane {
        match self {
            MetaMsg::LinkUp { .. } | MetaMsg::LinkDown => beehive::Lane::Control,
            MetaMsg::Down(_)
            | MetaMsg::OutboxGrew
            | MetaMsg::EdgedAlive
            | MetaMsg::Delivered { .. }
            | MetaMsg::Token { .. }
            | MetaMsg::RuleCall { .. }
            | MetaMsg::RulesDue => beehive::Lane::Work,
        }
    }
}
