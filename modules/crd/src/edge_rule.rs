//! Rules that run on the node of a Device: the annotation [`EDGE_RULES_ANNOTATION`], so that KubeEdge's schema stays whole.
//!
//! All of the annotation is taken or nothing of it: half of a safety function is none.

mod local_url;
mod reading;

use std::time::Duration;

pub use local_url::LocalUrl;

use crate::{Device, DeviceModel};

/// Where a Device has its rules: a list in YAML or JSON.
pub const EDGE_RULES_ANNOTATION: &str = "kubehive.io/rules";
/// 16 KiB of rules on a Device.
pub const EDGE_RULES_BYTES: usize = 16 << 10;
/// 16 rules on a Device.
pub const EDGE_RULES_MAX: usize = 16;
/// 8 actions on each side of a rule.
pub const EDGE_ACTIONS_MAX: usize = 8;

/// A rule of a Device.
#[derive(Debug, Clone, PartialEq)]
pub struct EdgeRule {
    /// Its name, unique on the Device: up to 63 of a-z, 0-9 and -.
    pub name: String,
    /// When it triggers, and when that is over.
    pub condition: EdgeCondition,
    /// For how long the condition has to hold without a break: 0 to 24 h.
    pub hold_for: Duration,
    /// What is done when it triggers.
    pub then: Vec<EdgeAction>,
    /// What is done when that is over.
    pub otherwise: Vec<EdgeAction>,
    /// All of it as JSON: another text is another rule.
    pub written: String,
}

/// When a rule triggers.
#[derive(Debug, Clone, PartialEq)]
pub enum EdgeCondition {
    /// The value is above `limit`; over at `clear` or below.
    Above {
        /// The property.
        property: String,
        /// Beyond this.
        limit: f64,
        /// Not above `limit`.
        clear: f64,
    },
    /// The value is below `limit`; over at `clear` or above.
    Below {
        /// The property.
        property: String,
        /// Beyond this.
        limit: f64,
        /// Not below `limit`.
        clear: f64,
    },
    /// The value is this text; over at any other.
    Equals {
        /// The property.
        property: String,
        /// The value.
        value: String,
    },
    /// The value is stale; over when it is heard again.
    Stale {
        /// The property.
        property: String,
    },
    /// The device is offline; over when it is online.
    Offline,
}

impl EdgeCondition {
    /// The property that it watches.
    pub fn property(&self) -> Option<&str> {
        match self {
            EdgeCondition::Above { property, .. }
            | EdgeCondition::Below { property, .. }
            | EdgeCondition::Equals { property, .. }
            | EdgeCondition::Stale { property } => Some(property),
            EdgeCondition::Offline => None,
        }
    }
}

impl std::fmt::Display for EdgeCondition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            EdgeCondition::Above { property, limit, .. } => write!(f, "`{property}` is above {limit}"),
            EdgeCondition::Below { property, limit, .. } => write!(f, "`{property}` is below {limit}"),
            EdgeCondition::Equals { property, value } => write!(f, "`{property}` is `{value}`"),
            EdgeCondition::Stale { property } => write!(f, "`{property}` is stale"),
            EdgeCondition::Offline => f.write_str("the device is offline"),
        }
    }
}

/// One thing that a rule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EdgeAction {
    /// Sets the desired value of a property of a device of the same namespace on the same node.
    Set {
        /// The device; `None`: the rule's own.
        device: Option<String>,
        /// The property.
        property: String,
        /// The value; empty: takes back what was set.
        value: String,
    },
    /// Publishes to the MQTT clients of the node, with QoS 1.
    Publish {
        /// The topic.
        topic: String,
        /// The payload; `None`: a document that names the rule and what happened.
        payload: Option<String>,
    },
    /// Calls an HTTP service on the node or in its private network.
    Call {
        /// `GET`, `POST` or `PUT`.
        method: String,
        /// Where.
        url: LocalUrl,
        /// The body; `None`: as of a publication, and none with `GET`.
        body: Option<String>,
    },
}

impl std::fmt::Display for EdgeAction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            EdgeAction::Set { device, property, .. } => {
                write!(f, "set `{property}` of `{}`", device.as_deref().unwrap_or("this device"))
            }
            EdgeAction::Publish { topic, .. } => write!(f, "publish `{topic}`"),
            EdgeAction::Call { method, url, .. } => write!(f, "call {method} {url}"),
        }
    }
}

/// The text of a Device's rules.
pub fn edge_rules_text(device: &Device) -> Option<&str> {
    device.metadata.annotations.as_ref()?.get(EDGE_RULES_ANNOTATION).map(String::as_str)
}

/// The rules of a Device, by itself and by its model, if that is there. Without the annotation none.
///
/// # Errors
/// Why none of them is taken, a sentence each.
pub fn edge_rules(device: &Device, model: Option<&DeviceModel>) -> Result<Vec<EdgeRule>, Vec<String>> {
    let Some(text) = edge_rules_text(device) else { return Ok(Vec::new()) };
    let rules = parse_edge_rules(text)?;
    let faults = reading::misfits(&rules, device, model);
    if faults.is_empty() { Ok(rules) } else { Err(faults) }
}

/// Reads the text of rules, whatever Device it stands on.
///
/// # Errors
/// Why none of them is taken, a sentence each.
pub fn parse_edge_rules(text: &str) -> Result<Vec<EdgeRule>, Vec<String>> {
    reading::parse(text)
}

#[cfg(test)]
mod tests;
