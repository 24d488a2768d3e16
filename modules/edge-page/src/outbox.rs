//! What of the store is on the page. Blocks.

use contract::edgepage::ViewBounds;
use contract::{UpReport, rows};
use edge_store::{Class, Store};
use serde_json::Value;

use crate::facts::{OldestReport, OutboxView};

/// What is known without a look at the file.
pub(crate) fn figures(store: &Store) -> OutboxView {
    let (snapshot, (rows_max, bytes_max)) = (store.snapshot(), store.telemetry_bounds());
    OutboxView {
        rows: snapshot.outbox_rows,
        bytes: snapshot.outbox_bytes,
        rows_max,
        bytes_max,
        refused: snapshot.refused,
        disk_refuses: snapshot.trouble,
        ..OutboxView::default()
    }
}

/// The size of the store, and the report that has waited for longest.
pub(crate) fn read(store: &Store, bounds: ViewBounds) -> (Option<u64>, Option<OldestReport>) {
    let head = store.outbox_head(1, 1).unwrap_or_default();
    let oldest = head.into_iter().next().map(|row| OldestReport {
        class: row.class.as_str(),
        key: bounds.cut(&row.key),
        unix: (row.class != Class::Telemetry).then(|| when(&row.body)).flatten(),
    });
    (store.size_on_disk().ok(), oldest)
}

/// Of when a report is, where it says so.
fn when(body: &[u8]) -> Option<i64> {
    let at = |json: &str, pointer: &str| {
        let value: Value = serde_json::from_str(json).ok()?;
        let time: jiff::Timestamp = value.pointer(pointer)?.as_str()?.parse().ok()?;
        Some(time.as_second())
    };
    match rows::decode_report(body).ok()? {
        UpReport::Event { event_json, .. } => at(&event_json, "/lastTimestamp"),
        UpReport::Node { node_json } => at(&node_json, "/status/conditions/0/lastHeartbeatTime"),
        UpReport::Twin { reported: Some(value), .. } => {
            let milliseconds: i64 = value.metadata.get("timestamp")?.parse().ok()?;
            Some(milliseconds / 1000)
        }
        UpReport::Twin { .. }
        | UpReport::PodStatus { .. }
        | UpReport::PodGone { .. }
        | UpReport::MirrorPod { .. }
        | UpReport::ClaimExpansion { .. }
        | UpReport::DeviceConditions { .. }
        | UpReport::MethodCalls { .. }
        | UpReport::NodeTask(_)
        | UpReport::DeviceState { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use edge_store::{Options, OutboxQueue, Write};

    use super::*;

    #[tokio::test]
    async fn the_first_that_waits_is_named_with_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("db"), Options::new([1; 16])).unwrap();
        let bounds = ViewBounds { rows: 1, parts: 1, text: 8 };
        assert_eq!(read(&store, bounds).1, None);
        let event = |second: u8| {
            let event_json = format!(r#"{{"lastTimestamp":"1970-01-01T00:00:0{second}Z"}}"#);
            rows::encode_report(&UpReport::Event { namespace: "d".into(), name: "e".into(), event_json })
                .unwrap()
        };
        let append = |body: Vec<u8>, class| Write::Enqueue {
            queue: OutboxQueue::Node,
            class,
            key: "event/d/e".into(),
            body,
        };
        store.commit(vec![append(event(7), Class::Event), append(event(9), Class::Event)]).await.unwrap();
        let oldest = OldestReport { class: "event", key: "event/d/…".into(), unix: Some(7) };
        assert_eq!(read(&store, bounds).1, Some(oldest));
        assert!(read(&store, bounds).0.is_some_and(|bytes| bytes > 0));
        let figures = figures(&store);
        assert_eq!((figures.rows, figures.refused, figures.disk_refuses), (2, 0, None));
        assert!(figures.bytes > 0 && figures.rows_max > 1000 && figures.bytes_max > 1 << 20);
        assert_eq!(when(b"broken"), None);
    }
}
