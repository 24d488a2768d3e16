//! What the rules of devices accept, and what DeviceTwin and they tell each other.

use std::collections::BTreeMap;
use std::sync::Arc;

use beehive::Message;

use crate::ids::DeviceName;

/// Whether a device is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Presence {
    /// Nobody has said so far.
    #[default]
    Unsaid,
    /// It said that it is.
    Online,
    /// It is not, or has fallen silent after it was.
    Offline,
}

/// What is known of a property that a rule watches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PropertyFact {
    /// What the device says that it is; `None`: nothing, or only why it has none.
    pub value: Option<String>,
    /// It has not been heard in time.
    pub is_stale: bool,
}

/// What rules have to know of a device, all of it: the newest counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFacts {
    /// The device.
    pub device: DeviceName,
    /// Its uid: another one is another device.
    pub uid: String,
    /// Its rules as they stand on it, of which nothing is wrong; `None`: it has none, or is gone.
    pub rules: Option<Arc<str>>,
    /// Whether it is there.
    pub presence: Presence,
    /// The properties that its rules name.
    pub properties: BTreeMap<String, PropertyFact>,
    /// Grows from word to word in a life of DeviceTwin.
    pub version: u64,
}

/// What stands in the device's status of its rules, as a condition that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleCondition {
    /// [`RULES_APPLIED`] or [`RULES_QUIET`].
    pub kind: &'static str,
    /// One word of [`RULE_REASONS`].
    pub reason: &'static str,
    /// A sentence for people, of at most 2000 bytes.
    pub message: String,
}

/// Of a device whose rules do all that they say.
pub const RULES_APPLIED: &str = "RulesApplied";
/// Of a device none of whose rules has triggered.
pub const RULES_QUIET: &str = "RulesQuiet";
/// An action of a rule was not done.
pub const ACTION_FAILED: &str = "ActionFailed";
/// A rule triggers so often that it is held back.
pub const HELD_BACK: &str = "HeldBack";
/// A rule has triggered.
pub const TRIGGERED: &str = "Triggered";
/// All reasons.
pub const RULE_REASONS: [&str; 3] = [ACTION_FAILED, HELD_BACK, TRIGGERED];

/// What came of the actions of a rule that were due.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ActionsOutcome {
    /// Those that were done, by their place.
    pub done: Vec<usize>,
    /// Those that were not, and why.
    pub failed: Vec<(usize, String)>,
}

/// Messages to the rules of devices.
#[derive(Debug)]
pub enum DeviceRulesMsg {
    /// A life of DeviceTwin has begun: what was known of devices may be of before.
    TwinsBegan,
    /// Of a device something has changed.
    Facts(Box<DeviceFacts>),
    /// The time of a rule or of an action that is tried again has come.
    Wake,
    /// A rule's actions were tried.
    Acted {
        /// The device.
        device: DeviceName,
        /// The rule.
        rule: String,
        /// Which trying, counted in this life of the rules.
        attempt: u64,
        /// What came of it.
        outcome: ActionsOutcome,
    },
}

impl Message for DeviceRulesMsg {
    fn name(&self) -> &'static str {
        match self {
            DeviceRulesMsg::TwinsBegan => "TwinsBegan",
            DeviceRulesMsg::Facts(_) => "Facts",
            DeviceRulesMsg::Wake => "Wake",
            DeviceRulesMsg::Acted { .. } => "Acted",
        }
    }
}
