//! Every kind of frame, byte by byte, in every version. A line that no longer matches means that a peer of that version
//! would not understand: the versions are frozen, so it is the code that is wrong.

use super::frame::{Frame, Kind};
use super::session::{Greeting, ack_body};
use super::version::{Versions, WireVersion};

const ZERO: &str = include_str!("../../tests/frames-0.txt");
const ONE: &str = include_str!("../../tests/frames-1.txt");

fn file(version: WireVersion) -> &'static str {
    match version {
        WireVersion::Zero => ZERO,
        WireVersion::One => ONE,
    }
}

fn frame(kind: Kind, id: u64, amount: u32, body: &[u8]) -> Frame {
    Frame { amount, ..Frame::new(kind, id, body.to_vec()) }
}

/// What an end sends that speaks everything up to `version`.
fn frames(version: WireVersion) -> Vec<(&'static str, Frame)> {
    let versions = Versions { oldest: 0, newest: version.number() };
    let hello = Greeting { versions, name: "edge-1".to_owned() }.encode();
    let credited = match version {
        WireVersion::Zero => 0,
        WireVersion::One => 4096,
    };
    vec![
        ("hello", frame(Kind::Hello, 0, 0, &hello)),
        ("hello-ack", frame(Kind::HelloAck, 0, 0, &ack_body(version))),
        ("refuse", frame(Kind::Refuse, 0, 7000, b"too many")),
        ("open", frame(Kind::Open, 0, 0, b"talk")),
        ("tell", frame(Kind::Tell, 0, 0, b"x")),
        ("ask", frame(Kind::Ask, 7, 0, b"x")),
        ("reply", frame(Kind::Reply, 7, 0, b"y")),
        ("nack", frame(Kind::Nack, 7, 0, b"no")),
        ("credit", frame(Kind::Credit, 3, credited, b"")),
        ("ping", frame(Kind::Ping, 0, 6000, b"")),
        ("pong", frame(Kind::Pong, 0, 0, b"")),
        ("bye", frame(Kind::Bye, 0, 0, b"")),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn lines(text: &'static str) -> Vec<&'static str> {
    text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect()
}

#[test]
fn every_frame_is_written_and_read_as_the_golden_files_say() {
    for version in WireVersion::ALL {
        let written: Vec<String> = frames(version)
            .iter()
            .map(|(name, frame)| format!("{name} {}", hex(&frame.encode(version))))
            .collect();
        assert_eq!(written, lines(file(version)), "version {}:\n{}", version.number(), written.join("\n"));
        for (name, frame) in frames(version) {
            assert_eq!(Frame::decode(&frame.encode(version)[4..], version).unwrap(), frame, "{name}");
        }
    }
}
