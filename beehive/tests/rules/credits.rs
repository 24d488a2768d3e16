//! Credits in messages and bytes, between ends that keep to them.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use beehive::link::{Connection, Link};
use beehive::testing::Probe;
use beehive::{Address, Env, Refusal};
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;

use crate::raw::{self, CREDIT, Raw, TELL, ends, frame, next};
use crate::wire::run;
use crate::wire::{Heard, LONG, Talk, link, routes};

const MIB: usize = 1 << 20;

/// A link over `edge` and `cloud`, whose mailbox holds `capacity`.
async fn linked(
    env: &Env,
    (edge, cloud): (Box<dyn Connection>, Box<dyn Connection>),
    capacity: usize,
) -> (Link, Link, Probe<Heard>) {
    let (edge, cloud, probe) = link(env, edge, cloud, capacity).await;
    (edge.unwrap(), cloud.unwrap(), probe)
}

fn memory() -> (Box<dyn Connection>, Box<dyn Connection>) {
    let (edge, cloud) = ends();
    (Box::new(edge), Box::new(cloud))
}

fn say(heard: Heard) -> Vec<u8> {
    match heard.talk {
        Talk::Say(text) => text,
        other => panic!("{other:?}"),
    }
}

/// How many messages of a size are taken when nobody empties the mailbox.
async fn taken(env: &Env, talk: &Address<Talk>, size: usize) -> usize {
    let mut taken = 0;
    while let Some(told) = env.timeout(LONG, talk.tell(Talk::Say(vec![0; size]))).await {
        told.unwrap();
        taken += 1;
        assert!(taken < 100, "no back-pressure");
    }
    taken
}

#[test]
fn a_sender_waits_for_bytes_as_for_messages() {
    run(async |env| {
        // One in the mailbox, and of 300 kB three fit the credits.
        let (edge, _cloud, mut probe) = linked(&env, memory(), 1).await;
        let talk = edge.remote::<Talk>();
        assert_eq!(taken(&env, &talk, 300_000).await, 4);
        assert_eq!(talk.try_tell(Talk::Say(vec![0; 300_000])), Err(Refusal::Full));
        // What still fits may go; the places are not used up.
        assert_eq!(talk.try_tell(Talk::Say(vec![0; 100_000])), Ok(()));
        for _ in 0..5 {
            probe.next(LONG).await.unwrap();
        }
    });
}

#[test]
fn a_message_that_waits_for_bytes_is_not_overtaken_on_its_lane() {
    run(async |env| {
        let (edge, cloud) = memory();
        let (edge, _cloud, mut probe) = link(&env, edge, cloud, 1).await;
        let edge = edge.unwrap();
        let talk = edge.remote::<Talk>();
        let large = |mark: u8| Talk::Say(vec![mark; MIB - 1]);
        talk.tell(large(0)).await.unwrap();
        talk.tell(large(1)).await.unwrap();
        let (waiting, small) = (talk.clone(), talk.clone());
        env.spawn(async move { waiting.tell(large(2)).await.unwrap() });
        env.sleep(Duration::from_millis(1)).await;
        env.spawn(async move { small.tell(Talk::Say(vec![3])).await.unwrap() });
        env.sleep(Duration::from_millis(1)).await;
        assert_eq!(talk.try_tell(Talk::Say(vec![4])), Err(Refusal::Full));
        // Control is another lane.
        talk.try_tell(Talk::Hurry).unwrap();
        env.sleep(Duration::from_millis(1)).await;
        assert!(matches!(probe.next(LONG).await.unwrap().talk, Talk::Hurry));
        for mark in 0..4 {
            assert_eq!(say(probe.next(LONG).await.unwrap())[0], mark);
        }
    });
}

#[test]
fn the_largest_message_always_fits_again_and_again() {
    run(async |env| {
        let (edge, _cloud, mut probe) = linked(&env, memory(), 1).await;
        let talk = edge.remote::<Talk>();
        for _ in 0..6 {
            let (told, heard) = futures::join!(talk.tell(Talk::Say(vec![5; MIB - 1])), probe.next(LONG));
            told.unwrap();
            assert_eq!(say(heard.unwrap()).len(), MIB - 1);
        }
        assert_eq!(talk.tell(Talk::Say(vec![5; MIB])).await, Err(Refusal::TooLarge));
        // What was refused has cost nothing.
        assert_eq!(talk.try_tell(Talk::Say(vec![5; MIB - 1])), Ok(()));
    });
}

#[test]
fn a_credit_gives_back_what_the_message_took() {
    run(async |env| {
        let (mut probe, heard) = Probe::<Heard>::new(&env, 4);
        let raw = Raw::link(&env, 1, routes(heard)).await;
        let (mut writer, mut reader) = raw.stream(1, "talk").await;
        writer.write_all(&frame(1, TELL, 0, 0, &[1; 1001])).await.unwrap();
        probe.next(LONG).await.unwrap();
        let credit = next(&mut reader).await.unwrap();
        assert_eq!((credit.kind, credit.id, credit.amount), (CREDIT, 1, 1001));
    });
}

#[test]
fn credits_that_were_never_spent_are_not_believed() {
    run(async |env| {
        let (link, cloud, _control) = raw::taken_in(&env, &[1, 0]).await;
        let link = link.unwrap();
        let talk = link.remote::<Talk>();
        talk.tell(Talk::Say(vec![0; 9])).await.unwrap();
        let (mut writer, mut reader) = cloud.accept().await.unwrap();
        next(&mut reader).await.unwrap();
        for _ in 0..3 {
            writer.write_all(&frame(1, CREDIT, u64::MAX, u32::MAX, &[])).await.unwrap();
        }
        env.sleep(Duration::from_millis(1)).await;
        env.spawn(async move { while next(&mut reader).await.is_some() {} });
        assert_eq!(taken(&env, &talk, 1).await, 16);
    });
}

#[test]
fn a_stream_that_ends_takes_no_credits_with_it() {
    run(async |env| {
        let (link, cloud, _control) = raw::taken_in(&env, &[1, 0]).await;
        let link = link.unwrap();
        let talk = link.remote::<Talk>();
        // Each stream is given up after its first message; once `keep` is set, one stays and nothing comes back on it.
        let keep = Rc::new(Cell::new(false));
        let kept = Rc::clone(&keep);
        env.spawn(async move {
            while let Ok((_writer, mut reader)) = cloud.accept().await {
                next(&mut reader).await;
                next(&mut reader).await;
                while kept.get() && next(&mut reader).await.is_some() {}
            }
        });
        for _ in 0..50 {
            for _ in 0..3 {
                talk.tell(Talk::Say(vec![0; 40_000])).await.unwrap();
            }
            env.sleep(Duration::from_millis(1)).await;
        }
        env.sleep(Duration::from_millis(100)).await;
        keep.set(true);
        assert_eq!(taken(&env, &talk, 0).await, 16);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_messages_arrive_in_order_within_the_credits(
        sizes in proptest::collection::vec(
            prop_oneof![4 => 0..200_usize, 2 => 0..70_000_usize, 1 => 0..MIB - 1], 1..60
        ),
        pauses in proptest::collection::vec(0..20_u64, 60),
    ) {
        run(async |env| {
            let (edge, _cloud, mut probe) = linked(&env, memory(), 2).await;
            let talk = edge.remote::<Talk>();
            let sender = sizes.clone();
            env.spawn(async move {
                for size in sender {
                    talk.tell(Talk::Say(vec![9; size])).await.unwrap();
                }
            });
            for (size, pause) in sizes.iter().zip(&pauses) {
                env.sleep(Duration::from_millis(*pause)).await;
                assert_eq!(say(probe.next(LONG).await.unwrap()).len(), *size);
            }
        });
    }
}
