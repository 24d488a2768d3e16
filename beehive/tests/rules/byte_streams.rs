//! Byte streams, opened and fed by hand.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use beehive::link::{
    BYTE_STREAMS_MAX, ByteStream, ByteStreamError, ByteStreamHandler, ByteStreamRefusal, Connection,
    PeerName, Reader, Routes, Urgency, Writer,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::raw::{NACK, Raw, Said, frame, next, taken_in};
use crate::wire::{LONG, run};

const STREAM_OPEN: u8 = 13;
const STREAM_ACCEPT: u8 = 14;
const STREAM_REFUSE: u8 = 15;
const STREAM_WINDOW: u8 = 17;
const STREAM_WINDOW_RETURN: u8 = 18;
const STREAM_STOP: u8 = 19;
/// The chunk that breaks a stream off.
const RESET: [u8; 2] = [0x80, 0];
/// The codes of refusals that are the link's own.
const NO_HANDLER: u32 = 1 << 16;
const TOO_MANY: u32 = NO_HANDLER + 1;
const MALFORMED: u32 = NO_HANDLER + 2;

/// Keeps what arrives.
#[derive(Default)]
struct Kept(Mutex<Vec<ByteStream>>);

impl Kept {
    fn take(&self) -> ByteStream {
        self.0.lock().unwrap().pop().unwrap()
    }
}

impl ByteStreamHandler for Kept {
    fn accept(&self, _: &PeerName, _: Vec<u8>, stream: ByteStream) -> Result<(), ByteStreamRefusal> {
        self.0.lock().unwrap().push(stream);
        Ok(())
    }
}

async fn open(raw: &Raw, id: u64, header: &[u8]) -> (Writer, Reader) {
    let (mut writer, reader) = raw.connection.open(Urgency::Bulk).await.unwrap();
    writer.write_all(&frame(1, STREAM_OPEN, id, 0, header)).await.unwrap();
    (writer, reader)
}

async fn answer(stream: &mut (Writer, Reader)) -> (u8, u32) {
    let Said { kind, amount, .. } = next(&mut stream.1).await.unwrap();
    (kind, amount)
}

#[test]
fn an_end_without_a_handler_refuses_and_says_no_capability() {
    run(async |env| {
        let raw = Raw::link(&env, 1, Routes::new()).await;
        let mut stream = open(&raw, 1, b"").await;
        assert_eq!(answer(&mut stream).await, (STREAM_REFUSE, NO_HANDLER));
        // An end that does not say that it takes byte streams is sent none.
        let (link, _connection, _control) = taken_in(&env, &[1, 0]).await;
        let refused = link.unwrap().byte_streams().open(Vec::new()).await.unwrap_err();
        assert_eq!(refused, ByteStreamError::Unsupported);
    });
}

#[test]
fn numbers_that_are_not_the_openers_to_give_are_refused() {
    run(async |env| {
        let kept = Arc::new(Kept::default());
        let raw = Raw::link(&env, 1, Routes::new().byte_streams(kept.clone())).await;
        let mut first = open(&raw, 1, b"").await;
        assert_eq!(answer(&mut first).await, (STREAM_ACCEPT, 0));
        for id in [1, 2, 1 << 40] {
            let mut stream = open(&raw, id, b"").await;
            assert_eq!(answer(&mut stream).await, (STREAM_REFUSE, MALFORMED), "{id}");
        }
    });
}

#[test]
fn a_header_that_is_too_large_is_refused_before_it_is_read() {
    run(async |env| {
        let raw = Raw::link(&env, 1, Routes::new().byte_streams(Arc::new(Kept::default()))).await;
        let (mut writer, mut reader) = raw.connection.open(Urgency::Bulk).await.unwrap();
        let large = frame(1, STREAM_OPEN, 1, 0, &vec![0; (32 << 10) + 1]);
        writer.write_all(&large[..4]).await.unwrap();
        let said = next(&mut reader).await.unwrap();
        assert_eq!((said.kind, said.text()), (NACK, "frame of 32785 bytes; at most 32784 are read here"));
    });
}

#[test]
fn a_flood_of_streams_is_refused_at_its_bound_and_mailboxes_are_reached_beside_it() {
    run(async |env| {
        let kept = Arc::new(Kept::default());
        let (mut probe, heard) = beehive::testing::Probe::new(&env, 4);
        let raw = Raw::link(&env, 1, crate::wire::routes(heard).byte_streams(kept.clone())).await;
        let (mut accepted, mut refused, mut streams) = (0, 0, Vec::new());
        for number in 0..BYTE_STREAMS_MAX as u64 + 50 {
            let mut stream = open(&raw, 2 * number + 1, b"").await;
            match answer(&mut stream).await {
                (STREAM_ACCEPT, 0) => accepted += 1,
                (STREAM_REFUSE, TOO_MANY) => refused += 1,
                other => panic!("{other:?}"),
            }
            streams.push(stream);
        }
        assert_eq!((accepted, refused), (BYTE_STREAMS_MAX, 50));
        let traffic = raw.link.traffic();
        assert_eq!(traffic.byte_streams(), BYTE_STREAMS_MAX);
        let (mut mailbox, _answers) = raw.stream(1, "talk").await;
        mailbox.write_all(&frame(1, crate::raw::TELL, 0, 0, &[1])).await.unwrap();
        assert!(probe.next(LONG).await.is_some());
        // What ends makes room: for both ends have to be through with it.
        drop(kept.take());
        let (mut last, _) = streams.swap_remove(BYTE_STREAMS_MAX - 1);
        last.write_all(&RESET).await.unwrap();
        last.shutdown().await.unwrap();
        env.sleep(Duration::from_millis(10)).await;
        let mut stream = open(&raw, 9999, b"").await;
        assert_eq!(answer(&mut stream).await, (STREAM_ACCEPT, 0));
    });
}

#[test]
fn a_thousand_headers_that_do_not_come_are_given_up_and_hold_little() {
    run(async |env| {
        let kept = Arc::new(Kept::default());
        let raw = Raw::link(&env, 1, Routes::new().byte_streams(kept)).await;
        let begun = frame(1, STREAM_OPEN, 1, 0, &vec![0; 32 << 10]);
        let mut streams = Vec::new();
        for _ in 0..1000 {
            let (mut writer, reader) = raw.connection.open(Urgency::Bulk).await.unwrap();
            writer.write_all(&begun[..30_000]).await.unwrap();
            streams.push((writer, reader));
        }
        let begun = env.now();
        for (_, reader) in &mut streams {
            let said = next(reader).await.unwrap();
            assert_eq!((said.kind, said.text()), (NACK, "a stream says what it is for within 10 s"));
        }
        // The last refusals wait for their turn.
        assert!(env.now().since(begun) < Duration::from_secs(60));
        assert!(env.timeout(LONG, raw.link.ended()).await.is_none());
    });
}

#[test]
fn bytes_against_the_rules_end_their_stream_alone() {
    run(async |env| {
        let kept = Arc::new(Kept::default());
        let raw = Raw::link(&env, 1, Routes::new().byte_streams(kept.clone())).await;
        let chunk = |len: u16| [len.to_be_bytes().to_vec(), vec![7; usize::from(len)]].concat();
        let hostile = [
            // More than its window.
            chunk(4097),
            // A chunk that is too long, and bytes after the end.
            vec![0x40, 1, 0],
            vec![0, 0, 0, 0],
        ];
        for (number, bytes) in hostile.into_iter().enumerate() {
            let mut stream = open(&raw, 2 * number as u64 + 1, b"").await;
            assert_eq!(answer(&mut stream).await, (STREAM_ACCEPT, 0));
            let mut kept = kept.take();
            let _ = stream.0.write_all(&bytes).await;
            let ended = async { while kept.write(b"x").await.is_ok() {} };
            assert!(env.timeout(LONG, ended).await.is_some(), "{number}");
            // Whole is only what was said to be.
            let mut read = Vec::new();
            assert_eq!(kept.read_to_end(&mut read).await.is_ok(), number == 2, "{number}");
        }
        assert!(env.timeout(LONG, raw.link.ended()).await.is_none());
    });
}

#[test]
fn what_is_said_of_streams_that_are_not_there_changes_nothing() {
    run(async |env| {
        let kept = Arc::new(Kept::default());
        let raw = Raw::link(&env, 1, Routes::new().byte_streams(kept.clone())).await;
        let mut stream = open(&raw, 1, b"").await;
        assert_eq!(answer(&mut stream).await, (STREAM_ACCEPT, 0));
        let mut control = raw.control.lock().await;
        for kind in [16, STREAM_WINDOW, STREAM_WINDOW_RETURN, STREAM_STOP] {
            for id in [0, 3, u64::MAX] {
                control.write_all(&frame(1, kind, id, u32::MAX, &[])).await.unwrap();
            }
        }
        // More than there is cannot be given back, and more than anybody has is not sent.
        for kind in [STREAM_WINDOW_RETURN, STREAM_WINDOW, STREAM_WINDOW] {
            control.write_all(&frame(1, kind, 1, u32::MAX, &[])).await.unwrap();
        }
        drop(control);
        let mut kept = kept.take();
        stream.0.write_all(b"\x00\x05hello\x00\x00").await.unwrap();
        let mut read = Vec::new();
        kept.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"hello");
        kept.write_all(b"you").await.unwrap();
        kept.shutdown().await.unwrap();
        drop(kept);
        let mut said = Vec::new();
        stream.1.read_to_end(&mut said).await.unwrap();
        // The first chunk of a link asks for its echo.
        assert_eq!(said, b"\x80\x03you\x00\x00");
    });
}
