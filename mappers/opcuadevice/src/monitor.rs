//! What a server sends by itself: a subscription with a monitored item for each property (Part 4 §5.13, §5.14).

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use framework::{Fault, Kind, Subscription};
use opcua_client::{MonitoredItemMap, OnSubscriptionNotificationCore};
use opcua_types::{DataChangeNotification, Error, NotificationMessage, StatusChangeNotification};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::connection::Connection;
use crate::items::{Item, create_items, handle};
use crate::last_sent::LastSent;
use crate::looks::{Looks, Watched, lock};
use crate::reads::Reads;
use crate::status;
use crate::values;
use crate::visitor::{Monitoring, Part};

/// 20 ms to 1 s between two messages of a server, as fast as its fastest property.
const PUBLISHING: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// 5 s: so often at least a server says that it lives when nothing changes, and so often what is steady is told again.
const SIGN_OF_LIFE_MAX: Duration = Duration::from_secs(5);
/// 30 s without a sign of life that a server could deliver until it forgets the subscription.
const LIFETIME: Duration = Duration::from_secs(30);
/// A minute between two looks whether a server has what it has sent.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(60);

/// A subscription at a server. It is taken back when it is dropped.
#[derive(Debug)]
pub(crate) struct Monitor {
    connection: Arc<Connection>,
    id: u32,
    /// The places that the server sends.
    pub(crate) places: Vec<usize>,
    /// Looks at them now and then.
    looking: Option<JoinHandle<()>>,
}

impl Drop for Monitor {
    fn drop(&mut self) {
        if let Some(looking) = &self.looking {
            looking.abort();
        }
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
        items: Vec<Item>,
        values: Subscription,
        look_every: Duration,
    ) -> Result<Monitor, Error> {
        let sign_of_life = sign_of_life(items.iter().map(|item| &item.monitoring));
        let publishing = items.iter().map(|item| item.monitoring.sampling).min().unwrap_or(PUBLISHING.1);
        let publishing = publishing.clamp(PUBLISHING.0, PUBLISHING.1).min(sign_of_life);
        let deadbands = items.iter().map(|item| (item.place, item.monitoring.deadband));
        let told = Arc::new(Mutex::new(LastSent::of(deadbands)));
        let notified =
            Notified::new(&items, Arc::clone(&told), values.clone(), sign_of_life, connection.end());
        let session = connection.session();
        let mut losses = connection.lost_publishes();
        losses.mark_unchanged();
        // Counted first: a Publish may be answered before this is.
        connection.subscriptions().fetch_add(1, Ordering::Relaxed);
        let (lifetime, keep_alive) = (times(LIFETIME, publishing), times(sign_of_life, publishing));
        let created =
            session.create_subscription(publishing, lifetime, keep_alive, 0, 0, true, notified).await;
        let id = created.inspect_err(|_| {
            connection.subscriptions().fetch_sub(1, Ordering::Relaxed);
        })?;
        let mut monitor =
            Monitor { connection: Arc::clone(connection), id, places: Vec::new(), looking: None };
        let mut items_max = connection.items_max;
        let ids = create_items(session, id, &items.iter().collect::<Vec<_>>(), &mut items_max).await?;
        monitor.places = ids.keys().copied().collect();
        let watched = |item: Item| ids.get(&item.place).map(|id| Watched::new(item, *id));
        let looks = Looks {
            session: connection.shared_session(),
            subscription: id,
            items: items.into_iter().filter_map(watched).collect(),
            told,
            values,
            reads: Reads::new(connection.reads_max),
            items_max,
            losses,
            is_bounded: false,
        };
        monitor.looking = Some(tokio::spawn(looks.every(look_every)));
        Ok(monitor)
    }
}

/// How often a server is to say that it lives: as often as the most often told of these is told again, so that none of them looks dead.
fn sign_of_life<'a>(items: impl Iterator<Item = &'a Monitoring>) -> Duration {
    let told_every = items.filter_map(|item| item.told_every).min();
    told_every.unwrap_or(SIGN_OF_LIFE_MAX).clamp(PUBLISHING.0, SIGN_OF_LIFE_MAX)
}

/// How many of these go into that; one at least.
fn times(all: Duration, one: Duration) -> u32 {
    u32::try_from(all.as_millis() / one.as_millis().max(1)).unwrap_or(1).max(1)
}

/// Takes what a server sends.
struct Notified {
    /// By handle: the place, the kind, and which part is meant.
    items: BTreeMap<u32, (usize, Kind, Part)>,
    told: Arc<Mutex<LastSent>>,
    told_at: Instant,
    values: Subscription,
    sign_of_life: Duration,
    end: watch::Sender<Option<String>>,
}

impl Notified {
    fn new(
        items: &[Item],
        told: Arc<Mutex<LastSent>>,
        values: Subscription,
        sign_of_life: Duration,
        end: watch::Sender<Option<String>>,
    ) -> Self {
        let items = items
            .iter()
            .map(|item| (handle(item.place), (item.place, item.visitor.kind, item.visitor.part())));
        Notified { items: items.collect(), told, told_at: Instant::now(), values, sign_of_life, end }
    }

    fn changed(&mut self, change: DataChangeNotification) {
        // Pushed under the lock: what a look finds meanwhile is not told after it.
        let mut told = lock(&self.told);
        for item in change.monitored_items.into_iter().flatten() {
            let Some((place, kind, part)) = self.items.get(&item.client_handle) else { continue };
            if let Some(outcome) = values::of_data_value(&item.value, *kind, *part) {
                told.sent(*place, outcome.clone());
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
        // The server lives: what it has not sent again counts as it was, until the next look. The next sign may be as late as one and a half.
        if self.told_at.elapsed() >= self.sign_of_life / 2 {
            self.told_at = Instant::now();
            for (place, outcome) in lock(&self.told).all() {
                self.values.push(place, outcome.clone());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_says_that_it_lives_as_often_as_a_value_is_to_be_told() {
        let of = |told_every: &[Option<u64>]| {
            let item = |millis: &Option<u64>| Monitoring {
                sampling: Duration::from_millis(10),
                queue: 1,
                deadband: None,
                told_every: millis.map(Duration::from_millis),
            };
            let items: Vec<Monitoring> = told_every.iter().map(item).collect();
            sign_of_life(items.iter()).as_millis()
        };
        assert_eq!(of(&[Some(10_000), Some(1000), None]), 1000);
        assert_eq!(of(&[Some(10_000), None]), 5000);
        assert_eq!(of(&[None]), 5000);
        assert_eq!(of(&[Some(10)]), 20, "no server says anything more often");
    }
}
