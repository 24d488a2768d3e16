//! What the other end gives as its reason: a node must not fill the log of its cloud.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use beehive::Reply;
use beehive::link::wire::{ReplyTo, Wire};
use beehive::link::{Capabilities, Protocol, SENTENCE_MAX, WireVersion};
use contract::capability;
use contract::certificate::{CloudTrust, RenewalRefused};
use contract::device_call::MethodCall;
use contract::downlink::{DeviceDown, HubDown, MetaDown, NotApplied};
use contract::uplink::HubUp;

fn protocol() -> Protocol {
    Protocol::new(WireVersion::ONE, Capabilities::from_iter([capability::DEFLATE]))
}

/// What the asking end makes of the answer that `answer` gives at the other one.
fn answered<M: Wire, T>(
    ask: impl FnOnce(Reply<T>) -> M,
    answer: impl FnOnce(M),
    answers: &Arc<Mutex<Vec<u8>>>,
) -> T {
    let (reply, mut arrives) = Reply::channel();
    let question = ask(reply).encode(&protocol()).unwrap();
    let kept = Arc::clone(answers);
    let way = ReplyTo::new(move |bytes| *kept.lock().unwrap() = bytes.unwrap());
    answer(M::decode(&question.body, Some(way), &protocol()).unwrap());
    let bytes = answers.lock().unwrap().clone();
    question.reply.unwrap()(Ok(bytes));
    arrives.try_recv().unwrap().unwrap()
}

#[test]
fn of_a_reason_that_the_other_end_gives_the_beginning_is_taken_in_one_line() {
    let long = || format!("no room\nERROR {}", "a".repeat(500_000));
    let answers = Arc::default();
    let fits = |reason: &str| {
        assert!(reason.starts_with("no room ERROR aaa") && reason.len() == SENTENCE_MAX, "{}", reason.len());
    };
    let trust = CloudTrust::default();
    let taken = answered(
        |reply| HubDown::Trust { trust, reply },
        |HubDown::Trust { reply, .. }| reply.send(Err(long())),
        &answers,
    );
    fits(&taken.unwrap_err());
    let kept = answered(
        |reply| HubUp::CertificateKept { serial: "0a".to_owned(), reply },
        |asked| match asked {
            HubUp::CertificateKept { reply, .. } => reply.send(Err(long())),
            other => panic!("{other:?}"),
        },
        &answers,
    );
    fits(&kept.unwrap_err());
    let refused = RenewalRefused { reason: long(), wait: None };
    let renewed = answered(
        |reply| HubUp::RenewCertificate { csr_der: Vec::new(), reply },
        |asked| match asked {
            HubUp::RenewCertificate { reply, .. } => reply.send(Err(refused)),
            other => panic!("{other:?}"),
        },
        &answers,
    );
    fits(&renewed.unwrap_err().reason);
    let values = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
    let within = Duration::from_secs(1);
    let call = MethodCall::new("i", "m", values, within).unwrap();
    let called = answered(
        |reply| {
            let (namespace, name, uid) = ("d".to_owned(), "n".to_owned(), "u".to_owned());
            DeviceDown::CallMethod { namespace, name, uid, call, reply }
        },
        |DeviceDown::CallMethod { reply, .. }| reply.send(Err(long())),
        &answers,
    );
    fits(&called.unwrap_err());
    let applied = answered(
        |reply| MetaDown::Apply { inventory: 1, sequence: 1, changes: Vec::new(), reply },
        |asked| match asked {
            MetaDown::Apply { reply, .. } => {
                reply.send(Err(NotApplied::Refused(long())));
            }
            other => panic!("{other:?}"),
        },
        &answers,
    );
    match applied.unwrap_err() {
        NotApplied::Refused(reason) => fits(&reason),
        other => panic!("{other:?}"),
    }
}
