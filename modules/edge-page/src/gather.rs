//! Makes the page: asks those who own the facts, all at once, and writes them down beside the hive's thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use beehive::{Address, AskError, Env, Moment};
use bytes::Bytes;
use contract::devicetwin::TwinMsg;
use contract::edged::EdgedMsg;
use contract::edgehub::EdgeHubMsg;
use contract::edgepage::{MadePage, ViewBounds};
use edge_store::Store;

use crate::facts::{Facts, OldestReport, OutboxView};
use crate::{events, outbox, view};

/// 2 s for each of them to answer: an actor that is busy for longer is shown as that.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// 128 pods or devices, 16 properties of a device, 512 bytes of a text: a sentence with its cure.
const BOUNDS: ViewBounds = ViewBounds { rows: 128, parts: 16, text: 512 };

/// Who is asked.
#[derive(Clone)]
pub(crate) struct Owners {
    pub(crate) hub: Address<EdgeHubMsg>,
    pub(crate) edged: Address<EdgedMsg>,
    pub(crate) twin: Address<TwinMsg>,
    pub(crate) store: Store,
    /// A read of the store is under way: a disk that does not answer holds up one thread, and not one for each page.
    pub(crate) is_reading: Arc<AtomicBool>,
}

/// Makes a page; `None`: there was no thread to write it down on.
pub(crate) async fn make(owners: Owners, node: String, env: Env) -> Option<MadePage> {
    let Owners { hub, edged, twin, .. } = &owners;
    let (link, node_view, devices, outbox) = futures::join!(
        hub.ask(ANSWER_WITHIN, |reply| EdgeHubMsg::Describe { bounds: BOUNDS, reply }),
        edged.ask(ANSWER_WITHIN, |reply| EdgedMsg::Describe { bounds: BOUNDS, reply }),
        twin.ask(ANSWER_WITHIN, |reply| TwinMsg::Describe { bounds: BOUNDS, reply }),
        look_at_outbox(&owners, &env),
    );
    let unix = env.wall().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let facts = Facts {
        node,
        version: buildinfo::TEXT,
        unix: i64::try_from(unix).unwrap_or(i64::MAX),
        running_seconds: env.now().since(Moment::default()).as_secs(),
        link: known("edge-hub", link, &env),
        outbox,
        node_view: known("edge-edged", node_view, &env),
        devices: known("edge-devicetwin", devices, &env),
    };
    let written = env.blocking(move || MadePage {
        html: Bytes::from(view::page(&facts)),
        // Structs of texts and numbers can be written always.
        json: Bytes::from(serde_json::to_vec(&facts).unwrap_or_default()),
    });
    env.timeout(ANSWER_WITHIN, written).await?.ok()
}

fn known<T>(who: &str, answer: Result<T, AskError>, env: &Env) -> Option<T> {
    answer.inspect_err(|_| events::unanswered(env.metrics(), who)).ok()
}

/// The outbox; its head and the size of the file only if the disk answers.
async fn look_at_outbox(owners: &Owners, env: &Env) -> OutboxView {
    let figures = outbox::figures(&owners.store);
    if owners.is_reading.swap(true, Ordering::AcqRel) {
        return figures;
    }
    let (store, reading) = (owners.store.clone(), Reading(Arc::clone(&owners.is_reading)));
    let read = env.blocking(move || {
        let read = outbox::read(&store, BOUNDS);
        drop(reading);
        read
    });
    let (store_bytes, oldest): (Option<u64>, Option<OldestReport>) =
        match env.timeout(ANSWER_WITHIN, read).await {
            Some(Ok(read)) => read,
            Some(Err(_)) | None => {
                events::unanswered(env.metrics(), "the node's store");
                (None, None)
            }
        };
    OutboxView { store_bytes, oldest, ..figures }
}

/// A read of the store, until it ends.
struct Reading(Arc<AtomicBool>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
