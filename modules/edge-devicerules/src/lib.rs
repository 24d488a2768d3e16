//! Rules of devices that run on their node: when a value crosses a limit, grows old, or a device goes offline, then set what other devices
//! should be, publish, or call a service on the spot. With the cloud and without it; the `README.md` of this folder says how.
//!
//! # Owns
//! Which rules have triggered, and what of that is not done yet.
//! # Accepts
//! [`contract::devicerules::DeviceRulesMsg`]: what DeviceTwin knows of devices that have rules, the ends of attempts, and that a time
//! has come.
//! # Tells
//! DeviceTwin what devices should be, and what is wrong with rules; EventBus what to publish; services what they are called with;
//! MetaManager that the outbox grew.
//! # Keeps across a restart
//! Of each rule whether it has triggered and which actions of that are not known to be done: before they are tried, so that a restart
//! does not trigger again, and does what was cut short (once more, if it was done). A time that was running begins anew.
//! # Never
//! Decides by the machine's clock. Acts on devices of another namespace, on metadata addresses or on ports of `edgecore`'s own or of mappers. Changes
//! a rule faster than its allowance, whatever goes round in a circle. Has the rules of one namespace hold up another's: it looks at the
//! devices of which something has changed, at all that came in one look, and tries a bounded number of actions at once.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod active_rule;
mod actor;
mod event_report;
mod events;
mod line;
mod local_call;
mod performer;
mod plan;
mod rule_set;
mod store;
mod turns;

pub use actor::{DeviceRules, Settings};
