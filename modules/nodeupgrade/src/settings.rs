//! Other values in `edgecore.yaml`, until edgecore is stopped: the checks, the new file beside the old one, a copy of the old one. The
//! supervisor does the rest as it does an upgrade.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use beehive::Env;
use config::edge::EdgeCore;
use config::{ChangedBy, EdgeUpdate, FILE_MAX};

use crate::backup::Backup;
use crate::checks::{self, told};
use crate::exchange::{Exchange, When};
use crate::files;
use crate::journal::{Event, Journal};
use crate::node::{Node, look};
use crate::order::{Order, SETTINGS};
use crate::prepare::{Prepared, begin, seconds};

/// Whether the machine fits to settings, or why edgecore would not start with them on it. Blocks.
pub type Fits = fn(&EdgeCore) -> Result<(), String>;

/// Looks whether the file may have these values by their keys, as far as whoever it is `by` may change them, and whether the machine
/// fits to all of it then, and writes it anew beside itself. [`crate::supervise`] does the rest.
///
/// # Errors
/// With the name of the check that failed, and its cure. Nothing is changed then.
pub async fn prepare_settings(
    order: &Order,
    values: &[(&str, &str)],
    (by, fits): (ChangedBy, Fits),
    env: &Env,
    say: &mut dyn FnMut(String),
) -> Result<Prepared> {
    let node = look(order, Event::ConfigUpdate, env, say).await?;
    // A link stays one: it is the file that is exchanged.
    let path = std::fs::canonicalize(&order.config).context("where edgecore.yaml is")?;
    let old = files::read(&path, FILE_MAX)?;
    let updated = update(&node.settings, &path, &old, values, (by, fits));
    let Some(updated) = told("Settings", updated, words, say)? else { return Ok(Prepared::Already) };
    let file = SettingsFile { path: &path, old: &old, new: &updated.text };
    lay_ready(&node, order, &file, env, say).await
}

/// Takes the settings of a backup of the version that runs: its programs stay as they are.
///
/// # Errors
/// As [`prepare_settings`].
pub(crate) async fn prepare_from_backup(
    node: &Node,
    order: &Order,
    backup: &Backup,
    env: &Env,
    say: &mut dyn FnMut(String),
) -> Result<Prepared> {
    let path = std::fs::canonicalize(&order.config).context("where edgecore.yaml is")?;
    let old = files::read(&path, FILE_MAX)?;
    let says = |text: &String| match text.as_bytes() == old {
        true => "edgecore.yaml is as in the backup: there is nothing to do".to_owned(),
        false => format!("edgecore {} runs, and gets the settings of the backup", node.version),
    };
    let text = told("Settings", of_backup(node, backup), says, say)?;
    if text.as_bytes() == old {
        return Ok(Prepared::Already);
    }
    lay_ready(node, order, &SettingsFile { path: &path, old: &old, new: &text }, env, say).await
}

/// The settings of a backup, as they were copied.
fn of_backup(node: &Node, backup: &Backup) -> Result<String> {
    let file = backup
        .file(SETTINGS)
        .with_context(|| format!("the backup {} has no edgecore.yaml", backup.folder.display()))?;
    let place = backup.place(file);
    let bytes = files::read(&place, FILE_MAX)?;
    if files::sum_of(&mut bytes.as_slice(), FILE_MAX)?.0 != file.sha256 {
        bail!("{} is damaged: its SHA-256 is not that of the day it was made", place.display());
    }
    let settings = EdgeCore::load(&place)?;
    if let Some(key) = watched(&node.settings, &settings) {
        bail!(
            "`{key}` of the backup is another one, by which the supervisor would not find edgecore: copy {} to {}, and restart edgecore",
            place.display(),
            file.path.display()
        );
    }
    String::from_utf8(bytes).with_context(|| format!("{} is no text", place.display()))
}

/// `edgecore.yaml`, and what it is to be.
struct SettingsFile<'a> {
    path: &'a Path,
    old: &'a [u8],
    new: &'a str,
}

/// Lays the new file beside the old one, and leaves the journal where the supervisor begins.
async fn lay_ready(
    node: &Node,
    order: &Order,
    file: &SettingsFile<'_>,
    env: &Env,
    say: &mut dyn FnMut(String),
) -> Result<Prepared> {
    let length = file.new.len() as u64;
    let needed = (file.old.len() as u64).saturating_add(length);
    let room = checks::room((files::folder_of(file.path), length), (files::folder_of(node.store()), needed));
    told("Room", room, String::clone, say)?;
    let mut journal = begin(node, order, Event::ConfigUpdate, env, say).await?;
    journal.to_version = node.version.to_string();
    journal.program = Some(node.program.clone());
    journal.exchanges = vec![Exchange::candidate(file.path.to_owned())];
    let made = node.journals.save(&journal).and_then(|()| stage(node, file));
    finish(node, journal, made, seconds(env), say)
}

fn words(updated: &Option<EdgeUpdate>) -> String {
    match updated {
        None => "they are so already: there is nothing to do".to_owned(),
        Some(EdgeUpdate { keeps_comments: true, .. }) => "edgecore.yaml may have these values".to_owned(),
        Some(_) => {
            "edgecore.yaml may have these values; it is written in a way in which its comments do not stay"
                .to_owned()
        }
    }
}

/// `before`: with what edgecore runs.
fn update(
    before: &EdgeCore,
    path: &Path,
    old: &[u8],
    values: &[(&str, &str)],
    (by, fits): (ChangedBy, Fits),
) -> Result<Option<EdgeUpdate>> {
    let text = std::str::from_utf8(old).with_context(|| format!("{} is no text", path.display()))?;
    let updated = EdgeUpdate::of_text(path, text, values.iter().copied(), by)?;
    if let Some(key) = updated.as_ref().and_then(|updated| watched(before, &updated.settings)) {
        bail!(
            "`{key}` is where the supervisor looks for edgecore: change it in the file, and restart edgecore"
        );
    }
    if let Some(updated) = &updated {
        // Of the whole file as it becomes: what was set since somebody looked is in it.
        fits(&updated.settings)
            .map_err(anyhow::Error::msg)
            .context("with these values edgecore would not start on this machine")?;
    }
    Ok(updated)
}

/// What is another one, of what the supervisor finds edgecore by.
fn watched(before: &EdgeCore, after: &EdgeCore) -> Option<&'static str> {
    if before.database.data_source != after.database.data_source {
        Some("database.dataSource")
    } else if before.modules.edge_stream.socket() != after.modules.edge_stream.socket() {
        Some("modules.edgeStream.socket")
    } else {
        None
    }
}

/// Writes the new file beside the old one, with its owner and mode, and copies the old one into the folder of the journal.
fn stage(node: &Node, file: &SettingsFile<'_>) -> Result<Exchange> {
    let SettingsFile { path, old, new: text } = *file;
    let waits = Exchange::staged(path);
    let at = || format!("cannot write {}", waits.display());
    let (_, found) = files::look_at(path)?;
    let mode = files::mode_of(path)?;
    let mut file = files::make(&waits, mode)?;
    fchown(&file, Some(found.uid()), Some(found.gid())).with_context(at)?;
    file.write_all(text.as_bytes()).with_context(at)?;
    file.sync_all().with_context(at)?;
    files::sync_folder_of(&waits)?;
    let backup = node.journals.path().join(SETTINGS);
    files::replace(&backup, old, mode)?;
    let sum = |mut bytes: &[u8]| files::sum_of(&mut bytes, FILE_MAX).map(|(sum, _)| sum);
    let (old, new) = (sum(old)?, sum(text.as_bytes())?);
    Ok(Exchange {
        path: path.to_owned(),
        old,
        new,
        when: When::Swap,
        backup,
        is_edited: true,
        is_update: true,
    })
}

/// Leaves the journal where the supervisor begins; or notes why it does not come to that.
fn finish(
    node: &Node,
    mut journal: Journal,
    made: Result<Exchange>,
    now: u64,
    say: &mut dyn FnMut(String),
) -> Result<Prepared> {
    match made {
        Ok(exchange) => {
            journal.note(now, &Ok("edgecore.yaml may have these values".to_owned()));
            journal.progress.succeeded();
            let said = format!("{} is copied to {}", exchange.path.display(), exchange.backup.display());
            journal.exchanges = vec![exchange];
            say(format!("ok      BackUp: {said}"));
            journal.note(now, &Ok(said));
            journal.progress.succeeded();
            node.journals.save(&journal)?;
            Ok(Prepared::Ready)
        }
        Err(error) => {
            let why = format!("{error:#}");
            journal.note(now, &Err(why.clone()));
            journal.progress.failed(&why);
            journal.exchanges.iter().for_each(Exchange::forget);
            // The cause is told to whoever waits; a disk that is full keeps nothing.
            drop(node.journals.report(&journal));
            drop(node.journals.save(&journal));
            Err(anyhow!("{why}. Nothing was changed"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_supervisor_finds_edgecore_by_stays() {
        let before = EdgeCore::default();
        let with = |key: &str, value: &str| watched(&before, &before.with([(key, value)]).unwrap());
        assert_eq!(with("database.dataSource", "/x.db"), Some("database.dataSource"));
        for (key, value) in [("modules.edgeStream.socket", "/x.sock"), ("modules.edgeStream.enable", "false")]
        {
            assert_eq!(with(key, value), Some("modules.edgeStream.socket"));
        }
        assert_eq!(with("modules.edgeHub.heartbeat", "20"), None);
    }

    /// A machine that takes one of two settings.
    fn one_of_both(settings: &EdgeCore) -> Result<(), String> {
        let hub = &settings.modules.edge_hub;
        let is_both = hub.heartbeat == 20 && !hub.rotate_certificates;
        if is_both { Err("there is no CPU 5".to_owned()) } else { Ok(()) }
    }

    #[test]
    fn values_that_the_machine_takes_alone_and_not_beside_what_stands_there_by_now_are_refused() {
        let before = EdgeCore::default();
        let update = |text: &str, key: &str, value: &str| {
            let how = (ChangedBy::Administrator, one_of_both as Fits);
            update(&before, Path::new("edgecore.yaml"), text.as_bytes(), &[(key, value)], how)
        };
        let (beat, rotates) = ("modules.edgeHub.heartbeat", "modules.edgeHub.rotateCertificates");
        assert!(update("modules: {edgeHub: {heartbeat: 15}}", rotates, "false").unwrap().is_some());
        let first = update("modules: {edgeHub: {heartbeat: 15}}", beat, "20").unwrap().unwrap();
        let why = format!("{:#}", update(&first.text, rotates, "false").unwrap_err());
        assert!(why.contains("would not start") && why.ends_with("there is no CPU 5"), "{why}");
    }
}
