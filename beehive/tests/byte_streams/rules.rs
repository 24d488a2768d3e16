//! What holds over every transport.

use std::io::ErrorKind;
use std::time::Duration;

use beehive::Env;
use beehive::link::{BYTE_STREAM_HEADER_MAX, BYTE_STREAMS_MAX, ByteStreamError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fixture::{End, pattern, stream};
use crate::wire::LONG;

const MIB: usize = 1 << 20;

/// 10 MiB in each direction at once, over streams that either end has opened.
pub(crate) async fn ten_mebibytes_each_way(edge: &End, cloud: &End) {
    for (one, other) in [(edge, cloud), (cloud, edge)] {
        let (one, other) = stream(one, other).await;
        let move_all = async |stream, seed: u32| {
            let (mut reader, mut writer) = tokio::io::split(stream);
            let bytes = pattern(10 * MIB, seed);
            let write = async {
                writer.write_all(&bytes).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            let read = async {
                let mut read = Vec::new();
                reader.read_to_end(&mut read).await.unwrap();
                read
            };
            futures::join!(write, read).1
        };
        let (at_one, at_other) = futures::join!(move_all(one, 1), move_all(other, 2));
        assert!(at_one == pattern(10 * MIB, 2) && at_other == pattern(10 * MIB, 1));
    }
}

pub(crate) async fn half_close(edge: &End, cloud: &End) {
    let (mut one, mut other) = stream(edge, cloud).await;
    one.write_all(b"question").await.unwrap();
    one.shutdown().await.unwrap();
    assert_eq!(one.write(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    let mut read = Vec::new();
    other.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"question");
    other.write_all(b"answer").await.unwrap();
    other.shutdown().await.unwrap();
    drop(other);
    let mut read = Vec::new();
    one.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"answer");
}

pub(crate) async fn reset(edge: &End, cloud: &End) {
    let (mut one, mut other) = stream(edge, cloud).await;
    one.write_all(b"half a").await.unwrap();
    let mut read = [0; 6];
    other.read_exact(&mut read).await.unwrap();
    drop(one);
    // What was half done never looks whole.
    assert_eq!(other.read(&mut read).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(other.write(b"more").await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    drop(other);
    // A reader that leaves stops its writer, and what was written is complete all the same.
    let (mut one, mut other) = stream(edge, cloud).await;
    one.shutdown().await.unwrap();
    drop(one);
    let stopped = async {
        loop {
            if let Err(error) = other.write_all(&[0; 1000]).await {
                return error.kind();
            }
        }
    };
    assert_eq!(tokio::time::timeout(LONG, stopped).await.unwrap(), ErrorKind::BrokenPipe);
    assert_eq!(other.read(&mut read).await.unwrap(), 0);
}

pub(crate) async fn refusal(edge: &End, cloud: &End) {
    let streams = edge.link.byte_streams();
    match streams.open(b"no such thing".to_vec()).await.unwrap_err() {
        ByteStreamError::Refused(refusal) => {
            assert_eq!((refusal.code, refusal.reason.as_str()), (404, "nothing here for edge-1"));
        }
        other => panic!("{other:?}"),
    }
    let large = streams.open(vec![0; BYTE_STREAM_HEADER_MAX + 1]).await.unwrap_err();
    assert_eq!(large, ByteStreamError::HeaderTooLarge(BYTE_STREAM_HEADER_MAX + 1));
    let largest = pattern(BYTE_STREAM_HEADER_MAX, 3);
    let (opened, (header, _)) = futures::join!(streams.open(largest.clone()), cloud.arrival());
    assert!(opened.is_ok() && header == largest);
}

/// Ends the link and looks at a reader and a writer that wait at each end, and one stream that has not been answered.
pub(crate) async fn a_link_that_ends(edge: &End, cloud: &End, cut: impl FnOnce()) {
    let (one, other) = stream(edge, cloud).await;
    let waits = async |stream| {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let write = async {
            loop {
                if let Err(error) = writer.write_all(&[0; 10_000]).await {
                    return error;
                }
            }
        };
        // Nothing is read, so that the writers wait; one reader has nothing to read.
        let error = write.await;
        let mut rest = Vec::new();
        (error, reader.read_to_end(&mut rest).await.unwrap_err())
    };
    let (ends, unanswered) = futures::join!(
        async { futures::join!(waits(one), waits(other), edge.link.ended(), cloud.link.ended()) },
        async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            cut();
            let (of_edge, of_cloud) = (edge.link.byte_streams(), cloud.link.byte_streams());
            futures::join!(of_edge.open(b"too late".to_vec()), of_cloud.open(b"too late".to_vec()))
        }
    );
    for unanswered in [unanswered.0.unwrap_err(), unanswered.1.unwrap_err()] {
        let said = |why: &str| why.starts_with("the link to `");
        assert!(matches!(&unanswered, ByteStreamError::LinkDown(why) if said(why)), "{unanswered:?}");
    }
    for error in [ends.0.0, ends.0.1, ends.1.0, ends.1.1] {
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted, "{error}");
        assert!(error.to_string().starts_with("the link to `"), "{error}");
    }
    let down = edge.link.byte_streams().open(Vec::new()).await.unwrap_err();
    assert!(matches!(&down, ByteStreamError::LinkDown(why) if why.contains("is down: ")), "{down:?}");
}

pub(crate) async fn a_slow_reader_holds_its_own_stream_alone(env: &Env, edge: &End, cloud: &End) {
    let mut stuck = Vec::new();
    for _ in 0..20 {
        let (mut one, other) = stream(edge, cloud).await;
        let mut taken = 0;
        while let Some(written) = env.timeout(Duration::from_millis(100), one.write(&[1; 64 << 10])).await {
            taken += written.unwrap();
            assert!(taken <= (256 + 64) << 10, "{taken}");
        }
        stuck.push((one, other));
    }
    let (mut one, mut other) = stream(edge, cloud).await;
    let bytes = pattern(2 * MIB, 9);
    let write = async {
        one.write_all(&bytes).await.unwrap();
        one.shutdown().await.unwrap();
    };
    let mut read = Vec::new();
    let ((), _) = futures::join!(write, async { other.read_to_end(&mut read).await.unwrap() });
    assert!(read == bytes);
    assert_eq!(edge.link.traffic().byte_streams(), 21);
}

pub(crate) async fn twelve_hundred_may_be_open(edge: &End, cloud: &End) {
    let mut open = Vec::new();
    for _ in 0..BYTE_STREAMS_MAX {
        open.push(stream(edge, cloud).await);
    }
    let streams = edge.link.byte_streams();
    assert_eq!(streams.open(Vec::new()).await.unwrap_err(), ByteStreamError::TooMany);
    assert_eq!(cloud.link.traffic().byte_streams(), BYTE_STREAMS_MAX);
    // All of them are alive, and one that is over makes room.
    for (one, other) in &mut open {
        one.write_all(b"a line").await.unwrap();
        let mut line = [0; 6];
        other.read_exact(&mut line).await.unwrap();
    }
    drop(open.pop());
    let again = async {
        while let Err(error) = streams.open(Vec::new()).await {
            assert_eq!(error, ByteStreamError::TooMany);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, again).await.unwrap();
}
