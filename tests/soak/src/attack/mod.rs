//! One hostile certificate does all that it can, and somebody without one what he can: what CloudCore holds, and what others
//! feel.

mod cells;
mod cloud;
mod floods;
mod latency;
mod raw_link;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::{Console, Outcome};
use cloud::{AttackedCloud, HOSTILE};
use floods::Flood;
use latency::{Latencies, LatencyProbes};
use raw_link::{Identity, Transport};

/// 32 MiB: what CloudCore may hold more under any of them.
const MORE_MAX: f64 = 32.0;
/// Twice: what others may take longer, by their medians.
const SLOWER_MAX: f64 = 2.0;
/// 1 ms: round trips on loopback are so short that the scheduler's slices show. Less than that more is not told apart.
const SLICE: f64 = 1.0;
/// 50 ms between looks at the memory.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How it is done.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long each flood lasts, and the quiet before all of them.
    pub hold: Duration,
    /// Whether what others feel is judged, or only shown: a build without optimization spends on one handshake what others
    /// would be measured by.
    pub judge_others: bool,
}

/// Runs it. What goes wrong for good ends it and is a violation.
pub async fn run(name: &str, binaries: &Path, options: &Options, console: &Console) -> Outcome {
    Outcome::of("attacks on the link's ports", async |outcome| {
        story(name, binaries, options, console, outcome).await
    })
    .await
}

async fn story(
    name: &str,
    binaries: &Path,
    options: &Options,
    console: &Console,
    outcome: &mut Outcome,
) -> Result<()> {
    console.at("bringing up a CloudCore, and five nodes that join it");
    let mut target = AttackedCloud::start(name, binaries).await?;
    let loud = Identity { host: HOSTILE, ..target.join("loud").await? };
    let stay = [target.join("stays-0").await?, target.join("stays-1").await?];
    let come = [target.join("comes-0").await?, target.join("comes-1").await?];
    let watchers = LatencyProbes::start(&stay, &come);
    // What is made once is there then.
    tokio::time::sleep(options.hold / 2).await;
    let (quiet, _, ()) = watchers.during(async { sleep(options.hold).await }).await?;
    outcome.row("in quiet: round trip, new link", shown(quiet));
    console.at(&format!("quiet: {}", shown(quiet)));
    for flood in Flood::ALL {
        let (before, spent) = (target.resident()?, target.spent()?);
        let done = Arc::<AtomicU64>::default();
        let during = watchers.during(under(flood, &loud, &mut target, options.hold, &done));
        let (latencies, lost, peak) = during.await?;
        let more = peak - before;
        let deeds = done.load(Ordering::Relaxed);
        let core = (target.spent()? - spent) / options.hold.as_secs_f64() * 100.0;
        let row =
            format!("{more:5.1} MiB more; {}; {core:.0} % of a core; done {deeds} times", shown(latencies));
        console.at(&format!("{}: {row}; {} lost", flood.name(), lost.len()));
        outcome.row(&flood.name(), row);
        if more > MORE_MAX {
            outcome
                .violation(format!("{}: {more:.1} MiB more, at most {MORE_MAX} are allowed", flood.name()));
        }
        if let Some(said) = target.panicked() {
            anyhow::bail!("{}: a part of CloudCore panicked: {said}", flood.name());
        }
        if deeds == 0 {
            outcome.violation(format!("{}: it got nowhere, and so shows nothing", flood.name()));
        }
        if options.judge_others {
            judge(&flood.name(), quiet, latencies, outcome);
            lost.iter().for_each(|what| outcome.violation(format!("{}: {what}", flood.name())));
        }
    }
    Ok(())
}

async fn sleep(time: Duration) -> Result<()> {
    tokio::time::sleep(time).await;
    Ok(())
}

/// The most memory that CloudCore held meanwhile.
async fn under(
    flood: Flood,
    loud: &Identity,
    target: &mut AttackedCloud,
    hold: Duration,
    done: &Arc<AtomicU64>,
) -> Result<f64> {
    let begun = Instant::now();
    let mut peak = 0.0_f64;
    let looks = async {
        while begun.elapsed() < hold {
            target.check()?;
            peak = peak.max(target.resident()?);
            tokio::time::sleep(LOOK_EVERY).await;
        }
        anyhow::Ok(())
    };
    tokio::select! {
        looked = looks => looked?,
        ended = flood.run(loud, done) => ended?,
    }
    Ok(peak)
}

fn judge(name: &str, quiet: Latencies, latencies: Latencies, outcome: &mut Outcome) {
    for (at, transport) in Transport::BOTH.into_iter().enumerate() {
        let pairs = [
            ("round trip", quiet.round_trip[at], latencies.round_trip[at]),
            ("new link", quiet.link[at], latencies.link[at]),
        ];
        for (what, quiet, latencies) in pairs {
            let within = latencies <= quiet * SLOWER_MAX + SLICE;
            if !within {
                let transport = transport.name();
                outcome.violation(format!(
                    "{name}: a {what} over {transport} took {latencies:.1} ms, in quiet {quiet:.1} ms"
                ));
            }
        }
    }
}

fn shown(latencies: Latencies) -> String {
    let [quic, websocket] = latencies.round_trip;
    let [new_quic, new_websocket] = latencies.link;
    format!(
        "round trip {quic:.2} / {websocket:.2} ms, new link {new_quic:.1} / {new_websocket:.1} ms (QUIC / WebSocket)"
    )
}
