//! What the broker says about itself on `$SYS/broker/#`, under the names that mosquitto made common.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use beehive::Moment;
use bytes::Bytes;

use crate::broker::Broker;
use crate::message::Message;
use crate::shared::Shared;
use crate::{events, plan};

/// The figures of one moment, by what stands behind `$SYS/broker/`.
fn figures(broker: &Broker, up: Duration) -> BTreeMap<&'static str, String> {
    let counts = &broker.counts;
    let (here, sessions, subscriptions) = broker.sizes();
    let number = |event| counts.of(event).to_string();
    BTreeMap::from([
        ("version", concat!("KubeHive ", env!("CARGO_PKG_VERSION")).to_owned()),
        ("uptime", format!("{} seconds", up.as_secs())),
        ("clients/connected", here.to_string()),
        ("clients/disconnected", sessions.saturating_sub(here).to_string()),
        ("clients/total", sessions.to_string()),
        ("clients/expired", number(events::SESSION_EXPIRED)),
        ("clients/taken over", number(events::SESSION_TAKEN_OVER)),
        ("subscriptions/count", subscriptions.to_string()),
        ("retained messages/count", broker.retained_count().to_string()),
        ("messages/received", number(events::MESSAGE_IN)),
        ("messages/sent", number(events::MESSAGE_OUT)),
        (
            "publish/messages/dropped",
            (counts.of(events::QOS0_DROPPED) + counts.of(events::QOS1_LOST)).to_string(),
        ),
        ("store/messages/bytes", broker.held().to_string()),
    ])
}

/// Publishes what has changed, every ten seconds. The figures are retained in memory alone.
pub(crate) async fn tell(shared: Rc<Shared>) {
    let began: Moment = shared.env.now();
    let mut last: BTreeMap<&'static str, String> = BTreeMap::new();
    loop {
        let up = shared.env.now().since(began);
        let now = figures(&shared.broker.borrow(), up);
        for (name, figure) in &now {
            if last.get(name) != Some(figure) {
                let payload = Bytes::copy_from_slice(figure.as_bytes());
                let message = Message::of_node(format!("$SYS/broker/{name}"), payload, 0, true);
                shared.broker.borrow_mut().publish_figure(message);
            }
        }
        last = now;
        shared.env.sleep(plan::FIGURES_EVERY).await;
    }
}
