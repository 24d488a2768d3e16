//! A node for tests on a [`testhost::TestHost`]: a real runtime, a real store, Edged in a hive, and somebody in MetaManager's place;
//! with EdgeCsi and ContainerManager beside it where a test wants them. There is no cloud: objects are put into the store, and what
//! the node reports is read from its outbox.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod kubelet;
mod machine;
mod node;
mod objects;
mod reports;

use std::future::Future;
use std::time::Duration;

pub use kubelet::{kubelet_hash, made_by_a_kubelet};
pub use machine::Machine;
pub use node::{Heard, Node, Plan, Stopped};
pub use objects::{WAITS, condition, container, container_id, deleted, first, forget, pod, put, text, uid};
pub use reports::Reports;

/// 90 s: longer than anything takes on a machine that has much else to do.
pub const SOON: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Runs a test on one thread, as a daemon's hive does.
pub fn run<F: Future>(test: F) -> F::Output {
    actix_rt::System::new().block_on(test)
}

/// Looks again and again until there is something, or [`SOON`] is over.
pub async fn eventually<T>(mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let looks = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(SOON, looks).await.ok()
}
