//! What is looked at before anything is changed. Each check has a name, and says the cure where it fails.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use beehive::Env;
use config::edge::EdgeCore;
use contract::ids::HOLD_UPGRADE_ANNOTATION;
use edge_store::{StoreError, StoreInspector};
use serde_json::Value;

use crate::journal::Before;
use crate::process::Process;
use crate::{files, health, store_lock, trusted};

/// 16 MiB beside what is known to be needed, for what is written meanwhile.
const SPARE: u64 = 16 << 20;

/// What is said of a check that ends no order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Passed {
    /// It is as it has to be.
    Ok(String),
    /// It is as it has to be once the person who reads this has done this.
    ToDo(String),
    /// Nobody knows, and it goes on all the same.
    Unknown(String),
}

impl From<String> for Passed {
    fn from(says: String) -> Self {
        Passed::Ok(says)
    }
}

/// Says how a check came out; one that failed ends the order.
///
/// # Errors
/// With the check's name before what is wrong.
pub(crate) fn told<T, S: Into<Passed>>(
    check: &str,
    came: Result<T>,
    says: impl FnOnce(&T) -> S,
    say: &mut dyn FnMut(String),
) -> Result<T> {
    match came {
        Ok(value) => {
            let (sign, says) = match says(&value).into() {
                Passed::Ok(says) => ("ok     ", says),
                Passed::ToDo(what) => ("to do  ", what),
                Passed::Unknown(why) => ("unknown", why),
            };
            say(format!("{sign} {check}: {says}"));
            Ok(value)
        }
        Err(error) => {
            let error = anyhow!("{check}: {error:#}");
            say(format!("failed  {error}"));
            Err(error)
        }
    }
}

/// `EdgeCore`: one runs on the store, and its program is the file that has its name.
pub(crate) fn running(store: &Path) -> Result<(Process, PathBuf)> {
    let process = store_lock::edgecore_on(store).with_context(|| {
        let stranger = store_lock::stranger_on(store).map(|stranger| format!(" ({stranger})"));
        format!(
            "no edgecore runs on {}, so that nobody could see whether the new one does: start it (`systemctl start edgecore`){}",
            store.display(),
            stranger.unwrap_or_default()
        )
    })?;
    let program = process.program()?;
    trusted::program(&program)?;
    if !process.is_of(&program) {
        bail!("{} was exchanged while edgecore runs: restart it first", program.display());
    }
    if !fs::symlink_metadata(&program).is_ok_and(|found| found.is_file()) {
        bail!("{} is no regular file", program.display());
    }
    Ok((process, program))
}

/// Why a node is not touched, or nobody knows whether it may be.
#[derive(Debug)]
pub(crate) enum NotSeen {
    /// Somebody has asked that it is left as it is.
    Held,
    /// Its store cannot be read.
    Unreadable(StoreError),
}

impl From<NotSeen> for anyhow::Error {
    fn from(why: NotSeen) -> Self {
        match why {
            NotSeen::Unreadable(error) => error.into(),
            NotSeen::Held => anyhow!(
                "the Node has the annotation {HOLD_UPGRADE_ANNOTATION}: \"true\", so that it is left as it is: \
                 `kubectl annotate node NAME {HOLD_UPGRADE_ANNOTATION}-` releases it"
            ),
        }
    }
}

/// `Held`: nobody has asked that this node is left as it is.
pub(crate) fn not_held(store: &Path) -> Result<(), NotSeen> {
    let nodes = StoreInspector::open(store)
        .and_then(|store| store.entries(Some(apimachinery::resource::NODES), None, true))
        .map_err(NotSeen::Unreadable)?;
    let is_held = nodes.iter().filter_map(|node| node.value.as_deref()).any(|value| {
        let node: Value = serde_json::from_slice(value).unwrap_or_default();
        node["metadata"]["annotations"][HOLD_UPGRADE_ANNOTATION] == "true"
    });
    if is_held { Err(NotSeen::Held) } else { Ok(()) }
}

/// How the edgecore that runs is: no more is asked of it when it is started again.
pub(crate) async fn before(settings: &EdgeCore, env: &Env) -> Before {
    match settings.modules.edge_stream.socket() {
        Some(socket) if !health::ask(socket, env).await.is_ok_and(|said| said.is_well) => Before::Silent,
        _ => Before::Answered,
    }
}

/// `NodeReady`: edgecore is linked and the node Ready now, so that it can be seen whether the new one is.
pub(crate) async fn ready(settings: &EdgeCore, offline_ok: bool, env: &Env) -> Result<String> {
    if offline_ok {
        return Ok("not asked for (--offline-ok): it is enough that edgecore answers and stays".to_owned());
    }
    let Some(socket) = settings.modules.edge_stream.socket() else {
        bail!(
            "edgecore serves no socket at which it could be asked (modules.edgeStream.enable, modules.edgeStream.socket); \
             --offline-ok is content with an edgecore that stays"
        );
    };
    let said = health::ask(socket, env).await;
    let said = said.with_context(|| format!("edgecore does not answer at {}", socket.display()))?;
    match said.missing() {
        None => Ok("edgecore is linked and the node Ready".to_owned()),
        Some(missing) => bail!(
            "{missing} already now: mend that first, or take --offline-ok, with which it is enough that the new edgecore answers and stays"
        ),
    }
}

/// `Room`: on the disk of the programs for the new ones, on that of the store for the backup.
pub(crate) fn room(programs: (&Path, u64), store: (&Path, u64)) -> Result<String> {
    let of_disk = |folder: &Path| fs::metadata(folder).map(|found| found.dev()).ok();
    let wants = match of_disk(programs.0) == of_disk(store.0) {
        true => vec![(programs.0, programs.1.saturating_add(store.1))],
        false => vec![programs, store],
    };
    let mut found = Vec::new();
    for (folder, needed) in wants {
        let (needed, room) = (needed.saturating_add(SPARE), files::room_at(folder)?);
        if room < needed {
            bail!(
                "{} has {} MiB left, and {} MiB are needed: free some (`crictl rmi --prune`, journalctl --vacuum-size=100M)",
                folder.display(),
                room >> 20,
                (needed >> 20) + 1
            );
        }
        found.push(format!("{} MiB at {}", room >> 20, folder.display()));
    }
    Ok(found.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_has_to_do_and_what_nobody_knows_is_not_said_to_be_ok() {
        let mut said = Vec::new();
        let mut say = |line: String| said.push(line);
        for passed in ["a".to_owned().into(), Passed::ToDo("b".to_owned()), Passed::Unknown("c".to_owned())] {
            told("Check", Ok(passed), Passed::clone, &mut say).unwrap();
        }
        let failed = told("Check", Err::<(), _>(anyhow!("d")), |()| String::new(), &mut say).unwrap_err();
        assert_eq!(said, ["ok      Check: a", "to do   Check: b", "unknown Check: c", "failed  Check: d"]);
        assert_eq!(failed.to_string(), "Check: d");
    }
}
