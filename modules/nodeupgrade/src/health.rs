//! Whether an edgecore is as it has to be: which process has the store, and what it says of itself at its socket.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use beehive::{Env, Moment};
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use tokio::net::UnixStream;

use crate::journal::{Bar, Before, Launch};
use crate::process::Process;
use crate::store_lock;

/// 5 s: an edgecore that ends by itself does so before that.
const STAYS_FOR: Duration = Duration::from_secs(5);
/// Half a second between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// 10 s without an edgecore: who starts it anew, systemd or another, has had time for it.
const AWAY_MAX: Duration = Duration::from_secs(10);
/// 120 s at the least while the machine starts, and all that it starts does so at once.
const WITHIN_AT_BOOT: u64 = 120;
/// An edgecore that was seen as so many processes ends by itself again and again.
const PROCESSES_MAX: usize = 3;
/// 5 s for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// 8 MiB of an answer: `/metrics` of a node with many pods.
const ANSWER_MAX: usize = 8 << 20;

/// EdgeHub has a link once more; it has lost one.
const LINK: (&str, &str) = ("edgehub_linked", "edgehub_link_ended");
/// The node has become ready; it is so no more.
const READY: (&str, &str) = ("edged_node_became_ready", "edged_node_became_unready");

/// What an edgecore says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Said {
    /// `/healthz` is well.
    pub(crate) is_well: bool,
    /// It has a link to the cloud.
    pub(crate) is_linked: bool,
    /// The node's condition Ready is True, as this process reported it.
    pub(crate) is_ready: bool,
}

impl Said {
    /// What is missing for the whole of it.
    pub(crate) fn missing(self) -> Option<&'static str> {
        match self {
            Said { is_well: false, .. } => Some("/healthz of edgecore is not well"),
            Said { is_linked: false, .. } => Some("edgecore has no link to the cloud"),
            Said { is_ready: false, .. } => {
                Some("the node is not Ready (its condition says why: kubectl describe node)")
            }
            Said { .. } => None,
        }
    }
}

/// Asks edgecore at its socket.
///
/// # Errors
/// When it does not answer there.
pub(crate) async fn ask(socket: &Path, env: &Env) -> Result<Said> {
    let asked = async {
        let (status, _) = get(socket, "/healthz").await?;
        let (answered, page) = get(socket, "/metrics").await?;
        if answered != 200 {
            bail!("/metrics of edgecore answers {answered}");
        }
        let more = |(up, down): (&str, &str)| count(&page, up) > count(&page, down);
        Ok(Said { is_well: status == 200, is_linked: more(LINK), is_ready: more(READY) })
    };
    let answer = env.timeout(ANSWER_WITHIN, asked).await;
    answer.with_context(|| format!("no answer within {} s", ANSWER_WITHIN.as_secs()))?
}

async fn get(socket: &Path, path: &str) -> Result<(u16, String)> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = httpclient::handshake(stream).await?;
    let request = Request::get(path).header(header::HOST, "node").body(Empty::<Bytes>::new())?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status().as_u16();
        let text = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
        let text = text.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
        Ok::<_, anyhow::Error>((status, String::from_utf8_lossy(&text).into_owned()))
    };
    tokio::pin!(exchange);
    tokio::select! {
        answered = &mut exchange => answered,
        // It ends with the answer at the latest.
        _ = connection => exchange.await,
    }
}

/// How often an event was counted, by a page of metrics.
fn count(page: &str, event: &str) -> u64 {
    let series = format!("kubehive_edge_events_total{{event=\"{event}\"}} ");
    let value = page.lines().find_map(|line| line.strip_prefix(&series));
    value.and_then(|value| value.trim().parse::<f64>().ok()).map_or(0, |value| value as u64)
}

/// Which edgecore has to be healthy.
pub(crate) struct Watched<'a> {
    /// Its program.
    pub(crate) program: &'a Path,
    /// Its store.
    pub(crate) store: &'a Path,
    /// How it was started, which says where its log is.
    pub(crate) launch: &'a Launch,
    /// What it has to show.
    pub(crate) bar: &'a Bar,
    /// It is enough that it answers and stays, whatever the bar says.
    pub(crate) only_stays: bool,
    /// The machine starts.
    pub(crate) is_booting: bool,
}

/// How the process has been so far.
#[derive(Default)]
struct Seen {
    process: Option<(Process, Moment)>,
    processes: usize,
    away_since: Option<Moment>,
}

impl Seen {
    /// Since when the process that is there now is there.
    fn look(&mut self, watched: &Watched<'_>, now: Moment) -> Result<Option<Moment>> {
        let Some(found) = store_lock::edgecore_on(watched.store) else {
            let since = *self.away_since.get_or_insert(now);
            if now.since(since) > AWAY_MAX {
                bail!("edgecore ended, and nothing starts it: {}", watched.launch.log_says_why());
            }
            return Ok(None);
        };
        self.away_since = None;
        if !found.is_of(watched.program) {
            bail!(
                "another program than {} runs on the store: {}",
                watched.program.display(),
                found.program()?.display()
            );
        }
        if self.process.as_ref().is_none_or(|(known, _)| !known.is(&found)) {
            self.processes += 1;
            if self.processes > PROCESSES_MAX {
                let why = watched.launch.log_says_why();
                bail!("edgecore ended {PROCESSES_MAX} times by itself: {why}");
            }
            self.process = Some((found, now));
        }
        Ok(self.process.as_ref().map(|(_, since)| *since))
    }
}

/// Waits until the edgecore is healthy, and says how it is.
///
/// # Errors
/// With what is missing, when it is not within the bar's time, or ends.
pub(crate) async fn wait(watched: &Watched<'_>, env: &Env) -> Result<String> {
    let (bar, begun) = (watched.bar, env.now());
    let within = if watched.is_booting { bar.within.max(WITHIN_AT_BOOT) } else { bar.within };
    let within = Duration::from_secs(within);
    let is_enough = watched.only_stays || bar.offline_ok;
    let mut seen = Seen::default();
    loop {
        let since = seen.look(watched, env.now())?;
        let stays = since.is_some_and(|since| env.now().since(since) >= STAYS_FOR);
        // The one of before need not do what it did not do before.
        let socket = bar.socket.as_ref().filter(|_| !watched.only_stays || bar.before == Before::Answered);
        let missing = match socket {
            None => None,
            Some(socket) => match ask(socket, env).await {
                Ok(said) if is_enough && said.is_well => None,
                Ok(said) => said.missing().map(str::to_owned),
                Err(error) => Some(format!("edgecore does not answer at {} ({error:#})", socket.display())),
            },
        };
        match missing {
            None if stays => {
                return Ok(match (is_enough, socket) {
                    (false, Some(_)) => "edgecore is linked and the node Ready".to_owned(),
                    (_, Some(_)) => "edgecore answers and stays".to_owned(),
                    (_, None) => "edgecore stays".to_owned(),
                });
            }
            missing if env.now().since(begun) >= within => {
                let what = missing.unwrap_or_else(|| "edgecore does not stay".to_owned());
                bail!("{what}, after {} s", within.as_secs());
            }
            _ => env.sleep(LOOK_EVERY).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_read_off_the_page() {
        let page = "# HELP kubehive_edge_events_total x\nkubehive_edge_events_total{event=\"edgehub_linked\"} 2\n\
                    kubehive_edge_events_total{event=\"edgehub_linked_x\"} 9\nkubehive_edge_events_total{event=\"odd\"} NaN\n";
        assert_eq!(count(page, "edgehub_linked"), 2);
        assert_eq!((count(page, "edgehub_link_ended"), count(page, "odd")), (0, 0));
    }

    #[test]
    fn what_is_missing_is_named_and_the_gravest_first() {
        let all = Said { is_well: true, is_linked: true, is_ready: true };
        assert_eq!(all.missing(), None);
        for (said, word) in [
            (Said { is_ready: false, ..all }, "not Ready"),
            (Said { is_linked: false, is_ready: false, ..all }, "no link"),
            (Said { is_well: false, is_linked: false, is_ready: false }, "/healthz"),
        ] {
            assert!(said.missing().is_some_and(|missing| missing.contains(word)), "{said:?}");
        }
    }
}
