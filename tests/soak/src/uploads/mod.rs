//! What MQTT clients of the node publish for the cloud, and what of it arrives: each one, in order per source.
//!
//! Accepted is what the node's broker has acknowledged. Arrived is what CloudRouter says of it in CloudCore's log, before
//! it confirms it: the log outlives a kill of CloudCore, and its counters do not.

mod client;
mod log_line;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::metrics::Metrics;
use crate::testbed::NODE;
use crate::{DeliveryCheck, DeliveryRule, Outcome};

pub(crate) use client::publish;
pub(crate) use log_line::TARGET;
use log_line::Upload;

/// 20 ms between looks into the log.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What was uploaded and what arrived.
#[derive(Debug)]
pub(crate) struct UploadLog {
    ids: DeliveryCheck,
    /// The last number of each source and boot, as the node has numbered them.
    numbers: BTreeMap<(String, String), u64>,
    repeats: u64,
    again_by_clients: u64,
    connections: u64,
    /// Sent and not acknowledged, of all clients.
    in_flight: usize,
    violations: Vec<String>,
}

impl UploadLog {
    fn new() -> UploadLog {
        UploadLog {
            ids: DeliveryCheck::new(DeliveryRule::Each),
            numbers: BTreeMap::new(),
            repeats: 0,
            again_by_clients: 0,
            connections: 0,
            in_flight: 0,
            violations: Vec::new(),
        }
    }

    /// The same number of the node again is a repeat, and the node must say so. The same id under another number was sent
    /// again by its client, who must say so.
    fn arrived(&mut self, upload: &Upload) {
        let source = source(&upload.client, &upload.topic);
        let last = self.numbers.entry((source.clone(), upload.boot.clone())).or_default();
        let (number, before) = (upload.sequence, *last);
        *last = before.max(number);
        self.again_by_clients += u64::from(upload.dup);
        let again = number <= before;
        if again {
            self.repeats += 1;
        }
        if again && !upload.repeat {
            let what = format!("{source}: number {number} of {} came again without a mark", upload.boot);
            self.violations.push(what);
        }
        if number > before + 1 {
            let what = format!("{source}: number {number} of {} came after {before}", upload.boot);
            self.violations.push(what);
        }
        match upload.payload.parse() {
            Ok(id) => self.ids.arrived(&source, id, again || upload.dup),
            Err(_) => self.violations.push(format!("{source}: {:?} is no payload of ours", upload.payload)),
        }
    }

    /// What is still to come, a sentence each.
    pub(crate) fn owed(&self) -> Vec<String> {
        let mut owed = self.ids.owed();
        if self.in_flight > 0 {
            owed.push(format!("{} uploads are not acknowledged", self.in_flight));
        }
        owed
    }

    /// For those who wait for it.
    pub(crate) fn all_arrived(&self) -> anyhow::Result<Option<()>> {
        match self.owed().as_slice() {
            [] => Ok(Some(())),
            owed => anyhow::bail!("{}", owed.join("; ")),
        }
    }

    /// Accepted ids, and arrivals.
    pub(crate) fn counts(&self) -> (u64, u64) {
        self.ids.counts()
    }

    /// CloudRouter must have counted the same, unless CloudCore was started in between.
    pub(crate) fn compare(&self, metrics: &Metrics, outcome: &mut Outcome) {
        let (_, arrived) = self.counts();
        let should =
            [("received", arrived - self.repeats), ("repeats", self.repeats), ("missing", 0), ("refused", 0)];
        for (what, should) in should {
            let counted = metrics.of(&format!("kubehive_node_telemetry_{what}_total"), NODE);
            if counted != Some(should as f64) {
                outcome
                    .violation(format!("uploads: /metrics says {what} {counted:?}, and {should} is right"));
            }
        }
    }

    /// Into the table.
    pub(crate) fn show(&self, outcome: &mut Outcome) {
        let (accepted, arrived) = self.counts();
        outcome.row(
            "uploads",
            format!(
                "{accepted} accepted, {arrived} arrivals: {} marked as repeats by the node, {} sent again by clients",
                self.repeats, self.again_by_clients
            ),
        );
        outcome.row("connections of uploading clients", self.connections.to_string());
        if accepted == 0 {
            outcome.violation("uploads: none was accepted");
        }
        for violation in self.ids.violations().iter().chain(&self.violations) {
            outcome.violation(format!("uploads: {violation}"));
        }
    }
}

fn source(client: &str, topic: &str) -> String {
    format!("{client} on {topic}")
}

/// The log, shared.
#[derive(Clone)]
pub(crate) struct Uploads(Arc<Mutex<UploadLog>>);

impl Uploads {
    pub(crate) fn new() -> Uploads {
        Uploads(Arc::new(Mutex::new(UploadLog::new())))
    }

    pub(crate) fn open(&self) -> MutexGuard<'_, UploadLog> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads CloudCore's log for as long as it is polled.
pub(crate) async fn follow(log: PathBuf, uploads: Uploads) {
    let mut log = crate::log::Log::whole(log);
    loop {
        // What cannot be read now is read by the next look.
        for line in log.lines().unwrap_or_default() {
            if let Some(upload) = log_line::parse(&line) {
                uploads.open().arrived(&upload);
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(sequence: u64, id: u64, repeat: bool, dup: bool) -> Upload {
        Upload {
            client: "c".to_owned(),
            topic: "t".to_owned(),
            boot: "01".to_owned(),
            sequence,
            repeat,
            dup,
            payload: id.to_string(),
        }
    }

    /// A log of which ids 1 to 3 were accepted.
    fn of(uploads: &[Upload]) -> (Vec<String>, Vec<String>) {
        let mut log = UploadLog::new();
        for id in 1..=3 {
            log.ids.accepted(&source("c", "t"), id);
        }
        uploads.iter().for_each(|upload| log.arrived(upload));
        let mut outcome = Outcome::new("a test");
        log.show(&mut outcome);
        (log.owed(), outcome.violations().to_vec())
    }

    #[test]
    fn whoever_says_that_he_sends_again_may() {
        let told = [
            upload(1, 1, false, false),
            upload(2, 2, false, false),
            upload(2, 2, true, false),
            upload(3, 2, false, true),
            upload(4, 3, false, true),
        ];
        assert_eq!(of(&told), (vec![], vec![]));
    }

    #[test]
    fn a_lost_id_is_owed() {
        let told = [upload(1, 1, false, false), upload(2, 3, false, false)];
        assert_eq!(of(&told).0, ["c on t: 1 accepted ids have not arrived, 2 is the first"]);
    }

    #[test]
    fn a_repeat_without_its_mark_is_found_and_a_clients_mark_does_not_hide_it() {
        let told = [upload(1, 1, false, true), upload(1, 1, false, true)];
        assert_eq!(of(&told).1, ["uploads: c on t: number 1 of 01 came again without a mark"]);
        // The client sent it once, the node numbered it twice.
        let told = [upload(1, 1, false, false), upload(2, 1, true, false)];
        assert_eq!(of(&told).1, ["uploads: c on t: 1 arrived again without a mark"]);
    }

    #[test]
    fn a_gap_and_a_wrong_order_are_found() {
        let told = [upload(1, 1, false, false), upload(3, 3, false, false), upload(4, 2, false, true)];
        let found =
            ["uploads: c on t: 2 arrived first after 3", "uploads: c on t: number 3 of 01 came after 1"];
        assert_eq!(of(&told).1, found);
    }
}
