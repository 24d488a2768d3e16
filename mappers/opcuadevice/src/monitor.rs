//! What a server sends by itself: a subscription with a monitored item for each property (Part 4 §5.13, §5.14).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use framework::{Fault, Kind, Subscription, Value};
use opcua_client::{MonitoredItemMap, OnSubscriptionNotificationCore, Session};
use opcua_types::{
    DataChangeFilter, DataChangeNotification, DataChangeTrigger, Error, ExtensionObject,
    MonitoredItemCreateRequest, MonitoringMode, MonitoringParameters, NodeId, NotificationMessage,
    ReadValueId, StatusChangeNotification, TimestampsToReturn,
};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::connection::Connection;
use crate::status;
use crate::values;
use crate::visitor::{Monitoring, Part, Visitor};

/// 20 ms to 1 s between two messages of a server, as fast as its fastest property.
const PUBLISHING: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// 5 s: so often a server says that it lives when nothing changes, and so often what is steady is told again.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
/// 6 signs of life that a server could not deliver until it forgets the subscription.
const LIFETIME: u32 = 6;
/// An absolute deadband (Part 4 §7.22.2).
const ABSOLUTE: u32 = 1;

/// A property that is to be sent: its place among those of the device, and where it is.
pub(crate) struct Item<'a> {
    pub(crate) place: usize,
    pub(crate) node: NodeId,
    pub(crate) visitor: &'a Visitor,
    pub(crate) monitoring: &'a Monitoring,
}

/// A subscription at a server. It is taken back when it is dropped.
#[derive(Debug)]
pub(crate) struct Monitor {
    connection: Arc<Connection>,
    id: u32,
    /// The places that the server sends.
    pub(crate) places: Vec<usize>,
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.connection.subscriptions().fetch_sub(1, Ordering::Relaxed);
        let (session, id) = (self.connection.shared_session(), self.id);
        if !self.connection.has_ended() {
            tokio::spawn(async move { drop(session.delete_subscription(id).await) });
        }
    }
}

impl Monitor {
    /// Subscribes to these. What a server does not monitor is left to be read in its cycle.
    pub(crate) async fn of(
        connection: &Arc<Connection>,
        items: &[Item<'_>],
        values: Subscription,
    ) -> Result<Monitor, Error> {
        let publishing = items.iter().map(|item| item.monitoring.sampling).min().unwrap_or(PUBLISHING.1);
        let publishing = publishing.clamp(PUBLISHING.0, PUBLISHING.1);
        let keep_alive =
            u32::try_from(SIGN_OF_LIFE.as_millis() / publishing.as_millis().max(1)).unwrap_or(1).max(1);
        let notified = Notified::new(items, values, connection.end());
        let session = connection.session();
        // Counted first: a Publish may be answered before this is.
        connection.subscriptions().fetch_add(1, Ordering::Relaxed);
        let created = session
            .create_subscription(publishing, keep_alive * LIFETIME, keep_alive, 0, 0, true, notified)
            .await;
        let id = created.inspect_err(|_| {
            connection.subscriptions().fetch_sub(1, Ordering::Relaxed);
        })?;
        let mut monitor = Monitor { connection: Arc::clone(connection), id, places: Vec::new() };
        let mut rest = items;
        let mut at_once = connection.items_max;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(at_once));
            match create_items(session, id, now).await {
                Ok(places) => monitor.places.extend(places),
                Err(error) if status::is_too_large(error.status()) && at_once > 1 => {
                    at_once = (now.len() / 2).max(1);
                    continue;
                }
                Err(error) => return Err(error),
            }
            rest = later;
        }
        Ok(monitor)
    }
}

/// The places of those that the server monitors.
async fn create_items(session: &Session, id: u32, items: &[Item<'_>]) -> Result<Vec<usize>, Error> {
    let requests = items.iter().map(request).collect();
    let created = session.create_monitored_items(id, TimestampsToReturn::Neither, requests).await?;
    let mut places = Vec::with_capacity(items.len());
    for (item, created) in items.iter().zip(created) {
        let code = created.result.status_code;
        if code.is_good() {
            places.push(item.place);
        } else if item.monitoring.deadband.is_some() {
            // Read in its cycle it would have none.
            tracing::warn!(node = %item.node, reason = status::named(code), "the server takes no `deadband` here: every change is told");
        } else {
            tracing::debug!(node = %item.node, reason = status::named(code), "not monitored; it is read in its cycle");
        }
    }
    Ok(places)
}

fn request(item: &Item<'_>) -> MonitoredItemCreateRequest {
    let filter = item.monitoring.deadband.map(|deadband_value| {
        ExtensionObject::from_message(DataChangeFilter {
            trigger: DataChangeTrigger::StatusValue,
            deadband_type: ABSOLUTE,
            deadband_value,
        })
    });
    let parameters = MonitoringParameters {
        client_handle: handle(item.place),
        sampling_interval: item.monitoring.sampling.as_secs_f64() * 1000.0,
        filter: filter.unwrap_or_else(ExtensionObject::null),
        queue_size: item.monitoring.queue,
        discard_oldest: true,
    };
    let node =
        ReadValueId { index_range: item.visitor.index.clone(), ..ReadValueId::from(item.node.clone()) };
    MonitoredItemCreateRequest::new(node, MonitoringMode::Reporting, parameters)
}

/// Handles begin with 1: the library gives one of its own to what has 0.
fn handle(place: usize) -> u32 {
    u32::try_from(place).map_or(u32::MAX, |place| place.saturating_add(1))
}

/// Takes what a server sends.
struct Notified {
    /// By handle: the place, the kind, and which part is meant.
    items: BTreeMap<u32, (usize, Kind, Part)>,
    /// What was sent last of each place.
    last: BTreeMap<usize, Result<Value, Fault>>,
    told_at: Instant,
    values: Subscription,
    end: watch::Sender<Option<String>>,
}

impl Notified {
    fn new(items: &[Item<'_>], values: Subscription, end: watch::Sender<Option<String>>) -> Self {
        let items = items
            .iter()
            .map(|item| (handle(item.place), (item.place, item.visitor.kind, item.visitor.part())));
        Notified { items: items.collect(), last: BTreeMap::new(), told_at: Instant::now(), values, end }
    }

    fn changed(&mut self, change: DataChangeNotification) {
        for item in change.monitored_items.into_iter().flatten() {
            let Some((place, kind, part)) = self.items.get(&item.client_handle) else { continue };
            if let Some(outcome) = values::of_data_value(&item.value, *kind, *part) {
                self.last.insert(*place, outcome.clone());
                self.values.push(*place, outcome);
            }
        }
    }
}

impl OnSubscriptionNotificationCore for Notified {
    fn on_subscription_notification(&mut self, message: NotificationMessage, _: MonitoredItemMap<'_>) {
        for data in message.notification_data.into_iter().flatten() {
            if data.inner_is::<DataChangeNotification>() {
                if let Some(change) = data.into_inner_as::<DataChangeNotification>() {
                    self.changed(*change);
                }
            } else if let Some(change) = data.inner_as::<StatusChangeNotification>()
                && change.status.is_bad()
            {
                let reason =
                    format!("the server has ended the subscription: {}", status::named(change.status));
                self.end.send_modify(|ended| *ended = ended.take().or(Some(reason.clone())));
            }
        }
        // The server lives, and what it has not sent again is as it was.
        if self.told_at.elapsed() >= SIGN_OF_LIFE.mul_f32(0.9) {
            self.told_at = Instant::now();
            for (place, outcome) in &self.last {
                self.values.push(*place, outcome.clone());
            }
        }
    }
}

/// A subscription whose connection ends is told so.
pub(crate) fn tell_the_end(connection: &Connection, values: Subscription) -> tokio::task::JoinHandle<()> {
    let mut ended = connection.ended();
    tokio::spawn(async move {
        let reason = match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "the connection is gone".to_owned(),
        };
        values.push(0, Err(Fault::Link(reason)));
    })
}
