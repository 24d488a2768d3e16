//! One of everything that crosses the link or lies in the outbox.

use std::collections::BTreeMap;

use bytes::Bytes;
use contract::certificate::{CloudTrust, RenewedCertificate};
use contract::downlink::Inventory;
use contract::rule_call::{RuleAnswer, RuleCall};
use contract::rule_stream::{RuleStreamAnswer, RuleStreamRequest};
use contract::stream::{StreamRequest, StreamResponse};
use contract::{
    CallRecord, DeviceCondition, Digest, MethodCall, Object, ObjectKey, ObjectVersion, TaskAction, TaskImage,
    TaskProgress, Telemetry, TokenGrant, TokenQuery, TwinValue, UpReport, Upload,
};

pub(crate) fn s(text: &str) -> String {
    text.to_owned()
}

pub(crate) fn reports() -> Vec<(&'static str, UpReport)> {
    let (namespace, name, uid) = (s("d"), s("p"), s("u"));
    let value = TwinValue { value: s("21"), metadata: BTreeMap::from([(s("type"), s("int"))]) };
    vec![
        ("node", UpReport::Node { node_json: s("{}") }),
        (
            "pod-status",
            UpReport::PodStatus { namespace: s("d"), name: s("p"), uid: s("u"), status_json: s("{}") },
        ),
        ("pod-gone", UpReport::PodGone { namespace, name, uid }),
        ("event", UpReport::Event { namespace: s("d"), name: s("e"), event_json: s("{}") }),
        ("mirror-pod", UpReport::MirrorPod { namespace: s("d"), name: s("p"), pod_json: Some(s("{}")) }),
        (
            "claim-expansion",
            UpReport::ClaimExpansion {
                namespace: s("d"),
                name: s("c"),
                uid: s("u"),
                size: s("2Gi"),
                state: s("Finished"),
                message: s(""),
            },
        ),
        (
            "twin",
            UpReport::Twin {
                namespace: s("d"),
                name: s("n"),
                property: s("t"),
                reported: Some(value),
                observed_desired: None,
            },
        ),
        (
            "device-conditions",
            UpReport::DeviceConditions {
                namespace: s("d"),
                name: s("n"),
                conditions: vec![DeviceCondition {
                    kind: s("Reporting"),
                    reason: s("Stale"),
                    message: s("m"),
                    since: s("t"),
                }],
            },
        ),
        (
            "node-task",
            UpReport::NodeTask(TaskProgress {
                kind: s("ImagePrePullJob"),
                job: s("j"),
                uid: s("u"),
                phase: s("Failure"),
                reason: s("r"),
                actions: vec![TaskAction {
                    action: s("Check"),
                    succeeded: true,
                    reason: s(""),
                    time: s("t"),
                }],
                images: vec![TaskImage { image: s("i"), succeeded: false, reason: s("n") }],
                from_version: s("1"),
                to_version: s("2"),
            }),
        ),
        (
            "method-calls",
            UpReport::MethodCalls {
                namespace: s("d"),
                name: s("n"),
                calls: vec![CallRecord {
                    id: s("i"),
                    method: s("m"),
                    values: BTreeMap::from([(s("a"), s("1"))]),
                    by: s("mqtt"),
                    state: s("Failed"),
                    message: s("no"),
                    time: s("t"),
                }],
            },
        ),
        (
            "device-state",
            UpReport::DeviceState {
                namespace: s("d"),
                name: s("n"),
                state: s("online"),
                last_online_time: Some(s("t")),
            },
        ),
    ]
}

pub(crate) fn long_status() -> UpReport {
    let status_json = format!("{{\"message\":\"{}\"}}", "as it was ".repeat(100));
    UpReport::PodStatus { namespace: s("d"), name: s("p"), uid: s("u"), status_json }
}

pub(crate) fn telemetry() -> Telemetry {
    Telemetry {
        client: s("c"),
        topic: s("a/user/b"),
        boot: *b"0123456789abcdef",
        sequence: 5,
        dup: true,
        qos: 1,
        payload: Bytes::from_static(b"21.5"),
    }
}

pub(crate) fn uploads() -> Vec<Upload> {
    vec![Upload { row: 7, repeat: true, telemetry: telemetry() }]
}

pub(crate) fn query() -> TokenQuery {
    TokenQuery {
        namespace: s("d"),
        service_account: s("a"),
        audiences: vec![s("x")],
        expiration_seconds: 3600,
        pod_name: s("p"),
        pod_uid: s("u"),
    }
}

pub(crate) fn grant() -> TokenGrant {
    TokenGrant { token: s("t"), expires_unix: 1, lifetime_seconds: 2 }
}

pub(crate) fn key() -> ObjectKey {
    ObjectKey::new("pods", "d", "p")
}

pub(crate) fn object() -> Object {
    Object {
        key: key(),
        uid: s("u"),
        content_hash: s("9"),
        resource_version: s("41"),
        json: Bytes::from_static(b"{\"kind\":\"Pod\"}"),
    }
}

pub(crate) fn object_version() -> ObjectVersion {
    ObjectVersion { key: key(), uid: s("u"), content_hash: s("9") }
}

pub(crate) fn inventory() -> Inventory {
    // The hashes themselves are of the wire, too.
    Inventory { number: 5, digest: Digest::of([(&key(), "u", "9")], 2) }
}

pub(crate) fn method_call() -> MethodCall {
    let values = BTreeMap::from([(s("a"), s("1"))]);
    MethodCall::new("i", "m", values, std::time::Duration::from_millis(500)).unwrap()
}

pub(crate) fn rule_call() -> RuleCall {
    RuleCall { method: s("POST"), target_url: s("http://a/b"), payload: Bytes::from_static(b"{}") }
}

pub(crate) fn rule_answer() -> RuleAnswer {
    RuleAnswer { code: 200, message: s("m"), body: Bytes::from_static(b"b") }
}

pub(crate) fn rule_streams() -> [(&'static str, RuleStreamRequest); 2] {
    let headers = vec![(s("accept"), b"x".to_vec())];
    [
        ("rule-stream-publish", RuleStreamRequest::Publish { topic: s("a/b") }),
        (
            "rule-stream-call",
            RuleStreamRequest::Call { port: 8080, method: s("PUT"), path: s("/p?q"), headers },
        ),
    ]
}

pub(crate) fn rule_stream_answer() -> RuleStreamAnswer {
    RuleStreamAnswer { status: 404, headers: vec![(s("etag"), b"x".to_vec())] }
}

pub(crate) fn stream_request() -> StreamRequest {
    StreamRequest {
        method: s("POST"),
        target: s("/exec/d/p/c?command=ls"),
        headers: vec![(s("upgrade"), s("SPDY/3.1"))],
        user: s("u"),
    }
}

pub(crate) fn stream_response() -> StreamResponse {
    StreamResponse { status: 101, headers: vec![(s("upgrade"), s("SPDY/3.1"))] }
}

pub(crate) fn trust() -> CloudTrust {
    CloudTrust { authorities: vec![b"ca".to_vec()], servers: vec![s("192.0.2.1")] }
}

pub(crate) fn renewed() -> RenewedCertificate {
    RenewedCertificate { certificate: b"der".to_vec(), trust: trust() }
}
