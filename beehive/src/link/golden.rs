//! Every kind of frame, byte by byte. A line that no longer matches means that a peer of that version would not understand: a
//! version is frozen, so it is the code that is wrong.
//!
//! `GOLDEN=add cargo nextest run -p beehive golden` adds the lines that `tests/frames-1.txt` lacks; it changes none.

use super::capability::Capabilities;
use super::frame::{Frame, Kind};
use super::session::{Hello, ack_body};
use super::version::{Versions, WireVersion};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/frames-1.txt");

/// The context of the message, and that of the third thing in it.
const FOLLOWED: [u8; 60] =
    *b"\x01\0\x1a\0aaaaaaaaaaaaaaaabbbbbbbb\x01\x02\0\x1c\0\x02\0ccccccccccccccccdddddddd\x01";

fn frame(kind: Kind, id: u64, amount: u32, body: &[u8]) -> Frame {
    Frame { amount, ..Frame::new(kind, id, body.to_vec()) }
}

fn frames() -> Vec<(&'static str, Frame)> {
    let versions = Versions { oldest: 1, newest: 1 };
    let greeting = Hello { versions, name: "edge-1".to_owned() };
    let capabilities: Capabilities = ["deflate", "report.test"].into_iter().collect();
    vec![
        ("hello", frame(Kind::Hello, 0, 0, &greeting.encode(&Capabilities::default()))),
        ("hello-capable", frame(Kind::Hello, 0, 0, &greeting.encode(&capabilities))),
        ("hello-ack", frame(Kind::HelloAck, 0, 0, &ack_body(WireVersion::ONE, &Capabilities::default()))),
        ("hello-ack-capable", frame(Kind::HelloAck, 0, 0, &ack_body(WireVersion::ONE, &capabilities))),
        ("refuse", frame(Kind::Refuse, 0, 7000, b"too many")),
        ("open", frame(Kind::Open, 0, 0, b"talk")),
        ("tell", frame(Kind::Tell, 0, 0, b"x")),
        ("tell-followed", Frame { extension: FOLLOWED.to_vec(), ..frame(Kind::Tell, 0, 0, b"x") }),
        ("ask", frame(Kind::Ask, 7, 0, b"x")),
        ("reply", frame(Kind::Reply, 7, 0, b"y")),
        ("nack", frame(Kind::Nack, 7, 0, b"no")),
        ("credit", frame(Kind::Credit, 3, 4096, b"")),
        ("ping", frame(Kind::Ping, 0, 6000, b"")),
        ("pong", frame(Kind::Pong, 0, 0, b"")),
        ("bye", frame(Kind::Bye, 0, 0, b"")),
        ("stream-open", frame(Kind::StreamOpen, 3, 0, b"header")),
        ("stream-accept", frame(Kind::StreamAccept, 3, 0, b"")),
        ("stream-refuse", frame(Kind::StreamRefuse, 3, 404, b"no such thing")),
        ("stream-arrived", frame(Kind::StreamArrived, 4096, 7000, b"")),
        ("stream-window", frame(Kind::StreamWindow, 3, 4096, b"")),
        ("stream-window-return", frame(Kind::StreamWindowReturn, 3, 4096, b"")),
        ("stream-stop", frame(Kind::StreamStop, 3, 0, b"")),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_frame_is_written_and_read_as_the_golden_file_says() {
    let mut golden = std::fs::read_to_string(PATH).unwrap();
    for (name, frame) in frames() {
        let bytes = frame.encode(WireVersion::ONE);
        let line = format!("{name} {}", hex(&bytes));
        let held = golden.lines().find(|held| held.split(' ').next() == Some(name));
        if held.is_none() && std::env::var_os("GOLDEN").is_some_and(|word| word == "add") {
            golden.push_str(&format!("{line}\n"));
            std::fs::write(PATH, &golden).unwrap();
        } else {
            assert_eq!(held, Some(line.as_str()));
        }
        assert_eq!(Frame::decode(&bytes[4..], WireVersion::ONE).unwrap(), frame, "{name}");
    }
}
