//! A device that is followed: what its mapper is told, and what it reports then.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::sync::Arc;

use beehive::Env;
use beehive::trace::{FinishedSpan, TraceContext, TraceSettings};
use contract::ids::DEVICES;
use contract::{ObjectKey, traced};
use edge_devicetwin::KernelPeerResolver;
use fixture::{Mapper, called, options, registration, run, start_in, status_report, until};

#[test]
fn what_is_desired_is_followed_to_the_mapper_and_what_is_reported_from_there() {
    run(|folder| async move {
        // It follows what the cloud has drawn, and draws nothing itself.
        let settings = TraceSettings { rate_per_million: 0, send: "send", receive: "receive" };
        let env = Env::seeded(1).tracing(settings);
        let devices = config::edge::DeviceTwin { dmi_sock_path: folder.clone(), ..Default::default() };
        let node = start_in(env.clone(), &folder, options(), devices, Arc::new(KernelPeerResolver));
        let (mut seen, mapper) = Mapper::serve(&folder.join("mapper.sock"), false);
        node.pump("5").await;
        let mut manager = node.manager().await;
        manager.mapper_register(registration(&folder, true)).await.unwrap();
        manager.report_device_status(status_report("5", "5")).await.unwrap();
        assert_eq!(env.traces().waiting(), 0, "nobody follows the device");

        let parent = TraceContext { trace_id: [7; 16], span_id: [7; 8], is_sampled: true };
        let device = ObjectKey::new(DEVICES, "default", "pump");
        env.traces().follow(|| traced::held(&device), Some(parent));
        node.pump("7").await;
        while !called(&mut seen).await.contains("speed=7") {}
        let mut spans: Vec<FinishedSpan> = Vec::new();
        while !spans.iter().any(|span| span.name == "DeviceTwin UpdateDevice") {
            until(|| env.traces().waiting() > 0).await;
            spans.extend(env.traces().take(usize::MAX));
        }
        let told = spans.iter().find(|span| span.name == "DeviceTwin UpdateDevice").unwrap();
        assert_eq!(told.context.trace_id, parent.trace_id);
        assert_eq!(told.error, None);
        assert!(told.attributes.contains(&("k8s.object.name", "pump".to_owned())));

        manager.report_device_status(status_report("7", "7")).await.unwrap();
        let is_of_mapper = |span: &&FinishedSpan| {
            span.name == "DeviceTwin report" && span.parent == Some(told.context.span_id)
        };
        let mut later: Vec<FinishedSpan> = Vec::new();
        while !later.iter().any(|span| is_of_mapper(&span)) {
            until(|| env.traces().waiting() > 0).await;
            later.extend(env.traces().take(usize::MAX));
        }
        let reported = later.iter().rev().find(is_of_mapper).unwrap();
        let waits = env.traces().of(|| traced::reported("twin/default/pump/speed"));
        assert_eq!(waits, Some(reported.context), "it leaves with its report");
        mapper.abort();
        node.stop().await;
    });
}
