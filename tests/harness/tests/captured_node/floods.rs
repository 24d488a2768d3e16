//! What it may have: what it sends is cut off, not kept, and delays nobody.

use std::time::{Duration, Instant};

use beehive::Address;
use contract::UpReport;
use contract::edgecontroller::EdgeUp;
use futures::future::join_all;
use harness::{LONG, run};
use kube::api::ListParams;
use serde_json::json;

use crate::fixture::{
    Fixture, HostileEdge, MINE, SERIAL, THEIRS, about, event, name_of, node_report, numbered, pod_status,
};

#[test]
fn one_nodes_flood_of_events_is_cut_off_and_delays_nobody() {
    const EVENTS: usize = 10_000;
    const AT_ONCE: usize = 100;
    run(async || {
        let fixture = Fixture::set().await;
        let cluster = &fixture.cluster;
        let hostile = HostileEdge::open(cluster, MINE, SERIAL).await.unwrap();
        let other = HostileEdge::open(cluster, THEIRS, SERIAL).await.unwrap();
        for (edge, pod) in [(&hostile, "mine"), (&other, "theirs")] {
            assert_eq!(edge.say(vec![node_report(json!({}))]).await.len(), 1);
            assert_eq!(edge.say(vec![pod_status(fixture.id(pod))]).await.len(), 1);
        }
        let others_say = async |times: usize| {
            let mut took = Vec::new();
            for _ in 0..times {
                let began = Instant::now();
                assert_eq!(other.say(vec![pod_status(fixture.id("theirs"))]).await.len(), 1);
                took.push(began.elapsed());
            }
            took.sort_unstable();
            took
        };
        let alone = others_say(20).await;
        // It does not wait for answers, as a node of ours does, and says half of it about others.
        let flood = async {
            let message = |n: usize| {
                let id = fixture.id(if n.is_multiple_of(2) { "mine" } else { "vault" });
                let events = (0..EVENTS / AT_ONCE).map(|m| event(&format!("flood-{n}-{m}"), about(id)));
                hostile.say(events.collect())
            };
            let confirmed = join_all((0..AT_ONCE).map(message)).await;
            confirmed.iter().map(Vec::len).sum::<usize>()
        };
        let during = async { cluster.env().timeout(LONG, others_say(20)).await };
        let (confirmed, during) = futures::join!(flood, during);
        let during = during.expect("another node is served beside the flood");
        let events = cluster.objects("v1", "Event", None).list(&ListParams::default()).await.unwrap();
        let written = events.items.iter().filter(|event| name_of(event).starts_with("flood-")).count();
        println!(
            "{EVENTS} events of one node: {confirmed} confirmed, {written} written; another node's report took {} ms alone, {} ms meanwhile (medians)",
            alone[10].as_millis(),
            during[10].as_millis()
        );
        // And those that were being written when the places were used up, of eight at once: a place is taken by what was written.
        assert!((1..25 + 8).contains(&written), "{written}");
        assert!(confirmed < EVENTS, "what it does not wait for is not kept");
    });
}

/// Resident memory of this process in MiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

/// Messages that inflate to a thousand times their size, on as many lanes as a link may have and never waiting for an answer.
#[test]
fn what_inflates_is_not_kept() {
    const LANES: usize = 40;
    const OF_EACH: usize = 25;
    /// A quarter of what is sent: 1 MiB of reports each, and what a test and its allocator hold of them.
    const MOST_MIB: u64 = 256;
    run(async || {
        let fixture = Fixture::set().await;
        let cluster = &fixture.cluster;
        let hostile = HostileEdge::open(cluster, MINE, SERIAL).await.unwrap();
        assert_eq!(hostile.say(vec![node_report(json!({}))]).await.len(), 1);
        let bomb = || {
            let event_json = "x".repeat(1_000_000);
            let bomb = UpReport::Event { namespace: "default".into(), name: "bomb".into(), event_json };
            numbered(vec![bomb])
        };
        // As much as the test itself needs of memory is there before it begins.
        let warm: Vec<_> = (0..4).map(|_| bomb()).collect();
        drop(warm);
        let before = resident();
        let lanes: Vec<Address<EdgeUp>> = (0..LANES).map(|_| hostile.link.remote()).collect();
        let sent = join_all(lanes.iter().map(|lane| async move {
            for _ in 0..OF_EACH {
                let (reply, _) = beehive::Reply::channel();
                let _ = lane.tell(EdgeUp::Reports { reports: bomb().into(), reply }).await;
            }
        }));
        let mut most = before;
        let watched = async {
            let mut sent = std::pin::pin!(sent);
            loop {
                match futures::future::select(
                    sent.as_mut(),
                    Box::pin(cluster.env().sleep(Duration::from_millis(2))),
                )
                .await
                {
                    futures::future::Either::Left(_) => return,
                    futures::future::Either::Right(_) => most = most.max(resident()),
                }
            }
        };
        cluster.env().timeout(LONG, watched).await.expect("all is taken or refused");
        most = most.max(resident());
        println!("{} messages of 1 MB each: {} MiB more than {before} MiB", LANES * OF_EACH, most - before);
        assert!(most - before <= MOST_MIB, "{} MiB more", most - before);
        // And it is still served, once the line of its messages is not full any more: what was not confirmed is sent again.
        let served = async || hostile.say(vec![pod_status(fixture.id("mine"))]).await.len() == 1;
        cluster.until_async("the node is served", served).await;
    });
}
