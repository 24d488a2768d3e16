//! Over the transport in memory, on a paused clock.

use beehive::Env;
use beehive::link::Routes;
use beehive::link::memory::NetworkPath;

use crate::fixture::{End, in_memory, link_with};
use crate::rules;
use crate::wire::run;

async fn ends(env: &Env) -> (End, End) {
    let (edge, cloud) = in_memory(&NetworkPath::new());
    link_with(env, edge, cloud, Routes::new()).await
}

#[test]
fn ten_mebibytes_arrive_each_way() {
    run(async |env| {
        let (edge, cloud) = ends(&env).await;
        rules::ten_mebibytes_each_way(&edge, &cloud).await;
        let traffic = edge.link.traffic();
        assert_eq!((traffic.byte_stream_sent(), traffic.byte_stream_received()), (20 << 20, 20 << 20));
    });
}

#[test]
fn a_half_that_is_closed_arrives_whole_and_the_other_goes_on() {
    run(async |env| {
        let (edge, cloud) = ends(&env).await;
        rules::half_close(&edge, &cloud).await;
        assert_eq!(cloud.link.traffic().byte_streams(), 0);
    });
}

#[test]
fn what_is_dropped_breaks_off() {
    run(async |env| {
        let (edge, cloud) = ends(&env).await;
        rules::reset(&edge, &cloud).await;
    });
}

#[test]
fn a_refusal_has_a_code_and_a_sentence_and_headers_a_bound() {
    run(async |env| {
        let (edge, cloud) = ends(&env).await;
        rules::refusal(&edge, &cloud).await;
    });
}

#[test]
fn a_slow_reader_holds_its_own_stream_alone() {
    run(async |env| {
        let (edge, cloud) = ends(&env).await;
        rules::a_slow_reader_holds_its_own_stream_alone(&env, &edge, &cloud).await;
    });
}

#[test]
fn a_cut_link_ends_what_waits_at_both_ends() {
    run(async |env| {
        let network_path = NetworkPath::new();
        let (edge, cloud) = in_memory(&network_path);
        let (edge, cloud) = link_with(&env, edge, cloud, Routes::new()).await;
        rules::a_link_that_ends(&edge, &cloud, || network_path.cut()).await;
    });
}

#[test]
fn twelve_hundred_may_be_open_and_not_one_more() {
    run(async |env| {
        let (edge, cloud) = ends(&env).await;
        rules::twelve_hundred_may_be_open(&edge, &cloud).await;
    });
}
