//! Brings what outlives the daemon into the store, and ends what is over by time.

use std::rc::Rc;
use std::time::Duration;

use beehive::{Env, Fault};
use edge_store::Store;
use futures::stream::{FuturesUnordered, StreamExt};

use crate::shared::Shared;
use crate::{connection, events, plan};

/// 5 s: a store that is full or read-only is tried again.
pub(crate) const STORE_PAUSE: Duration = Duration::from_secs(5);

/// 5 ms between two looks whether subscribers have been written the last messages.
const WRITTEN_LOOK: Duration = Duration::from_millis(5);

/// Brings retained messages, sessions and wills into the store as they change.
pub(crate) async fn keep(shared: Rc<Shared>, store: Store) {
    let changed = Rc::clone(&shared.broker.borrow().to_store);
    loop {
        let (any, is_urgent) = due(&shared);
        if !any {
            changed.notified().await;
            continue;
        }
        if !is_urgent {
            // What only has to go is taken along with the next.
            let pause = shared.env.now() + plan::LAZY_STORE;
            while !due(&shared).1 {
                let left = pause.since(shared.env.now());
                if left.is_zero() || shared.env.timeout(left, changed.notified()).await.is_none() {
                    break;
                }
            }
        }
        if !store_once(&shared, &store, &shared.env).await {
            shared.env.sleep(STORE_PAUSE).await;
        }
    }
}

/// Whether there is something for the store, and whether somebody waits for that, be it only to hear that nothing is left.
fn due(shared: &Shared) -> (bool, bool) {
    let broker = shared.broker.borrow();
    let (any, is_urgent) = broker.to_store();
    let is_waited_for = broker.change() > *shared.stored.borrow();
    (any || is_waited_for, is_urgent || is_waited_for)
}

/// Whether the store took what there was.
pub(crate) async fn store_once(shared: &Shared, store: &Store, env: &Env) -> bool {
    // One at a time: whoever comes later, the end of the broker included, knows then that the earlier is over.
    let _storing = shared.storing.lock().await;
    let mut batch = shared.broker.borrow_mut().take_batch(shared.time.clocks(env.now()));
    let change = batch.change;
    let writes = std::mem::take(&mut batch.writes);
    let mut taken = true;
    if !writes.is_empty() {
        let began = env.now();
        if let Err(error) = store.commit(writes).await {
            let (reason, tried) = (Fault::from_error(&error).reason, env.now().since(began));
            events::retained_not_stored(env, &reason, tried);
            shared.broker.borrow_mut().not_taken(batch);
            taken = false;
        }
    }
    if taken {
        shared.broker.borrow_mut().taken();
    }
    // Also when it failed: the message is delivered and kept here, and the store is tried again.
    shared.stored.send_replace(change);
    taken
}

/// Publishes what connected clients have left for their end, before a broker that ends closes their connections: to subscribers and into
/// the store, as long as these are quick. What is not settled by then is published again at the next start.
pub(crate) async fn publish_last_wills(shared: &Rc<Shared>) {
    let wills = shared.broker.borrow_mut().begin_end();
    if wills.is_empty() {
        return;
    }
    let until = shared.env.now() + plan::LAST_WILLS;
    let publishing: FuturesUnordered<_> = wills
        .into_iter()
        .map(|(client, will)| connection::publish_will(Rc::clone(shared), client, will))
        .collect();
    shared.env.timeout(plan::LAST_WILLS, publishing.collect::<()>()).await;
    while !shared.broker.borrow().is_written() && !until.since(shared.env.now()).is_zero() {
        shared.env.sleep(WRITTEN_LOOK).await;
    }
}

/// Ends sessions and publishes wills when their time has come.
pub(crate) async fn end_in_time(shared: Rc<Shared>) {
    let timers = Rc::clone(&shared.broker.borrow().timers);
    let mut publishing = FuturesUnordered::new();
    loop {
        let now = shared.env.now();
        let (wills, next) = shared.broker.borrow_mut().sweep(now);
        for (client, will) in wills {
            publishing.push(connection::publish_will(Rc::clone(&shared), client, will));
        }
        let pause = next.map_or(Duration::from_secs(3600), |next| next.since(now));
        tokio::select! {
            () = timers.notified() => {}
            () = shared.env.sleep(pause) => {}
            Some(()) = publishing.next(), if !publishing.is_empty() => {}
        }
    }
}
