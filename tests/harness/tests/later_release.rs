//! A node of a later release on the raw link: what this CloudCore does not know of its reports and messages is confirmed or
//! answered, counted and named, and holds up nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::marker::PhantomData;

use beehive::link::events::MESSAGE_UNKNOWN;
use beehive::link::wire::{DecodeError, EncodeError, Outgoing, ReplyTo, Wire};
use beehive::link::{Link, Protocol};
use beehive::testing::Probe;
use beehive::{AskError, Message, Reply};
use contract::uplink::{DeviceUp, EdgeUp, RouterUp};
use contract::{Report, Telemetry, UpReport, Upload};
use harness::{Cluster, LONG, enter, run};
use serde_json::json;

const NODE: &str = "edge-1";
const SERIAL: &str = "0a";
/// Kinds that no report and no message has.
const UNKNOWN: u16 = 900;
/// The kind of a report of a pod's status.
const POD_STATUS: u16 = 2;

/// A message to the mailbox of `M`, in bytes.
struct Raw<M> {
    body: Vec<u8>,
    reply: Reply<Vec<i64>>,
    to: PhantomData<fn(M)>,
}

impl<M> std::fmt::Debug for Raw<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.body)
    }
}

impl<M: 'static> Message for Raw<M> {
    fn name(&self) -> &'static str {
        "Raw"
    }
}

impl<M: Wire> Wire for Raw<M> {
    const MAILBOX: &'static str = M::MAILBOX;

    fn encode(self, _: &Protocol) -> Result<Outgoing, EncodeError> {
        let Raw { body, reply, .. } = self;
        let slot = move |answer: Result<Vec<u8>, AskError>| match answer {
            // A count of rows, and the rows.
            Ok(bytes) => reply
                .send(bytes[8..].chunks(8).map(|row| i64::from_le_bytes(row.try_into().unwrap())).collect()),
            Err(why) => reply.fail(why),
        };
        Ok(Outgoing { body, reply: Some(Box::new(slot)) })
    }

    fn decode(_: &[u8], _: Option<ReplyTo>, _: &Protocol) -> Result<Self, DecodeError> {
        Err(DecodeError::new("it only speaks".to_owned()))
    }
}

/// An entry of a batch.
fn entry(row: i64, kind: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    [&row.to_le_bytes()[..], &[0], &kind.to_le_bytes(), &length.to_le_bytes(), body].concat()
}

/// Sends a batch as this release makes it with `others` behind it; answers which rows were confirmed.
async fn send<M: Wire>(link: &Link, known: M, others: &[Vec<u8>]) -> Vec<i64> {
    let protocol = Protocol::new(link.version(), [].into_iter().collect());
    let body = [known.encode(&protocol).unwrap().body, others.concat()].concat();
    let raw = |reply| Raw::<M> { body, reply, to: PhantomData };
    let mut rows = link.remote::<Raw<M>>().ask(LONG, raw).await.unwrap();
    rows.sort_unstable();
    rows
}

fn reports(row: i64, report: UpReport) -> contract::Batch<Report> {
    vec![Report { row, repeat: false, report: report.into() }].into()
}

fn node() -> UpReport {
    let node = json!({
        "metadata": { "labels": {} }, "spec": {},
        "status": { "conditions": [{ "type": "Ready", "status": "True", "reason": "r", "message": "m" }] },
    });
    UpReport::Node { node_json: node.to_string() }
}

#[test]
fn what_a_cloudcore_does_not_know_of_a_later_node_holds_up_nothing() {
    run(async || {
        let cluster = Cluster::spawn().await;
        enter(cluster.client(), NODE, SERIAL, cluster.env().wall()).await;
        let (_heard, told) = Probe::new(cluster.env(), 64);
        let link = cluster.dial_as(NODE, SERIAL, told).await.unwrap();
        let counted = |event| cluster.env().metrics().count_of(event);

        let others = [entry(2, UNKNOWN, b"new"), entry(3, POD_STATUS, b"no status")];
        let known = EdgeUp::Reports { reports: reports(1, node()), reply: Reply::channel().0 };
        assert_eq!(send(&link, known, &others).await, [1, 2, 3]);
        assert_eq!(
            (counted("edgecontroller_report_unknown"), counted("edgecontroller_report_malformed")),
            (1, 1)
        );
        // The one before them was written.
        assert!(cluster.objects("v1", "Node", None).get_opt(NODE).await.unwrap().is_some());

        let state = UpReport::DeviceState {
            namespace: "default".into(),
            name: "none".into(),
            state: "online".into(),
            last_online_time: None,
        };
        let known = DeviceUp::Reports { reports: reports(4, state), reply: Reply::channel().0 };
        assert_eq!(send(&link, known, &[entry(5, UNKNOWN, b"")]).await, [4, 5]);

        let telemetry = Telemetry {
            client: "c".into(),
            topic: "t".into(),
            boot: [1; 16],
            sequence: 1,
            dup: false,
            qos: 1,
            payload: "21.5".into(),
        };
        let uploads = vec![Upload { row: 6, repeat: false, telemetry }].into();
        let known = RouterUp::Telemetry { uploads, reply: Reply::channel().0 };
        assert_eq!(send(&link, known, &[entry(7, UNKNOWN, b"")]).await, [6, 7]);
        let unknown =
            ["edgecontroller_report_unknown", "devicecontroller_report_unknown", "router_telemetry_unknown"];
        assert_eq!(unknown.map(counted), [1, 1, 1]);

        // A message as a whole: its asker is told, and the next one is served.
        let raw = |reply| Raw::<EdgeUp> { body: UNKNOWN.to_le_bytes().to_vec(), reply, to: PhantomData };
        let answer = link.remote::<Raw<EdgeUp>>().ask(LONG, raw).await;
        let named = "message of the unknown kind 900 to `cloud-edgecontroller`".to_owned();
        assert_eq!((answer, counted(MESSAGE_UNKNOWN)), (Err(AskError::Rejected(named)), 1));
        let known = EdgeUp::Reports { reports: reports(8, node()), reply: Reply::channel().0 };
        assert_eq!(send(&link, known, &[]).await, [8]);
    });
}
