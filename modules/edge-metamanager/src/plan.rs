//! Decides which reports to send next, and who hears of which object. Pure.

use std::time::Duration;

use beehive::defect::{self, Defect};
use beehive::link::Capabilities;
use contract::capability;
use contract::ids::{DEVICE_MODELS, DEVICES, PODS, RULES};
use contract::node_task::TaskKind;
use contract::report::OutboxQueue;
use contract::rows::{self, RowError};
use contract::{Report, Telemetry, UpReport, Upload};
use edge_store::{Class, OutboxRow};

/// The queues of the outbox.
pub(crate) const QUEUES: usize = OutboxQueue::ALL.len();
/// 64 rows per delivery: a busy second of a node.
pub const DELIVERY_ROWS: usize = 64;
/// 256 KiB per delivery: well within a frame.
pub const DELIVERY_BYTES: usize = 256 << 10;
/// The first pause after a delivery that confirmed nothing; doubles up to [`PAUSE_MAX`].
pub const PAUSE_MIN: Duration = Duration::from_millis(500);
/// The longest pause.
pub const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Who of the node's modules needs to hear of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipients {
    /// Edged: pods, what they need, and the node.
    pub edged: bool,
    /// DeviceTwin: devices, their models, and the pods that mappers are.
    pub device_twin: bool,
    /// EventBus and ServiceBus: rules.
    pub buses: bool,
    /// TaskManager: jobs.
    pub tasks: bool,
}

/// Who needs to hear of objects of this resource.
pub fn recipients(resource: &str) -> Recipients {
    let device_twin = matches!(resource, DEVICES | DEVICE_MODELS | PODS);
    let tasks = TaskKind::of_resource(resource).is_some();
    Recipients {
        edged: !tasks && !matches!(resource, DEVICES | DEVICE_MODELS | RULES),
        device_twin,
        buses: resource == RULES,
        tasks,
    }
}

/// The reports of one delivery, by who takes them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// For the edge controller.
    pub edge: Vec<Report>,
    /// For the device controller.
    pub device: Vec<Report>,
    /// For the task manager.
    pub tasks: Vec<Report>,
    /// For the router.
    pub router: Vec<Upload>,
    /// Rows that are broken: they can only be dropped, with a word.
    pub unreadable: Vec<i64>,
    /// Rows that this cloud does not understand, with the capability that it lacks: they are dropped, with a word.
    pub unsupported: Vec<(i64, &'static str)>,
    /// Rows of a kind or a format that this release does not know, with its name: they stay.
    pub unknown: Vec<(i64, String)>,
}

impl Delivery {
    /// Whether there is nothing to send and nothing to drop.
    pub fn is_empty(&self) -> bool {
        let reports = self.edge.is_empty() && self.device.is_empty() && self.tasks.is_empty();
        let reports = reports && self.router.is_empty();
        reports && self.unreadable.is_empty() && self.unsupported.is_empty()
    }

    /// The rows that are sent.
    pub fn seqs(&self) -> Vec<i64> {
        let reports = self.edge.iter().chain(&self.device).chain(&self.tasks).map(|report| report.row);
        reports.chain(self.router.iter().map(|upload| upload.row)).collect()
    }

    /// The unknown rows with which `head`, the seqs that the delivery was made of, begins: nothing else is before them.
    pub fn passed_over(&self, head: &[i64]) -> impl Iterator<Item = (i64, &str)> {
        let ahead = head.iter().zip(&self.unknown).take_while(|(seq, (unknown, _))| *seq == unknown);
        ahead.map(|(seq, (_, kind))| (*seq, kind.as_str()))
    }
}

enum DecodedRow {
    Report(UpReport),
    Telemetry(Telemetry),
}

fn read(class: Class, body: &[u8]) -> Result<DecodedRow, RowError> {
    match class {
        Class::Status | Class::Event => rows::decode_report(body).map(DecodedRow::Report),
        Class::Telemetry => rows::decode_telemetry(body).map(DecodedRow::Telemetry),
    }
}

/// Sorts the head of the outbox by receiver, in order.
pub fn sort(
    rows: impl IntoIterator<Item = OutboxRow>,
    sent_rows: &mut SentRows,
    peer: &Capabilities,
) -> Delivery {
    let mut delivery = Delivery::default();
    for OutboxRow { seq, queue, class, body, .. } in rows {
        let repeat = sent_rows.is_one(seq);
        let row = match read(class, &body) {
            Ok(row) => row,
            Err(RowError::Kind(kind)) => {
                delivery.unknown.push((seq, format!("kind {kind}")));
                continue;
            }
            Err(RowError::Format(format)) => {
                delivery.unknown.push((seq, format!("format {format}")));
                continue;
            }
            Err(RowError::Malformed | RowError::TooLarge(_)) => {
                delivery.unreadable.push(seq);
                continue;
            }
        };
        let capability = match &row {
            DecodedRow::Report(report) => report.capability(),
            // The queue waits for a cloud that knows rules: see `delivery`.
            DecodedRow::Telemetry(_) if queue == OutboxQueue::Rules => capability::RULE_UPLOADS,
            DecodedRow::Telemetry(_) => Telemetry::CAPABILITY,
        };
        if !peer.has(capability) {
            delivery.unsupported.push((seq, capability));
            continue;
        }
        match row {
            DecodedRow::Report(report) => {
                let to = match report.queue() {
                    OutboxQueue::Devices => &mut delivery.device,
                    OutboxQueue::Tasks => &mut delivery.tasks,
                    OutboxQueue::Node | OutboxQueue::Telemetry | OutboxQueue::Rules => &mut delivery.edge,
                };
                to.push(Report { row: seq, repeat, report: report.into() });
            }
            DecodedRow::Telemetry(telemetry) => delivery.router.push(Upload { row: seq, repeat, telemetry }),
        }
    }
    if defect::is_planted(Defect::ReorderedTelemetry) {
        delivery.router.reverse();
    }
    delivery
}

/// Knows which rows may have been sent before, so that the cloud need not remember.
///
/// Rows are sent in the order of their seqs, and a row that comes, or takes the place of another one, has a greater seq than
/// all before it. So one number stands for all that this incarnation has sent, and for all that an earlier one may have. Where
/// rows take turns by their keys it stands for more than was sent: of those nobody needs the mark, as the newest counts alone.
#[derive(Debug, Default)]
pub struct SentRows {
    newest: i64,
}

impl SentRows {
    /// For an incarnation that finds `newest` as the newest row of its queue.
    pub fn after(newest: i64) -> Self {
        SentRows { newest }
    }

    /// Whether the row may have been sent before. Asked of each row that is about to be sent, in order.
    pub fn is_one(&mut self, seq: i64) -> bool {
        if defect::is_planted(Defect::UnmarkedRepeat) {
            return false;
        }
        let repeat = seq <= self.newest;
        self.newest = self.newest.max(seq);
        repeat
    }
}

/// Whether a delivery is under way, and how long to wait after one that failed.
#[derive(Debug, Default)]
pub struct DeliverySchedule {
    linked: bool,
    number: u64,
    flying: bool,
    failures: u32,
}

impl DeliverySchedule {
    /// The link came up: whatever flew before is lost or repeated.
    pub fn link_up(&mut self) {
        *self = DeliverySchedule { linked: true, number: self.number, flying: false, failures: 0 };
    }

    /// The link went down.
    pub fn link_down(&mut self) {
        self.linked = false;
        self.flying = false;
    }

    /// The number of the delivery to begin now, if one may begin.
    pub fn begin(&mut self) -> Option<u64> {
        if !self.linked || self.flying {
            return None;
        }
        self.flying = true;
        self.number += 1;
        Some(self.number)
    }

    /// The outbox was empty after all.
    pub fn nothing_to_send(&mut self) {
        self.flying = false;
    }

    /// Whether delivery `number` is the one that is under way.
    pub fn is_latest(&self, number: u64) -> bool {
        self.flying && number == self.number
    }

    /// Delivery `number` ended. Answers after which pause the next may begin, or `None` for an old delivery.
    pub fn ended(&mut self, number: u64, confirmed_any: bool) -> Option<Duration> {
        if number != self.number || !self.flying {
            return None;
        }
        self.flying = false;
        if confirmed_any {
            self.failures = 0;
            return Some(Duration::ZERO);
        }
        let pause = (PAUSE_MIN * 2_u32.pow(self.failures.min(8))).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::{Unparsed, capability};

    #[test]
    fn what_was_sent_and_what_may_have_been_is_a_repeat() {
        let mut sent_rows = SentRows::after(7);
        let asked = |sent_rows: &mut SentRows, seqs: &[i64]| -> Vec<bool> {
            seqs.iter().map(|seq| sent_rows.is_one(*seq)).collect()
        };
        // 3 and 7 were there before; 8 came since, and 7 was replaced by 9 before it was seen.
        assert_eq!(asked(&mut sent_rows, &[3, 8, 9]), [true, false, false]);
        assert_eq!(asked(&mut sent_rows, &[8, 9, 10]), [true, true, false]);
        assert_eq!(asked(&mut SentRows::after(0), &[1, 2, 2]), [false, false, true]);
    }

    #[test]
    fn one_delivery_at_a_time_and_none_without_a_link() {
        let mut sender = DeliverySchedule::default();
        assert_eq!(sender.begin(), None);
        sender.link_up();
        assert_eq!(sender.begin(), Some(1));
        assert_eq!(sender.begin(), None);
        assert_eq!(sender.ended(1, true), Some(Duration::ZERO));
        assert_eq!(sender.begin(), Some(2));
        sender.link_down();
        assert_eq!(sender.ended(2, true), None);
        sender.link_up();
        assert_eq!(sender.begin(), Some(3));
        assert_eq!(sender.ended(2, true), None, "an answer from before the cut");
    }

    #[test]
    fn failures_back_off() {
        let mut sender = DeliverySchedule::default();
        sender.link_up();
        for expected in [500, 1000, 2000] {
            let number = sender.begin().unwrap();
            assert_eq!(sender.ended(number, false), Some(Duration::from_millis(expected)));
        }
    }

    #[test]
    fn reports_go_to_who_takes_them_in_order() {
        let gone = |uid: &str| UpReport::PodGone { namespace: "d".into(), name: "p".into(), uid: uid.into() };
        let state = UpReport::DeviceState {
            namespace: "d".into(),
            name: "s".into(),
            state: "online".into(),
            last_online_time: None,
        };
        let telemetry = |sequence| Telemetry {
            client: "c".into(),
            topic: "a/user/b".into(),
            boot: [1; 16],
            sequence,
            dup: false,
            qos: 1,
            payload: "x".into(),
        };
        let row =
            |seq, class, body| OutboxRow { seq, queue: OutboxQueue::Node, class, key: String::new(), body };
        let report = |seq, report: &UpReport| row(seq, Class::Event, rows::encode_report(report).unwrap());
        let uploaded =
            |seq, sequence| row(seq, Class::Telemetry, rows::encode_telemetry(&telemetry(sequence)).unwrap());
        let all = || {
            [
                report(1, &gone("a")),
                report(2, &state),
                row(3, Class::Status, vec![1]),
                report(4, &gone("b")),
                uploaded(5, 1),
                row(6, Class::Telemetry, vec![1, 0]),
                uploaded(7, 2),
            ]
        };
        let delivery = sort(all(), &mut SentRows::after(5), &everything());
        let marked = |row, report| Report { row, repeat: row <= 5, report: Unparsed::from(report) };
        assert_eq!(delivery.edge, [marked(1, gone("a")), marked(4, gone("b"))]);
        assert_eq!(delivery.device, [marked(2, state.clone())]);
        assert_eq!(
            (delivery.unreadable.as_slice(), delivery.unknown.as_slice()),
            ([3, 6].as_slice(), [].as_slice())
        );
        let upload = |row, repeat, sequence| Upload { row, repeat, telemetry: telemetry(sequence) };
        assert_eq!(delivery.router, [upload(5, true, 1), upload(7, false, 2)]);

        // A cloud that knows no devices gets none, and everything else.
        let peer: Capabilities = everything().names().filter(|name| *name != "report.device-state").collect();
        let delivery = sort(all(), &mut SentRows::after(0), &peer);
        assert_eq!(delivery.unsupported, [(2, "report.device-state")]);
        assert_eq!((delivery.edge.len(), delivery.device.len(), delivery.seqs()), (2, 0, vec![1, 4, 5, 7]));
    }

    fn everything() -> Capabilities {
        let of = [
            capability::OF_EDGE_CONTROLLER,
            capability::OF_DEVICE_CONTROLLER,
            capability::OF_ROUTER,
            capability::OF_TASK_MANAGER,
        ];
        of.into_iter().flatten().copied().collect()
    }

    #[test]
    fn what_a_newer_release_left_stays_and_is_passed_over() {
        let gone = UpReport::PodGone { namespace: "d".into(), name: "p".into(), uid: "u".into() };
        let known = rows::encode_report(&gone).unwrap();
        let of_kind = [&[known[0], 0xff, 0x7f], &known[3..]].concat();
        let of_format = [&[known[0] + 1], &known[1..]].concat();
        let bodies = [of_kind.clone(), of_format, known.clone(), of_kind, known];
        let head = bodies.into_iter().zip(1..).map(|(body, seq)| OutboxRow {
            seq,
            queue: OutboxQueue::Node,
            class: Class::Event,
            key: String::new(),
            body,
        });
        let delivery = sort(head, &mut SentRows::after(0), &everything());
        assert_eq!((delivery.seqs(), delivery.unreadable.len()), (vec![3, 5], 0));
        let passed: Vec<_> = delivery.passed_over(&[1, 2, 3, 4, 5]).collect();
        assert_eq!(passed, [(1, "kind 32767"), (2, "format 2")], "the one behind a known row comes later");
        let alone = Delivery { unknown: delivery.unknown, ..Delivery::default() };
        assert!(alone.is_empty());
    }

    #[test]
    fn each_neighbour_hears_of_its_own_objects() {
        let concerned = |resource| {
            let Recipients { edged, device_twin, buses, tasks } = recipients(resource);
            (edged, device_twin, buses, tasks)
        };
        assert_eq!(
            (concerned(PODS), concerned(DEVICES), concerned("secrets"), concerned(RULES)),
            (
                (true, true, false, false),
                (false, true, false, false),
                (true, false, false, false),
                (false, false, true, false)
            )
        );
        for kind in TaskKind::ALL {
            assert_eq!(concerned(kind.resource()), (false, false, false, true));
        }
    }
}
