//! Twin documents: what an MQTT client sends on the topics of the twins, to the actor that keeps them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod node;

use bytes::Bytes;
use contract::devicetwin::{TwinMsg, UpdateListeners};
use fuzz::endure_async;
use node::{LONG, Node, run};

const TOPICS: [&str; 5] = [
    "$hw/events/device/default/pump/twin/update",
    "$hw/events/device/default/pump/twin/get",
    "$hw/events/device/default/pump/state/update",
    "$hw/events/node/edge-1/membership/get",
    "$hw/events/device/pump/twin/update",
];
const PAYLOADS: [&str; 5] = [
    r#"{"event_id":"7c1f","timestamp":1557314742122,"twin":{"speed":{"expected":{"value":"7"},"actual":{"value":"5","metadata":{"timestamp":1550049403598}},"optional":false,"metadata":{"type":"int"}},"gone":null}}"#,
    r#"{"event_id":"","twin":{"speed":{"actual":{"value":"9"},"metadata":{"type":"Updated"}}}}"#,
    r#"{"event_id":"x","timestamp":0,"state":"online"}"#,
    r#"{"event_id":"x","timestamp":-1}"#,
    r#"{"twin":{"a":{"b":[[[{"c":"\ud83d\ude00\u0000"}]]]}}}"#,
];

#[test]
fn a_twin_document_is_taken_or_refused_and_leaves_nothing() {
    run(async |folder| {
        let mut node = Node::start(&folder);
        node.pump().await;
        let mut taken = 0_u32;
        let left = endure_async(4, async |random| {
            let topic = match random.below(8) {
                0 => random.damaged_text(&TOPICS),
                _ => (*random.of(&TOPICS)).to_owned(),
            };
            let payload = match random.below(200) {
                0 => random.bytes(300 << 10),
                1..20 => random.bytes(400),
                20..40 => random.text(400).into_bytes(),
                _ => random.damaged(&PAYLOADS.map(str::as_bytes)),
            };
            let payload = Bytes::from(payload);
            let listeners = UpdateListeners::ALL;
            let message = |reply| TwinMsg::Mqtt { topic, payload, listeners, reply };
            let answer = node.twin.ask(LONG, message).await;
            taken += u32::from(answer.expect("the actor lives").is_ok());
            node.drain();
        });
        println!("{} KiB are left; {taken} were taken", left.await.unwrap());
        assert!(taken > 0);
        node.stop().await;
    });
}
