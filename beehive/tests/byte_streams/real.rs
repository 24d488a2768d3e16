//! Over real QUIC and real WebSocket on loopback.

use beehive::Env;
use beehive::link::Routes;
use futures::future::LocalBoxFuture;

use crate::fixture::{End, link_with};
use crate::loopback::{Kind, Wires, run};
use crate::rules;

async fn ends(env: &Env, kind: Kind) -> (End, End, Wires) {
    let wires = Wires::new(kind, None).await;
    let (edge, cloud) = wires.connect().await;
    let (edge, cloud) = link_with(env, edge, cloud, Routes::new()).await;
    (edge, cloud, wires)
}

type Rule = for<'a> fn(&'a Env, &'a End, &'a End, &'a Wires) -> LocalBoxFuture<'a, ()>;

macro_rules! over_both {
    ($($name:ident: $rule:expr;)*) => {
        mod quic {
            $(#[test] fn $name() { super::run(async |env| super::$name(&env, super::Kind::Quic).await); })*
        }
        mod websocket {
            $(#[test] fn $name() { super::run(async |env| super::$name(&env, super::Kind::WebSocket).await); })*
        }
        $(async fn $name(env: &Env, kind: Kind) {
            let (edge, cloud, wires) = ends(env, kind).await;
            let rule: Rule = $rule;
            rule(env, &edge, &cloud, &wires).await;
        })*
    };
}

over_both! {
    ten_mebibytes_arrive_each_way: |_, edge, cloud, _| Box::pin(rules::ten_mebibytes_each_way(edge, cloud));
    a_half_that_is_closed_arrives_whole_and_the_other_goes_on:
        |_, edge, cloud, _| Box::pin(rules::half_close(edge, cloud));
    what_is_dropped_breaks_off: |_, edge, cloud, _| Box::pin(rules::reset(edge, cloud));
    a_refusal_has_a_code_and_a_sentence_and_headers_a_bound:
        |_, edge, cloud, _| Box::pin(rules::refusal(edge, cloud));
    a_slow_reader_holds_its_own_stream_alone:
        |env, edge, cloud, _| Box::pin(rules::a_slow_reader_holds_its_own_stream_alone(env, edge, cloud));
    a_link_that_is_closed_ends_what_waits_at_both_ends:
        |_, edge, cloud, _| Box::pin(rules::a_link_that_ends(edge, cloud, || edge.link.close()));
    a_cut_link_ends_what_waits_at_both_ends:
        |_, edge, cloud, wires| Box::pin(rules::a_link_that_ends(edge, cloud, || wires.cut()));
    twelve_hundred_may_be_open_and_not_one_more:
        |_, edge, cloud, _| Box::pin(rules::twelve_hundred_may_be_open(edge, cloud));
}
