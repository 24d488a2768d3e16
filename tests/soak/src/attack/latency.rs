//! What others feel: the round trip of links that are up, and how long a new link takes, over either transport.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;

use super::raw_link::{Identity, RawLink, Transport};

/// 20 ms between pings.
const PING_EVERY: Duration = Duration::from_millis(20);
/// 1.2 s between links of one node: a hub lets one a second in.
const LINK_EVERY: Duration = Duration::from_millis(1200);

/// Medians in milliseconds, by [`Transport`]; not a number where nothing came through.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Latencies {
    pub(crate) round_trip: [f64; 2],
    pub(crate) link: [f64; 2],
}

#[derive(Default)]
struct Samples {
    round_trips: [Vec<f64>; 2],
    links: [Vec<f64>; 2],
    lost: Vec<String>,
}

/// Watches without a pause. Ends with this.
pub(crate) struct LatencyProbes {
    samples: Arc<Mutex<Samples>>,
    _tasks: JoinSet<()>,
}

impl LatencyProbes {
    /// Of each way two nodes: one whose link stays, and one that comes again and again.
    pub(crate) fn start(stay: &[Identity; 2], come: &[Identity; 2]) -> LatencyProbes {
        let samples = Arc::<Mutex<Samples>>::default();
        let mut tasks = JoinSet::new();
        for (at, transport) in Transport::BOTH.into_iter().enumerate() {
            let (stay, come) = (stay[at].clone(), come[at].clone());
            let (kept, seen) = (Arc::clone(&samples), Arc::clone(&samples));
            tasks.spawn(async move {
                loop {
                    let ended = ping(&stay, transport, at, &kept).await;
                    if let Err(error) = ended {
                        locked(&kept).lost.push(format!("{} link: {error:#}", transport.name()));
                    }
                    tokio::time::sleep(LINK_EVERY).await;
                }
            });
            tasks.spawn(async move {
                loop {
                    match link(&come, transport).await {
                        Ok(took) => locked(&seen).links[at].push(millis(took)),
                        Err(error) => {
                            locked(&seen).lost.push(format!("{} dial: {error:#}", transport.name()))
                        }
                    }
                    tokio::time::sleep(LINK_EVERY).await;
                }
            });
        }
        LatencyProbes { samples, _tasks: tasks }
    }

    /// What was felt while `meanwhile` went on, and what was lost.
    pub(crate) async fn during<T>(
        &self,
        meanwhile: impl Future<Output = Result<T>>,
    ) -> Result<(Latencies, Vec<String>, T)> {
        *locked(&self.samples) = Samples::default();
        let done = meanwhile.await?;
        let samples = std::mem::take(&mut *locked(&self.samples));
        let median = |mut all: Vec<f64>| {
            all.sort_by(f64::total_cmp);
            all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
        };
        let latencies =
            Latencies { round_trip: samples.round_trips.map(median), link: samples.links.map(median) };
        Ok((latencies, samples.lost, done))
    }
}

fn locked(samples: &Mutex<Samples>) -> MutexGuard<'_, Samples> {
    samples.lock().unwrap_or_else(PoisonError::into_inner)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

async fn ping(who: &Identity, transport: Transport, at: usize, samples: &Mutex<Samples>) -> Result<()> {
    let dialer = who.dialer(transport)?;
    let mut link = RawLink::link(who, &*dialer).await?;
    loop {
        let took = link.round_trip().await?;
        locked(samples).round_trips[at].push(millis(took));
        tokio::time::sleep(PING_EVERY).await;
    }
}

async fn link(who: &Identity, transport: Transport) -> Result<Duration> {
    let dialer = who.dialer(transport)?;
    let begun = Instant::now();
    let link = RawLink::link(who, &*dialer).await?;
    let took = begun.elapsed();
    link.connection.close();
    Ok(took)
}
