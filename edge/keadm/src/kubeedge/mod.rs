//! A node moves over from KubeEdge, and back: `keadm join --from-kubeedge` and `keadm reset --to-kubeedge`. [The guide](../../FROM-KUBEEDGE.md)
//! has the order of the steps for a cluster.
//!
//! Nothing of KubeEdge's is written: its settings and its database are read, its unit file is renamed, its certificates are not touched.
//! So the way back is the same for a node that has just moved over and for one that did so a month ago.

mod import;
mod service;
mod settings;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use beehive::Env;
use contract::NodeName;
use edge_store::{KubeEdgeRows, Options, Store, StoreError, Write};

pub use self::service::Machine;
use self::service::{Exchanged, UNIT, UnitState};
use crate::config_location::ConfigLocation;
use crate::debug::check;
use crate::files::{is_there, write};
use crate::join::{Enrolment, Join};
use crate::reset::reset;

/// Beside `edgecore.yaml`: what is needed for the way back.
const RECORD: &str = "from-kubeedge.json";
/// 64 KiB of it.
const RECORD_MAX: u64 = 64 << 10;
/// 256 rows in a commit, or 8 MiB.
const BATCH_ROWS: usize = 256;
const BATCH_BYTES: usize = 8 << 20;

/// What a node has from before.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Record {
    v: u32,
    /// KubeEdge's unit as it was found.
    before: UnitState,
    exchanged: Exchanged,
}

fn record_of(config: &ConfigLocation) -> PathBuf {
    config.file.with_file_name(RECORD)
}

/// The name that KubeEdge's settings give the node; `None`: they leave it to the host.
///
/// # Errors
/// When the settings are not there or not understood.
pub fn kubeedge_node(from: &Path) -> Result<Option<String>> {
    Ok(Some(settings::read(from)?.node).filter(|name| !name.is_empty()))
}

/// Joins with what KubeEdge's edgecore has on this machine: its settings at `from`, its database, its running containers. KubeEdge's
/// edgecore is stopped for that and started again if anything fails.
///
/// # Errors
/// A sentence with the cure; everything is as it was then.
pub async fn join_from_kubeedge(
    order: &Join,
    from: &Path,
    machine: &Machine,
    env: &Env,
    say: &mut dyn FnMut(String),
) -> Result<()> {
    let record = record_of(&order.config);
    if is_there(&record) {
        bail!(
            "{} is there: this node has moved over already, and `keadm reset --to-kubeedge` takes it back",
            record.display()
        );
    }
    let found = settings::read(from)?;
    if !found.node.is_empty() && found.node != order.node {
        bail!(
            "the node is `{}` to KubeEdge (modules.edged.hostnameOverride in {}), and what it holds is of no other: leave --edgenode-name out",
            found.node,
            from.display()
        );
    }
    // The file of KubeEdge that lies where a link would.
    let order = Join { config: ConfigLocation { link: None, ..order.config.clone() }, ..order.clone() };
    let plan = Enrolment::plan(&order, found.base, say)?;
    let store = &plan.settings.database.data_source;
    if is_there(store) {
        bail!("{} is there already: run `keadm reset` first, or move it away", store.display());
    }
    found.said.into_iter().for_each(&mut *say);
    if !found.carried.is_empty() {
        say(format!("taken over from {}: {}", from.display(), found.carried.join(", ")));
    }
    let before = look(machine, &order, env).await?;
    check::before_join(&plan.settings, check::Joins::FromKubeEdge, env, say).await;
    if before.is_active && !before.is_ours {
        machine.stop().await?;
        say(format!("stopped {UNIT} of KubeEdge"));
    }
    let moved = move_over(&plan, (&found.database, machine), &before, env, say).await;
    let Err(error) = moved else { return Ok(()) };
    let has_joined = is_there(&order.config.file);
    let (undone, restored) = undo(&order, store, (machine, &before), has_joined).await;
    Err(error.context(match undone {
        Ok(()) => restored,
        Err(undone) => format!("{restored}, but: {}", daemon::sentence(&undone)),
    }))
}

/// Looks at the unit and at the programs.
async fn look(machine: &Machine, order: &Join, env: &Env) -> Result<UnitState> {
    let own = machine.edgecore();
    let version = nodeupgrade::says_version(&own, "edgecore", env).await.with_context(|| {
        format!(
            "{} is to be the edgecore of this release: copy it beside keadm, and both to another folder than KubeEdge's",
            own.display()
        )
    })?;
    let before = machine.look(&order.config.file).await?;
    if let Some(fragment) = before.fragment.as_deref().filter(|_| !before.is_ours) {
        let text = fs::read_to_string(fragment).unwrap_or_default();
        if text.split(['=', ' ', '\n']).any(|word| Path::new(word) == own) {
            bail!(
                "{} starts {}, which is edgecore {version} now: put KubeEdge's edgecore back there, and this release into another folder",
                fragment.display(),
                own.display()
            );
        }
    }
    Ok(before)
}

/// All that follows once KubeEdge's edgecore is stopped.
async fn move_over(
    plan: &Enrolment<'_>,
    (database, machine): (&Path, &Machine),
    before: &UnitState,
    env: &Env,
    say: &mut dyn FnMut(String),
) -> Result<()> {
    let holders = machine.holders(database)?;
    if !holders.is_empty() {
        let numbers: Vec<String> = holders.iter().map(u32::to_string).collect();
        bail!(
            "{} is open in process {}: end KubeEdge's edgecore first",
            database.display(),
            numbers.join(", ")
        );
    }
    take_over(plan, database, env, say).await?;
    plan.enrol(say).await?;
    let config = &plan.order().config;
    // Before anything is exchanged: whatever happens then, there is a way back.
    let exchanged = machine.exchange_of(before);
    let record = Record { v: 1, before: before.clone(), exchanged: exchanged.clone() };
    write(&record_of(config), &serde_json::to_string_pretty(&record)?, 0o600)?;
    machine.exchange(&exchanged, &config.file).await?;
    if let Some(kept) = &exchanged.kept {
        say(format!("KubeEdge's unit is kept beside {}", kept.display()));
    }
    let node = &plan.node;
    if machine.systemctl.is_some() {
        machine
            .begin()
            .await
            .context("the node has joined, and its edgecore does not start: `systemctl status edgecore`")?;
        say(format!(
            "node `{node}` has moved over, and {UNIT} runs; `keadm reset --to-kubeedge` takes it back"
        ));
    } else {
        say(format!(
            "node `{node}` has moved over; start {} --config {}",
            machine.edgecore().display(),
            config.file.display()
        ));
    }
    Ok(())
}

/// Fills the node's store with what KubeEdge's database holds.
async fn take_over(
    plan: &Enrolment<'_>,
    database: &Path,
    env: &Env,
    say: &mut dyn FnMut(String),
) -> Result<()> {
    let path = &plan.settings.database.data_source;
    let mut copy = path.clone().into_os_string();
    copy.push(".import");
    let rows = match edge_store::read_kubeedge(database, Path::new(&copy)) {
        Ok(rows) => rows,
        Err(StoreError::Missing { .. }) => {
            say(format!(
                "{} is not there: nothing is taken over, and the cloud sends what it has",
                database.display()
            ));
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let imported = import::plan(&rows, plan.node.as_str());
    say_imported(&rows, &imported, database, say);
    let mut options = Options::new(env.random_id());
    options.node = Some(plan.node.to_string());
    let store = Store::open(path, options)?;
    for batch in batches(imported.writes) {
        store.commit(batch).await?;
    }
    drop(store);
    Ok(())
}

/// Parts that are committed by themselves: a store that was left half filled is removed.
fn batches(writes: Vec<Write>) -> Vec<Vec<Write>> {
    let mut batches = vec![Vec::new()];
    let mut bytes = 0;
    for write in writes {
        let size = match &write {
            Write::PutObject { json, .. } => json.len(),
            _ => 0,
        };
        let is_full = |batch: &Vec<Write>| batch.len() >= BATCH_ROWS || bytes + size > BATCH_BYTES;
        if batches.last().is_some_and(|batch| !batch.is_empty() && is_full(batch)) {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(batch) = batches.last_mut() {
            batch.push(write);
        }
    }
    batches
}

fn say_imported(
    rows: &KubeEdgeRows,
    imported: &import::Imported,
    database: &Path,
    say: &mut dyn FnMut(String),
) {
    let counted = |counts: &std::collections::BTreeMap<String, usize>| {
        let counts: Vec<String> = counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        counts.join(", ")
    };
    let shown = database.display();
    say(match imported.taken.is_empty() {
        true => format!("{shown} holds nothing of this node"),
        false => format!("taken over from {shown}: {}", counted(&imported.taken)),
    });
    for line in rows.named.iter().chain(&imported.left_out) {
        say(format!("left out: {line}"));
    }
    let unnamed = usize::try_from(rows.damaged).unwrap_or(usize::MAX).saturating_sub(rows.named.len());
    if unnamed + imported.unnamed > 0 {
        say(format!("left out: {} more", unnamed + imported.unnamed));
    }
    for table in &rows.uncounted {
        say(format!("left out: rows of table {table} that cannot be read; how many is not known"));
    }
    if !imported.passed_over.is_empty() {
        say(format!("not needed: {}", counted(&imported.passed_over)));
    }
    for pod in &imported.static_pods {
        say(format!(
            "static pod {pod} is not taken over: its containers run on as they are. To have it run here, end them (`crictl rmp -f`) and \
             copy its file into the folder of static pods"
        ));
    }
}

/// Puts everything back as it was. A node that has joined gives its name back. Answers whether that worked, and how it stands.
async fn undo(
    order: &Join,
    store: &Path,
    (machine, before): (&Machine, &UnitState),
    has_joined: bool,
) -> (Result<()>, String) {
    let back = async {
        if has_joined {
            let exchanged = machine.exchange_of(before);
            machine.stop_ours(&exchanged).await?;
            machine.restore(&exchanged, before, &order.config.file).await?;
            // What the cloud does not take back now `keadm free` does.
            reset(&order.config, true, &mut |_| {}).await?;
            drop(fs::remove_file(record_of(&order.config)));
        } else {
            remove_store(store)?;
        }
        if before.is_active && !before.is_ours {
            machine.start().await.context("KubeEdge's edgecore does not start again")?;
        }
        Ok(())
    };
    let undone: Result<()> = back.await;
    let restored = match before.is_active && !before.is_ours {
        true => "the node has not moved over, and KubeEdge's edgecore runs again",
        false => "the node has not moved over",
    };
    let token = if has_joined { "; the token is used up: `keadm gettoken --edgenode-name`" } else { "" };
    (undone, format!("{restored}{token}"))
}

/// Removes a store that nobody has used yet.
fn remove_store(path: &Path) -> Result<()> {
    for suffix in ["", "-wal", "-shm", ".key", ".lock"] {
        let mut file = path.as_os_str().to_owned();
        file.push(suffix);
        match fs::remove_file(&file) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot remove {}", Path::new(&file).display()));
            }
        }
    }
    Ok(())
}

/// Whether this machine's node came from KubeEdge and may go back: a plain reset says so.
pub fn came_from_kubeedge(config: &ConfigLocation) -> bool {
    is_there(&record_of(config))
}

/// Takes the node back to KubeEdge: what `join` wrote goes, KubeEdge's unit comes back and runs. Containers run on.
///
/// # Errors
/// When the node did not come from KubeEdge; as [`reset`]; when systemd does not do its part. What is left is done by the same
/// command.
pub async fn back_to_kubeedge(
    config: &ConfigLocation,
    force: bool,
    machine: &Machine,
    say: &mut dyn FnMut(String),
) -> Result<()> {
    let path = record_of(config);
    let missing = || format!("{} is not there: this node did not come from KubeEdge", path.display());
    let size = fs::symlink_metadata(&path).with_context(missing)?.len();
    if size > RECORD_MAX {
        bail!("{} has {size} bytes, which no record has", path.display());
    }
    let text = fs::read_to_string(&path).with_context(missing)?;
    let record: Record =
        serde_json::from_str(&text).with_context(|| format!("{} is not understood", path.display()))?;
    if record.v != 1 {
        bail!("{} is of a later release: go back with its keadm", path.display());
    }
    let node = config.file.exists().then(|| config::edge::EdgeCore::load(&config.file)).transpose()?;
    let node = node.map(|settings| settings.modules.edged.hostname_override).unwrap_or_default();
    machine.stop_ours(&record.exchanged).await?;
    // The second time the first part may be done.
    if is_there(&config.file) {
        reset(config, force, say).await?;
    }
    machine.restore(&record.exchanged, &record.before, &config.file).await?;
    if let Some(unit) = &record.exchanged.kept {
        say(format!("{} is KubeEdge's again", unit.display()));
    }
    if record.before.is_active && !record.before.is_ours {
        machine.start().await.context("KubeEdge's edgecore does not start: `systemctl status edgecore`, then `keadm reset --to-kubeedge` again")?;
        say(format!("{UNIT} of KubeEdge runs"));
    }
    fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    let name = NodeName::parse(&node).map_or_else(|_| "NODE".to_owned(), |node| node.to_string());
    say(format!(
        "the node is KubeEdge's again, with its containers; in the cluster: `keadm adopt {name} --undo`. Its twins are as KubeEdge had \
         them, and devices report anew"
    ));
    Ok(())
}
