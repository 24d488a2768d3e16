//! What `edgecore` has said and an external broker has not acknowledged: a session as a client of the own broker has it, with the
//! broker in the client's place, and its rows in the same table.

use std::cell::RefCell;
use std::rc::Rc;

use beehive::{Env, Fault, Moment};
use edge_store::{Row, Store};
use tokio::sync::{Mutex, Notify};

use crate::access::Rights;
use crate::bus::Said;
use crate::events::{self, Counters};
use crate::identity::EXTERNAL;
use crate::keeper::STORE_PAUSE;
use crate::kept_time::KeptTime;
use crate::message::Message;
use crate::outbox::Outbox;
use crate::plan;
use crate::session::{ConnectionHandle, Delivery, EnqueueOutcome, KEPT_FOR_EVER, Restored, Session};

/// See the module.
pub(super) struct Outbound {
    session: RefCell<Session>,
    /// There is something for the store.
    to_store: Notify,
    /// Held by who brings something there.
    storing: Mutex<()>,
    time: KeptTime,
    counts: Counters,
}

impl Outbound {
    /// With what the store has of it.
    pub(super) fn restore(rows: &[Row], time: KeptTime, now: Moment, counts: Counters) -> Rc<Self> {
        let session = match Restored::read(rows, Rights::KubeEdge, time.clocks(now)) {
            Some(Restored { session, strange }) => {
                if strange > 0 {
                    tracing::warn!(
                        strange,
                        "rows of what goes to an external MQTT broker are not understood and left out"
                    );
                }
                session
            }
            None => Session::new(KEPT_FOR_EVER, Rights::KubeEdge),
        };
        let session = session.with_room(plan::EXTERNAL_MESSAGES, plan::EXTERNAL_BYTES);
        let (session, to_store, storing) = (RefCell::new(session), Notify::new(), Mutex::new(()));
        let outbound = Outbound { session, to_store, storing, time, counts };
        // A session that is new has a row that is not in the store yet.
        outbound.to_store.notify_one();
        Rc::new(outbound)
    }

    /// Puts something into the queue; what has no room is lost, and counted.
    pub(super) fn put(&self, said: Said) {
        let Said { topic, payload, .. } = said;
        let message = Rc::new(Message::of_node(topic, payload, 1, false));
        let outcome = self.session.borrow_mut().put(&message, Delivery { qos: 1, ..Delivery::default() });
        match outcome {
            EnqueueOutcome::Queued => self.counts.message_in(),
            EnqueueOutcome::NotKept | EnqueueOutcome::Dropped | EnqueueOutcome::Lost => {
                self.counts.qos1_lost(EXTERNAL, &message.topic);
            }
        }
        self.to_store.notify_one();
    }

    /// A connection is there: what was not acknowledged is said again.
    pub(super) fn attach(&self, handle: &Rc<ConnectionHandle>) {
        self.session.borrow_mut().attach(Rc::clone(handle));
    }

    pub(super) fn detach(&self) {
        self.session.borrow_mut().handle = None;
    }

    pub(super) fn fill(&self, out: &mut Outbox, now: Moment) {
        let count = self.session.borrow_mut().fill(out, now);
        self.counts.messages_out(count);
    }

    pub(super) fn acknowledged(&self, pkid: u16) {
        self.session.borrow_mut().acknowledged(pkid);
        self.to_store.notify_one();
    }

    /// Messages that were not acknowledged.
    pub(super) fn waiting(&self) -> usize {
        self.session.borrow().waiting()
    }

    fn due(&self) -> (bool, bool) {
        self.session.borrow().to_store()
    }
}

/// Brings into the store what waits, until it is dropped.
pub(super) async fn keep(outbound: Rc<Outbound>, store: Store, env: Env) {
    loop {
        let (any, is_urgent) = outbound.due();
        if !any {
            outbound.to_store.notified().await;
            continue;
        }
        if !is_urgent {
            // What only has to go is taken along with the next.
            env.timeout(plan::LAZY_STORE, outbound.to_store.notified()).await;
        }
        if !store_once(&outbound, &store, &env).await {
            env.sleep(STORE_PAUSE).await;
        }
    }
}

/// Whether the store took what there was.
pub(super) async fn store_once(outbound: &Outbound, store: &Store, env: &Env) -> bool {
    let _storing = outbound.storing.lock().await;
    let mut writes = Vec::new();
    let clocks = outbound.time.clocks(env.now());
    let keys = outbound.session.borrow_mut().take_writes(EXTERNAL, clocks, &mut writes);
    if writes.is_empty() {
        return true;
    }
    let began = env.now();
    let Err(error) = store.commit(writes).await else { return true };
    events::retained_not_stored(env, &Fault::from_error(&error).reason, env.now().since(began));
    outbound.session.borrow_mut().not_written(keys);
    false
}
