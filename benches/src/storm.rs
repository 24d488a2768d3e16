//! A fleet that comes back all at once: two thousand nodes against one CloudCore with its own API.
//!
//! CloudCore is the binary that ships, in a process of its own. The nodes share this process: each has the hub and the
//! redial policy that ship, its own certificate, its own QUIC endpoint and an answer to everything that its MetaManager is
//! asked, but no store and no pods.
//!
//! Two storms. First CloudCore is killed and started again: everybody finds it gone, and it knows nothing but what is on
//! its disk. Then all links but ten are ended together, and the ten are sent a change each second while the others return.

mod cloud;
mod edge;
mod fleet;
mod names;
mod watchers;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::stats::Summary;
use crate::table::{Bar, Row, Table, say};
use cloud::{Cloud, Usage};
use fleet::Fleet;

/// 60 s: until everybody holds what it should, as CloudCore itself says.
const SYNCED_WITHIN: f64 = 60.0;
/// Memory is bounded: at its peak it is no more than this many times what the same fleet takes at rest.
const PEAK: f64 = 2.0;
/// 2 s: what a change may take that goes to a node which was never away.
const DISTURBED: f64 = 2000.0;
/// Nodes that stay while the others come back.
const STAY: usize = 10;
/// How long the ten are watched in quiet.
const QUIET: Duration = Duration::from_secs(20);
/// Whatever is not there by then never will be.
const LONG: Duration = Duration::from_secs(600);
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(crate) fn run(binaries: &Path, edges: usize) -> Result<Table> {
    if edges <= STAY {
        bail!("{edges} edges are no storm: at least {}", STAY + 1);
    }
    say(&format!("\nstorm: bringing up CloudCore, and {edges} nodes with three objects each …"));
    actix_rt::System::new().block_on(measure(binaries, edges))
}

async fn measure(binaries: &Path, edges: usize) -> Result<Table> {
    let mut cloud = Cloud::start(binaries, edges).await?;
    let fleet = Fleet::new(&cloud, edges).await?;
    let first = until_synced(&mut cloud, &fleet, 0, Instant::now(), "joined").await?;
    // What was read from and written to the API for that is over.
    let rest = cloud.rest().await?;

    say("storm: killing CloudCore …");
    fleet.count_anew();
    cloud.kill();
    let cut = Instant::now();
    cloud.again().await?;
    let reachable = cut.elapsed();
    let after_kill = until_synced(&mut cloud, &fleet, 0, cut, "killed").await?;
    let (usage, pace) = (cloud.usage()?, fleet.pace(cut));
    let peak = usage.peak;
    print_usage("after the kill", &usage, after_kill.seconds);

    cloud.rest().await?;
    let quiet = fleet.watchers.beats(async {
        tokio::time::sleep(QUIET).await;
        Ok(())
    });
    let (quiet, ()) = quiet.await?;
    say("storm: ending all links but ten …");
    fleet.count_anew();
    let before = cloud.usage()?;
    let cut = Instant::now();
    let beside = fleet.watchers.beats(async {
        fleet.end_links().await;
        until_synced(&mut cloud, &fleet, STAY, cut, "cut").await
    });
    let (storm, after_cut) = beside.await?;
    let lost = fleet.ended();
    print_usage("after the cut", &cloud.usage()?.since(&before), after_cut.seconds);
    cloud.check()?;

    let mut table = Table::new("storm: a fleet comes back to one CloudCore at once");
    let mut add = |what: String, unit, ours, reference, bar| {
        table.add(Row { what, unit, ours, reference, bar });
    };
    let one = Summary::single;
    add(format!("{edges} nodes for the first time: all in sync"), "s", one(first.seconds), None, Bar::None);
    add(
        "CloudCore killed: its API is there again".into(),
        "s",
        one(reachable.as_secs_f64()),
        None,
        Bar::None,
    );
    add("killed: all linked".into(), "s", one(after_kill.linked), None, Bar::None);
    add("killed: all in sync".into(), "s", one(after_kill.seconds), None, Bar::AtMost(SYNCED_WITHIN));
    add("killed: a node's link is back".into(), "s", pace.linked, None, Bar::None);
    add("killed: dials of a node".into(), "", pace.dials, None, Bar::None);
    let at_rest = Some(("at rest", one(mega(rest.resident))));
    add("killed: CloudCore's memory at its peak".into(), "MB", one(mega(peak)), at_rest, Bar::Times(PEAK));
    add("cut: all in sync".into(), "s", one(after_cut.seconds), None, Bar::AtMost(SYNCED_WITHIN));
    let calm = Summary::of(&quiet).context("no change arrived in quiet")?;
    let busy = Summary::of(&storm).context("no change arrived in the storm")?;
    add("cut: a change to a node that stayed".into(), "ms", busy, Some(("in quiet", calm)), Bar::None);
    let worst = |samples: &[f64]| one(samples.iter().copied().fold(0.0, f64::max));
    let calm = Some(("in quiet", worst(&quiet)));
    add("cut: the slowest of them".into(), "ms", worst(&storm), calm, Bar::AtMost(DISTURBED));
    add("cut: links lost of those that stayed".into(), "", one(f64::from(lost)), None, Bar::AtMost(0.0));
    table.print();
    Ok(table)
}

struct Synced {
    /// When the last one was linked, as CloudCore says.
    linked: f64,
    /// When the last one was in sync.
    seconds: f64,
}

/// Looks once a second until everybody but the first few, who `stay`, has a new link, and CloudCore says that all are in sync.
async fn until_synced(
    cloud: &mut Cloud,
    fleet: &Fleet,
    stay: usize,
    since: Instant,
    what: &str,
) -> Result<Synced> {
    let mut linked = None;
    while since.elapsed() < LONG {
        cloud.check()?;
        let fleet_status = cloud.fleet_status().await.unwrap_or_default();
        say(&format!(
            "  {what} {:>5.1} s: {:>5} linked, {:>5} in sync; {:>6} dials",
            since.elapsed().as_secs_f64(),
            fleet_status.linked,
            fleet_status.in_sync,
            fleet.dials(),
        ));
        // CloudCore may not have seen yet that links have ended.
        let is_back = fleet.is_back(stay);
        if is_back && fleet_status.linked == fleet.len() && linked.is_none() {
            linked = Some(since.elapsed().as_secs_f64());
        }
        if is_back && fleet_status.in_sync == fleet.len() {
            let seconds = since.elapsed().as_secs_f64();
            return Ok(Synced { linked: linked.unwrap_or(seconds), seconds });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    bail!("not all nodes are in sync after {} s\n{}", LONG.as_secs(), cloud.tail())
}

/// Where CloudCore's time went.
fn print_usage(when: &str, usage: &Usage, seconds: f64) {
    say(&format!("\nCloudCore {when}: CPU by thread over {seconds:.1} s (user, system)"));
    for (thread, (user, system)) in &usage.threads {
        if user + system >= 0.05 {
            say(&format!("  {user:>7.2} s {system:>7.2} s  {thread}"));
        }
    }
    for (reason, count) in &usage.refused {
        say(&format!("  {count:>6} times sent away: {reason}"));
    }
    say(&format!("  memory {:.1} MB, peak {:.1} MB", mega(usage.resident), mega(usage.peak)));
}

#[allow(clippy::cast_precision_loss)] // far below 2^52
fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
