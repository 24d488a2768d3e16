//! What a node's daemon weighs at rest.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::proc;
use crate::stats::Summary;
use crate::table::{Bar, Row, Table, say};
use crate::testbed::Testbed;

/// 15 MB of resident memory and 15 MB on disk (KubeEdge: 132 and 100).
const RESIDENT_MAX: f64 = 15.0;
const DISK_MAX: f64 = 15.0;
/// A minute: heartbeats, looks at the runtime and the node's first report are over.
const REST: Duration = Duration::from_secs(60);
/// Two heartbeats and a look at disks and logs are in it.
const LOOKS: usize = 15;
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(crate) fn run(binaries: &Path) -> Result<Table> {
    say("\nfootprint: bringing up a node, and waiting until it rests …");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(binaries))
}

async fn measure(binaries: &Path) -> Result<Table> {
    let mut testbed = Testbed::new(binaries).await?;
    let samples = at_rest(&mut testbed).await?;
    let edge = proc::memory(testbed.edgecore.id())?;
    let cloud = proc::memory(testbed.cloudcore.id())?;
    let on_disk = |name: &str| -> Result<f64> {
        Ok(mega(std::fs::metadata(binaries.join(name)).with_context(|| format!("size of {name}"))?.len()))
    };
    let mut table =
        Table::new("footprint: edgecore joined, Ready and idle, with its broker (MB = 1 000 000 bytes)");
    let mut add = |what: &str, unit, ours, bar| {
        table.add(Row { what: what.to_owned(), unit, ours, reference: None, bar });
    };
    let resident = Summary::of(&samples).context("no samples")?;
    add("edgecore, resident", "MB", resident, Bar::AtMost(RESIDENT_MAX));
    add("edgecore, proportional", "MB", Summary::single(mega(edge.proportional)), Bar::None);
    add("edgecore, of it anonymous", "MB", Summary::single(mega(edge.anonymous)), Bar::None);
    #[allow(clippy::cast_precision_loss)] // a handful
    add("edgecore, threads", "", Summary::single(edge.threads as f64), Bar::None);
    add("edgecore, on disk", "MB", Summary::single(on_disk("edgecore")?), Bar::AtMost(DISK_MAX));
    add("cloudcore with its own API, resident", "MB", Summary::single(mega(cloud.resident)), Bar::None);
    add("cloudcore, on disk", "MB", Summary::single(on_disk("cloudcore")?), Bar::None);
    add("keadm, on disk", "MB", Summary::single(on_disk("keadm")?), Bar::None);
    table.print();
    say("edgecore's resident memory by mapping:");
    for (what, bytes) in proc::by_mapping(testbed.edgecore.id())? {
        say(&format!("  {:>6.2} MB  {what}", mega(bytes)));
    }
    Ok(table)
}

/// What is resident after an idle minute, looked at for a while.
async fn at_rest(testbed: &mut Testbed) -> Result<Vec<f64>> {
    tokio::time::sleep(REST).await;
    let mut samples = Vec::new();
    for _ in 0..LOOKS {
        tokio::time::sleep(LOOK_EVERY).await;
        testbed.edgecore.check()?;
        testbed.cloudcore.check()?;
        samples.push(mega(proc::memory(testbed.edgecore.id())?.resident));
    }
    Ok(samples)
}

#[allow(clippy::cast_precision_loss)] // far below 2^52
fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
