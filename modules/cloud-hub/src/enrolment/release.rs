//! Whether somebody lives under a name that is given back. `keadm reset` goes without an edgecore that runs there, which has closed its link: one that
//! is alive is of another machine with the same certificate, as of the one whose disk was copied.

use std::time::Duration;

use beehive::Clock;
use contract::NodeName;
use noderegistry::{Registry, RegistryError};

use crate::linked_nodes::LinkedNodes;

/// 4 s for the end of a link to be heard here: edgecore says that it goes, and where it was killed the kernel says so of TCP.
const ENDS_WITHIN: Duration = Duration::from_secs(4);
/// 12 s in which a node that is linked to another CloudCore has its Lease renewed: it is every 10.
const RENEWED_WITHIN: Duration = Duration::from_secs(12);
/// 100 s: a Lease that was renewed so long ago is nobody's who is alive, be clocks a minute apart.
const OLD_MICROS: i64 = 100_000_000;
/// How often it is looked.
const LOOKED_EVERY: Duration = Duration::from_millis(500);
/// How often the API server is asked.
const ASKED_EVERY: Duration = Duration::from_secs(2);

/// Whether the node is linked, to this CloudCore or another one, and stays so. Takes at most [`ENDS_WITHIN`] and [`RENEWED_WITHIN`].
///
/// # Errors
/// When the API server does not say.
pub(super) async fn is_alive(
    node: &NodeName,
    linked: &LinkedNodes,
    registry: &Registry,
    clock: &dyn Clock,
) -> Result<bool, RegistryError> {
    let begun = clock.now();
    while linked.has(node) {
        if clock.now().since(begun) >= ENDS_WITHIN {
            return Ok(true);
        }
        clock.sleep(LOOKED_EVERY).await;
    }
    let Some((session, first)) = registry.last_renewal(node).await? else { return Ok(false) };
    let now = jiff::Timestamp::try_from(clock.wall()).map_or(0, jiff::Timestamp::as_microsecond);
    let is_ended_here = linked.last_ended(node).is_some_and(|ended| ended >= session);
    if is_ended_here || now.abs_diff(first) > OLD_MICROS.unsigned_abs() {
        return Ok(false);
    }
    let begun = clock.now();
    while clock.now().since(begun) < RENEWED_WITHIN {
        clock.sleep(ASKED_EVERY).await;
        let is_renewed = registry.last_renewal(node).await?.is_some_and(|(_, last)| last != first);
        if is_renewed || linked.has(node) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What whoever gives it back is told.
pub(super) fn still_linked(node: &NodeName) -> String {
    format!(
        "a machine is linked as `{node}` now, so that this is not the only one with its certificate: the name stays that one's. Where these files are a copy \
         of its disk, `keadm reset --force` removes them; where edgecore was killed here a moment ago, wait a minute and try again"
    )
}
