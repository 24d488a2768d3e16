//! `keadm config-update`: other values in `edgecore.yaml`, and edgecore started with them. What is exchanged and how it comes back is
//! `modules/nodeupgrade`, as with an upgrade.

use anyhow::Result;
use beehive::Env;
use clap::Args;
use config::ChangedBy;
use config::edge::EdgeCore;
use nodeupgrade::Prepared;

use crate::join::pairs;
use crate::upgrade::{OfHealth, hand_over};

/// Writes values into edgecore.yaml, and restarts edgecore.
///
/// A key that edgecore.yaml does not have, a value of another type and values with which edgecore would not start are refused, and nothing
/// is changed then. Comments and the order of the file stay. A supervisor of its own stops edgecore, exchanges the file, starts edgecore, and waits
/// until the node is linked and Ready. If it is not in time, the file that was there before is put back; else that is kept as
/// edgecore.yaml.before. `keadm upgrade edge --status` shows how it went.
#[derive(Args)]
pub struct ConfigUpdate {
    /// A value: a.b.c=value, lists as JSON; again for each
    #[arg(long, required = true)]
    set: Vec<String>,
    /// Change nothing but what a ConfigUpdateJob may: edgecore says so for one
    #[arg(long)]
    by_job: bool,
    #[command(flatten)]
    health: OfHealth,
}

/// What edgecore asks at its start, too.
fn fits(settings: &EdgeCore) -> Result<(), String> {
    edge_containermanager::fits(&settings.modules.edged)
}

/// `keadm config-update`.
///
/// # Errors
/// When a check fails, or the file that was there before had to be put back.
pub async fn config_update(order: &ConfigUpdate, env: &Env, say: &mut dyn FnMut(String)) -> Result<()> {
    let values = pairs(&order.set)?;
    // What edgecore has examined is judged here once more: this is what writes the file.
    let by = if order.by_job { ChangedBy::Job } else { ChangedBy::Administrator };
    match nodeupgrade::prepare_settings(&order.health.order()?, &values, (by, fits), env, say).await? {
        Prepared::Already => Ok(()),
        Prepared::Ready => hand_over(&order.health.config, env, say).await,
    }
}
