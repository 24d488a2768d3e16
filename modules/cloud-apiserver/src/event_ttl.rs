//! Events end: an hour after they were last written they are removed, as `kube-apiserver` has etcd do it (`--event-ttl`).
//! Without that they would fill the store, which is memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::resource;
use beehive::{Actor, Context, Fault, Message, Moment, Policy};
use futures::StreamExt;
use jiff::Timestamp;
use kubeapi::{Item, Range, Store, Write, WriteError};
use serde_json::{Value, json};

use crate::events;

/// An hour, as `kube-apiserver`'s `--event-ttl` has it.
pub(crate) const LIFE: Duration = Duration::from_secs(3600);
/// 500 events are looked at between two looks at what else there is to do on this thread.
const PAGE: usize = 500;
/// 64 removals at once: the store commits together what waits together.
const AT_ONCE: usize = 64;
/// It is looked 60 times in the life of an event, so that one lives for a minute of its hour longer at the most.
const LOOKS: u32 = 60;
/// 10 minutes for one sweep over a store that is full of events, each of whose removals waits for the disk.
const STUCK_AFTER: Duration = Duration::from_secs(600);

/// From itself.
#[derive(Debug)]
pub(crate) enum EventTtlMsg {
    /// It is time to look for events that are over.
    Sweep,
}

impl Message for EventTtlMsg {
    fn name(&self) -> &'static str {
        match self {
            EventTtlMsg::Sweep => "Sweep",
        }
    }
}

/// What came of one look at all events.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sweep {
    removed: u64,
    /// Why one could not be removed.
    failure: Option<String>,
}

/// Removes events whose time is over. It keeps nothing across its restart: what it finds then is as old as its own times say.
pub(crate) struct EventTtl<S> {
    store: Arc<S>,
    ttl: Duration,
    /// When each version of an event is over, by its revision. `None` before the first look.
    ends: Option<BTreeMap<u64, Moment>>,
    removed: u64,
}

impl<S: Store> EventTtl<S> {
    pub(crate) fn new(store: Arc<S>, ttl: Duration) -> Self {
        EventTtl { store, ttl, ends: None, removed: 0 }
    }

    /// How it is supervised.
    pub(crate) fn policy() -> Policy {
        Policy { stuck_after: STUCK_AFTER, ..Policy::default() }
    }

    /// Removes what is over. What is new since the last look was written just now; at the first look its own times count.
    async fn sweep(&mut self, now: Moment, wall: Timestamp) -> Result<Sweep, Fault> {
        let known = self.ends.take();
        let (mut ends, mut after, mut sweep) = (BTreeMap::new(), None, Sweep::default());
        loop {
            let range =
                Range { resource: resource::EVENTS.to_owned(), namespace: None, after, limit: Some(PAGE) };
            let page = self.store.list(range).await.map_err(|error| Fault::from_error(&error))?;
            let mut over = Vec::new();
            for item in &page.items {
                let end = match &known {
                    Some(known) => known.get(&item.revision).copied().unwrap_or(now + self.ttl),
                    None => now + self.ttl.saturating_sub(age(&item.json, wall)),
                };
                if end > now {
                    ends.insert(item.revision, end);
                } else {
                    over.push(item);
                }
            }
            for (revision, failure) in self.remove(&over, &mut sweep).await {
                // It is tried again at the next look.
                ends.insert(revision, now);
                sweep.failure = Some(failure.to_string());
            }
            after = page.items.last().map(|item| (item.key.namespace.clone(), item.key.name.clone()));
            if !page.more || after.is_none() {
                break;
            }
            tokio::task::yield_now().await;
        }
        self.ends = Some(ends);
        Ok(sweep)
    }

    /// Answers what could not be removed, by its revision, and why.
    async fn remove(&self, over: &[&Item], sweep: &mut Sweep) -> Vec<(u64, WriteError)> {
        let removals = over.iter().map(|item| async move {
            let write = Write::Delete { key: item.key.clone(), expected: item.revision };
            (item.revision, self.store.write(write).await)
        });
        let mut removals = futures::stream::iter(removals).buffer_unordered(AT_ONCE);
        let mut failed = Vec::new();
        while let Some((revision, outcome)) = removals.next().await {
            match outcome {
                Ok(_) => sweep.removed += 1,
                // Written anew since, or gone.
                Err(WriteError::Conflict { .. } | WriteError::Missing) => {}
                Err(error) => failed.push((revision, error)),
            }
        }
        failed
    }
}

/// How old a stored event is by what it says. The server wrote when it was made; of what others wrote the latest that is not
/// to come counts, so that nobody's clock and nobody's word keeps an event. One that does not say when it was made is new.
fn age(json: &[u8], wall: Timestamp) -> Duration {
    let event: Value = serde_json::from_slice(json).unwrap_or_default();
    let time = |pointer: &str| -> Option<Timestamp> {
        let time = event.pointer(pointer)?.as_str()?.parse().ok()?;
        (time <= wall).then_some(time)
    };
    let Some(made) = time("/metadata/creationTimestamp") else { return Duration::ZERO };
    let told = ["/lastTimestamp", "/series/lastObservedTime", "/eventTime"];
    let last = told.into_iter().filter_map(time).fold(made, Timestamp::max);
    Duration::try_from(wall.duration_since(last)).unwrap_or_default()
}

impl<S: Store> Actor for EventTtl<S> {
    type Message = EventTtlMsg;

    async fn started(&mut self, cx: &mut Context<EventTtlMsg>) -> Result<(), Fault> {
        cx.after(Duration::ZERO, EventTtlMsg::Sweep);
        Ok(())
    }

    async fn handle(&mut self, message: EventTtlMsg, cx: &mut Context<EventTtlMsg>) -> Result<(), Fault> {
        match message {
            EventTtlMsg::Sweep => {
                let wall = Timestamp::try_from(cx.env().wall()).unwrap_or_default();
                let sweep = self.sweep(cx.now(), wall).await?;
                if sweep.removed > 0 {
                    self.removed = self.removed.saturating_add(sweep.removed);
                    events::events_expired(cx.env(), sweep.removed);
                }
                if let Some(error) = sweep.failure {
                    events::events_not_removed(cx.env(), &error);
                }
                cx.after(self.ttl / LOOKS, EventTtlMsg::Sweep);
                Ok(())
            }
        }
    }

    fn snapshot(&self) -> Value {
        json!({ "events": self.ends.as_ref().map(BTreeMap::len), "removed": self.removed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::ObjectKey;
    use bytes::Bytes;
    use kubeapi::ReadStore;

    use crate::store::SqliteStore;

    const HOUR: Duration = LIFE;

    fn key(name: &str) -> ObjectKey {
        ObjectKey { resource: "events".into(), namespace: "d".into(), name: name.into() }
    }

    fn minute(minute: u64) -> Moment {
        Moment(Duration::from_secs(60 * minute))
    }

    fn json_of(event: &Value) -> Bytes {
        Bytes::from(event.to_string())
    }

    async fn names(store: &SqliteStore) -> Vec<String> {
        let range = Range { resource: "events".into(), namespace: None, after: None, limit: None };
        store.list(range).await.unwrap().items.into_iter().map(|item| item.key.name).collect()
    }

    #[tokio::test]
    async fn an_event_goes_an_hour_after_it_was_last_written_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(&folder.path().join("api.db")).unwrap());
        let mut ttl = EventTtl::new(Arc::clone(&store), HOUR);
        let mut sweep = async |moment, wall| {
            let Sweep { removed, failure } = ttl.sweep(moment, wall).await.unwrap();
            assert_eq!(failure, None);
            removed
        };
        let wall = Timestamp::from_second(1_800_000_000).unwrap();
        // More than a page of them, and times of theirs that are of no account while we are looking.
        let old = json_of(&json!({"metadata": {"creationTimestamp": "1990-01-01T00:00:00Z"}}));
        assert_eq!(sweep(minute(0), wall).await, 0);
        for n in 0..PAGE + 10 {
            store.write(Write::Create { key: key(&format!("e{n}")), json: old.clone() }).await.unwrap();
        }
        let pod = ObjectKey { resource: "pods".into(), ..key("p") };
        store.write(Write::Create { key: pod.clone(), json: old.clone() }).await.unwrap();
        assert_eq!(sweep(minute(1), wall).await, 0);
        let revision = store.get(&key("e7")).await.unwrap().unwrap().revision;
        let again = Write::Update { key: key("e7"), expected: revision, json: json_of(&json!({"count": 2})) };
        store.write(again).await.unwrap();
        assert_eq!(sweep(minute(2), wall).await, 0);
        assert_eq!(sweep(minute(60), wall).await, 0);
        assert_eq!(sweep(minute(61), wall).await, u64::try_from(PAGE + 9).unwrap());
        assert_eq!(names(&store).await, ["e7"]);
        assert_eq!(sweep(minute(62), wall).await, 1);
        assert!(store.get(&pod).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn what_is_there_at_the_start_is_as_old_as_the_server_says() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(&folder.path().join("api.db")).unwrap());
        let wall: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let event = |made: &str, last: &str| {
            json_of(&json!({"metadata": {"creationTimestamp": made}, "lastTimestamp": last}))
        };
        for (name, json) in [
            ("half", event("2026-01-01T11:30:00Z", "2026-01-01T11:30:00Z")),
            ("old", event("2026-01-01T10:00:00Z", "2026-01-01T10:00:00Z")),
            ("repeated", event("2026-01-01T10:00:00Z", "2026-01-01T11:59:00Z")),
            ("liar", event("2026-01-01T10:00:00Z", "2036-01-01T10:00:00Z")),
            ("late clock", event("2026-01-01T11:59:00Z", "1970-01-01T00:00:00Z")),
            ("no event", Bytes::from_static(b"{")),
        ] {
            store.write(Write::Create { key: key(name), json }).await.unwrap();
        }
        let mut ttl = EventTtl::new(Arc::clone(&store), HOUR);
        let mut sweep = async |moment, wall| {
            let Sweep { removed, failure } = ttl.sweep(moment, wall).await.unwrap();
            assert_eq!(failure, None);
            removed
        };
        assert_eq!(sweep(minute(0), wall).await, 2);
        assert_eq!(names(&store).await, ["half", "late clock", "no event", "repeated"]);
        // From then on the clock that nobody sets counts.
        let wall = "2046-01-01T12:00:00Z".parse().unwrap();
        assert_eq!(sweep(minute(29), wall).await, 0);
        assert_eq!(sweep(minute(30), wall).await, 1);
        assert_eq!(sweep(minute(60), wall).await, 3);
        assert_eq!(names(&store).await, Vec::<String>::new());
    }
}
