//! What the brokers of a node have in common for whoever says something to those who listen there: the node's own one
//! (`own_broker.rs`), and one elsewhere of which `edgecore` is a client (`external`). The settings say which there are; each
//! takes what comes to it to the same [`crate::intake::Intake`]. Nothing goes from one to the other.

use std::rc::Rc;
use std::time::Duration;

use beehive::{Address, Context, Env, Fault};
use bytes::Bytes;
use contract::edged::EdgedMsg;
use contract::eventbus::{BrokerReport, EventBusMsg};
use futures::future::LocalBoxFuture;
use serde_json::{Map, Value};
use tokio::sync::Notify;

/// What `edgecore` says.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) retain: bool,
    /// The QoS is at least this one, whatever the settings say.
    pub(crate) least_qos: u8,
}

/// A broker at which devices and applications are.
pub(crate) trait Bus {
    /// Says something to those who listen there. Comes back when there is room for more.
    fn publish(&self, said: Said) -> LocalBoxFuture<'_, ()>;

    /// Whether somebody may hear what is said there.
    fn has_listeners(&self, topic: &str) -> bool;

    /// The router of the node's own broker has died, and nobody else has one.
    ///
    /// # Errors
    /// It dies again and again.
    fn router_died(&self, _cx: &Context<EventBusMsg>) -> Result<(), Fault> {
        Ok(())
    }

    /// Whether it can be used, and which one it is; `None` until that is known.
    fn report(&self) -> Option<BrokerReport>;

    /// Adds what there is to see of it.
    fn show(&self, view: &mut Map<String, Value>);

    /// Ends what is under way, and brings into the store what has to be there.
    fn stop(&self) -> LocalBoxFuture<'_, ()>;
}

/// 10 s: what nobody gave notice of is seen by then.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// After six looks it is said again: Edged may have been restarted and know nothing.
const LOOKS_BEFORE_AGAIN: u32 = 6;

/// What one sentence says of all brokers, once something is known of each.
fn together(reports: impl IntoIterator<Item = Option<BrokerReport>>) -> Option<BrokerReport> {
    let mut all =
        BrokerReport { is_usable: true, is_external: false, reason: "Usable", message: String::new() };
    for one in reports {
        let one = one?;
        if all.is_usable && !one.is_usable {
            (all.is_usable, all.reason) = (false, one.reason);
        }
        all.is_external |= one.is_external;
        if !all.message.is_empty() {
            all.message.push_str("; ");
        }
        all.message.push_str(&one.message);
    }
    Some(all)
}

/// Tells Edged whether the brokers can be used, whenever that changes, until it is dropped.
pub(crate) async fn tell_edged(
    buses: Vec<Rc<dyn Bus>>,
    news: Rc<Notify>,
    edged: Address<EdgedMsg>,
    env: Env,
) {
    let mut told: Option<BrokerReport> = None;
    let mut looks = 0;
    loop {
        let now = together(buses.iter().map(|bus| bus.report()));
        looks += 1;
        if let Some(now) = now
            && (told.as_ref() != Some(&now) || looks > LOOKS_BEFORE_AGAIN)
            // A full mailbox: the next look says it.
            && edged.try_tell(EdgedMsg::MqttBroker(now.clone())).is_ok()
        {
            (told, looks) = (Some(now), 0);
        }
        env.timeout(LOOK_EVERY, news.notified()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_broker_that_cannot_be_used_is_what_all_are_said_to_be() {
        let report = |is_usable, is_external, reason, message: &str| BrokerReport {
            is_usable,
            is_external,
            reason,
            message: message.to_owned(),
        };
        let own = report(true, false, "Usable", "own broker serves 127.0.0.1:1883");
        assert_eq!(together([Some(own.clone())]), Some(own.clone()));
        assert_eq!(together([Some(own.clone()), None]), None);
        let away = report(false, true, "NothingListens", "nothing listens at tcp://b:1883");
        let message = format!("{}; {}", own.message, away.message);
        let all = together([Some(own), Some(away)]);
        assert_eq!(all, Some(report(false, true, "NothingListens", &message)));
    }
}
