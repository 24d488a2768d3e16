//! Named events: each is one line of the log and one counter.

use beehive::Env;
use contract::ids::DeviceName;

use crate::rule_set::{HappeningKind, RuleHappening};

/// Something has become of a rule.
pub(crate) fn happened(env: &Env, happening: &RuleHappening) {
    let RuleHappening { device, rule, kind, message, .. } = happening;
    match kind {
        HappeningKind::Triggered => {
            env.count("devicerules_triggered");
            tracing::info!(%device, rule, message, "a rule has triggered");
        }
        HappeningKind::Cleared => {
            env.count("devicerules_cleared");
            tracing::info!(%device, rule, message, "a rule is over");
        }
        HappeningKind::HeldBack => {
            env.count("devicerules_held_back");
            tracing::warn!(%device, rule, message, "a rule is held back");
        }
        HappeningKind::ActionFailed => {
            env.count("devicerules_action_given_up");
            tracing::warn!(%device, rule, message, "actions of a rule were not done");
        }
    }
}

/// What actions did, or did not.
pub(crate) fn acted(env: &Env, device: &DeviceName, rule: &str, done: usize, failed: usize) {
    env.count("devicerules_acted");
    tracing::debug!(%device, rule, done, failed, "actions of a rule were tried");
}

/// How rules stand was not kept: what they did is done again if edgecore ends now. Tried again.
pub(crate) fn not_kept(env: &Env, reason: &str) {
    env.count("devicerules_not_kept");
    tracing::warn!(reason, "how rules stand is not kept; tried again");
}

/// An Event about a rule was not kept, and is lost.
pub(crate) fn event_not_kept(env: &Env, reason: &str) {
    env.count("devicerules_event_not_kept");
    tracing::warn!(reason, "an Event about a rule is not kept");
}

/// DeviceTwin did not say which rules there are; asked again.
pub(crate) fn not_listed(env: &Env, reason: &str) {
    env.count("devicerules_not_listed");
    tracing::warn!(reason, "rules are not known; asked again");
}
