//! A link over which nothing happens: what it costs, and how soon both ends notice that it is gone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::log::{CLOUD_UNLINKED, NODE_UNLINKED};
use crate::metrics::Metrics;
use crate::relay::{Direction, LinkFault, Packet};
use crate::testbed::{LONG, NODE};
use crate::{Console, Outcome, Testbed};

/// 250 bit/s each way, as packets of IP.
const BAR: f64 = 250.0;
/// Within 10 s each end knows that the other is gone. What it takes to say so, and to be read, comes on top.
const NOTICE: Duration = Duration::from_millis(10_250);
/// How long a link that has just come up is left alone: addresses are validated and packet sizes are probed for.
const CALM: Duration = Duration::from_secs(30);
/// Sizes that are told.
const SIZES: usize = 12;

/// How it is done.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long is counted.
    pub length: Duration,
    /// Whether each packet is told.
    pub packets: bool,
}

/// Runs it.
pub async fn run(testbed: &mut Testbed, options: &Options, console: &Console) -> Outcome {
    Outcome::of("an idle link", async |outcome| story(testbed, options, console, outcome).await).await
}

async fn story(
    testbed: &mut Testbed,
    options: &Options,
    console: &Console,
    outcome: &mut Outcome,
) -> Result<()> {
    in_sync(testbed).await?;
    tokio::time::sleep(CALM).await;
    console.at(&format!("counting for {} s", options.length.as_secs()));
    testbed.relay.capture();
    let begun = Instant::now();
    while begun.elapsed() < options.length {
        tokio::time::sleep(Duration::from_secs(1).min(options.length.saturating_sub(begun.elapsed()))).await;
        testbed.check()?;
    }
    let (packets, time) = (testbed.relay.captured(), begun.elapsed());
    if options.packets {
        Packet::tell(&packets, begun, console);
    }
    for (direction, name) in [(Direction::Up, "up"), (Direction::Down, "down")] {
        let found = Figures::of(&packets, direction, time);
        outcome.row(
            &format!("{name}, bar {BAR} bit/s"),
            format!("{:.0} bit/s: {} B in {} packets", found.bits_per_second, found.bytes, found.packets),
        );
        outcome.row(&format!("{name}: packets of IP by their size"), found.shown_sizes());
        if found.packets == 0 {
            outcome.violation(format!("nothing at all went {name}: it was not this link that was measured"));
        }
        if found.bits_per_second > BAR {
            outcome.violation(format!("{name}: {:.0} bit/s", found.bits_per_second));
        }
    }
    silence(testbed, outcome).await
}

struct Figures {
    bytes: usize,
    packets: usize,
    sizes: BTreeMap<usize, usize>,
    bits_per_second: f64,
}

impl Figures {
    fn of(packets: &[Packet], direction: Direction, time: Duration) -> Figures {
        let mut sizes = BTreeMap::new();
        for packet in packets.iter().filter(|packet| packet.direction == direction) {
            *sizes.entry(packet.bytes()).or_insert(0) += 1;
        }
        let bytes = sizes.iter().map(|(size, count)| size * count).sum::<usize>();
        let packets = sizes.values().sum();
        Figures { bytes, packets, sizes, bits_per_second: 8.0 * bytes as f64 / time.as_secs_f64() }
    }

    /// The sizes that cost most.
    fn shown_sizes(&self) -> String {
        let mut sizes: Vec<(&usize, &usize)> = self.sizes.iter().collect();
        sizes.sort_by_key(|(size, count)| std::cmp::Reverse(*size * *count));
        let shown = sizes.iter().take(SIZES).map(|(size, count)| format!("{count} × {size} B"));
        shown.collect::<Vec<_>>().join(", ")
    }
}

/// Waits until the node holds what it should.
pub(crate) async fn in_sync(testbed: &mut Testbed) -> Result<()> {
    testbed
        .until("the node is in sync", LONG, async |testbed| {
            let metrics = Metrics::read(testbed.monitor()).await?;
            Ok((metrics.of("kubehive_node_in_sync", NODE) == Some(1.0)).then_some(()))
        })
        .await?;
    Ok(())
}

/// The link is cut without a word.
async fn silence(testbed: &mut Testbed, outcome: &mut Outcome) -> Result<()> {
    let (mut cloud, mut node) = testbed.words()?;
    let begun = Instant::now();
    testbed.relay.inject(LinkFault::Cut);
    let (mut by_cloud, mut by_node) = (None, None);
    while by_cloud.is_none() || by_node.is_none() {
        if begun.elapsed() > LONG {
            bail!("60 s after a cut: noticed by the cloud {by_cloud:?}, by the node {by_node:?}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        testbed.check()?;
        for (log, word, noticed) in
            [(&mut cloud, CLOUD_UNLINKED, &mut by_cloud), (&mut node, NODE_UNLINKED, &mut by_node)]
        {
            if log.lines()?.iter().any(|line| line.contains(word)) {
                noticed.get_or_insert(begun.elapsed());
            }
        }
    }
    for (name, noticed) in [("the cloud", by_cloud), ("the node", by_node)] {
        let took = noticed.unwrap_or_default();
        outcome.row(&format!("cut → noticed by {name}"), format!("{:.2} s", took.as_secs_f64()));
        if took > NOTICE {
            outcome.violation(format!("{name} noticed the cut after {:.2} s", took.as_secs_f64()));
        }
    }
    testbed.relay.inject(LinkFault::None);
    in_sync(testbed).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_counted_each_way_with_their_headers() {
        let at = Instant::now();
        let packets = [(Direction::Up, 22), (Direction::Up, 72), (Direction::Down, 1), (Direction::Up, 22)]
            .map(|(direction, payload)| Packet { at, direction, payload });
        let up = Figures::of(&packets, Direction::Up, Duration::from_secs(4));
        assert_eq!((up.bytes, up.packets, up.bits_per_second), (200, 3, 400.0));
        assert_eq!(up.shown_sizes(), "2 × 50 B, 1 × 100 B");
    }
}
