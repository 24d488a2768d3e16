//! The way back to a backup, until edgecore is stopped.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use beehive::Env;
use config::edge::EdgeCore;

use crate::backup;
use crate::checks::told;
use crate::fetch::fetch_backup;
use crate::journal::Event;
use crate::node::look;
use crate::order::{Order, SETTINGS};
use crate::prepare::{Prepared, begin, finish};
use crate::settings::prepare_from_backup;

/// Takes the programs and settings of a backup as the new ones: of the version that is named, else of the newest one before. It goes
/// without an edgecore that runs, and from one that cannot. Of the version that runs itself it takes the settings alone.
///
/// # Errors
/// As [`prepare`]; and when there is no such backup, or the store is to be put back and the program is not another one.
pub async fn prepare_rollback(
    order: &Order,
    named: Option<&str>,
    with_store: bool,
    env: &Env,
    say: &mut dyn FnMut(String),
) -> Result<Prepared> {
    let looked = look(order, Event::Rollback, env, say).await;
    let node =
        looked.with_context(|| by_hand(&order.config).unwrap_or_else(|| "nothing was changed".to_owned()))?;
    let backup = backup::find(node.store(), named, &node.version);
    let backup =
        told("Backup", backup, |found| format!("{} in {}", found.version, found.folder.display()), say)?;
    if node.version.is(&backup.version) {
        if with_store {
            bail!(
                "--restore-store: edgecore {} runs, whose store this is: it is put back with the program of another version alone",
                node.version
            );
        }
        return prepare_from_backup(&node, order, &backup, env, say).await;
    }
    let mut journal = begin(&node, order, Event::Rollback, env, say).await?;
    journal.to_version = backup.version.to_string();
    journal.store_from = with_store.then(|| backup.store());
    let staged = fetch_backup(&node, order, &backup, env, say).await;
    finish(&node, order, journal, staged, Some(&backup.folder), env, say)?;
    Ok(Prepared::Ready)
}

/// What to do where `edgecore.yaml` cannot be read, which says where the store is and so the backups: the way by hand, if there are backups at
/// the usual place.
fn by_hand(config: &Path) -> Option<String> {
    EdgeCore::load(config).err()?;
    let newest = backup::list(&EdgeCore::default().database.data_source).ok()?.into_iter().next()?;
    let settings = newest.place(newest.file(SETTINGS)?);
    Some(format!(
        "{} cannot be read: mend it, or copy that of the backup of {} over it (cp {} {}), and start edgecore",
        config.display(),
        newest.version,
        settings.display(),
        config.display()
    ))
}
