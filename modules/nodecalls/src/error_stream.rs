//! What the client of a command is told when its connection to the node is cut.
//!
//! A client of `exec` and `attach` learns how the command ended from an error stream, and takes an end without a word there for
//! success: `kubectl exec` would exit with 0. So the cut is said on that stream, in its own protocol, if what came from the node ends
//! between two frames and the node has said nothing there itself. Else the connection just ends. Pure.
//!
//! The error stream is the first that a client opens (client-go, `remotecommand/v2.go`): stream 1 in SPDY, channel 3 in WebSocket.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contract::NodeName;
use http::{HeaderMap, header};

/// What stands at the end of a log that was cut: a reader of logs has no error stream.
pub(crate) fn last_line_of_a_cut_log(node: &NodeName, error: &std::io::Error) -> String {
    format!("\nthe log of node `{node}` broke off here ({error}): read it again when the node is Ready\n")
}

/// The error stream in SPDY.
const ERROR_STREAM: u32 = 1;
/// The error channel in WebSocket.
const ERROR_CHANNEL: u8 = 3;
/// The longest head of a frame: WebSocket's two bytes, eight of a length, four of a mask, and the channel.
const HEAD_MAX: usize = 15;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Spdy,
    /// Whether payloads are base64.
    WebSocket {
        base64: bool,
    },
}

/// What is known of a frame by its head.
struct Frame {
    /// What belongs to it behind the head.
    rest: u64,
    /// Nothing may be said after it: the connection ends, or the error stream has begun.
    is_last: bool,
}

/// Follows what a node sends.
#[derive(Debug)]
pub(crate) struct ErrorStreamTracker {
    framing: Framing,
    /// Whether the error stream carries a `metav1.Status`, as since v4 of the protocol, and plain text else.
    is_status: bool,
    head: Vec<u8>,
    rest: u64,
    is_over: bool,
}

impl ErrorStreamTracker {
    /// For an upgraded connection, by its path and the head of its answer. `None`: it has no error stream.
    pub(crate) fn of(path: &str, answer: &HeaderMap) -> Option<ErrorStreamTracker> {
        if !["/exec/", "/attach/"].iter().any(|calls| path.starts_with(calls)) {
            return None;
        }
        let text = |name: &str| answer.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let upgrade = text(header::UPGRADE.as_str());
        let (framing, protocol) = if upgrade.eq_ignore_ascii_case("websocket") {
            let protocol = text(header::SEC_WEBSOCKET_PROTOCOL.as_str());
            (Framing::WebSocket { base64: protocol.contains("base64.") }, protocol)
        } else if upgrade.to_ascii_lowercase().starts_with("spdy/") {
            (Framing::Spdy, text("x-stream-protocol-version"))
        } else {
            return None;
        };
        let is_status = protocol.starts_with("v4.") || protocol.starts_with("v5.");
        Some(ErrorStreamTracker {
            framing,
            is_status,
            head: Vec::with_capacity(HEAD_MAX),
            rest: 0,
            is_over: false,
        })
    }

    /// The node has sent this.
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((first, behind)) = bytes.split_first() {
            if self.rest > 0 {
                let skipped = usize::try_from(self.rest).unwrap_or(usize::MAX).min(bytes.len());
                self.rest -= skipped as u64;
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            self.head.push(*first);
            bytes = behind;
            let frame = match self.framing {
                Framing::Spdy => spdy_frame(&self.head),
                Framing::WebSocket { base64 } => web_socket_frame(&self.head, base64),
            };
            if let Some(frame) = frame {
                self.head.clear();
                self.rest = frame.rest;
                self.is_over |= frame.is_last;
            }
        }
    }

    /// What is sent before an end of the node's own, whole one. Before v4 of the protocol an end without a word is how success is said.
    pub(crate) fn say_at_end(&self, message: &str) -> Option<Vec<u8>> {
        self.say(message).filter(|_| self.is_status)
    }

    /// What is sent to the client before its connection ends. `None`: nothing can be said any more.
    pub(crate) fn say(&self, message: &str) -> Option<Vec<u8>> {
        if self.is_over || self.rest > 0 || !self.head.is_empty() {
            return None;
        }
        let words = if self.is_status {
            apimachinery::failure(500, message).to_string().into_bytes()
        } else {
            message.as_bytes().to_vec()
        };
        Some(match self.framing {
            Framing::Spdy => spdy_data(&words),
            Framing::WebSocket { base64 } => web_socket_message(&words, base64),
        })
    }
}

/// SPDY/3.1, 2.2: eight bytes, of which the last three are the length.
fn spdy_frame(head: &[u8]) -> Option<Frame> {
    /// The connection takes no new streams.
    const GOAWAY: u8 = 7;
    let head: &[u8; 8] = head.try_into().ok()?;
    let [first, second, third, fourth, _, a, b, c] = *head;
    let is_last = if first & 0x80 == 0 {
        u32::from_be_bytes([first, second, third, fourth]) == ERROR_STREAM
    } else {
        fourth == GOAWAY
    };
    Some(Frame { rest: u64::from(u32::from_be_bytes([0, a, b, c])), is_last })
}

/// One data frame on the error stream, which ends it.
fn spdy_data(words: &[u8]) -> Vec<u8> {
    const FIN: u8 = 1;
    let words = words.get(..words.len().min(0xFF_FFFF)).unwrap_or_default();
    let mut frame = ERROR_STREAM.to_be_bytes().to_vec();
    frame.push(FIN);
    frame.extend_from_slice(&u32::try_from(words.len()).unwrap_or_default().to_be_bytes()[1..]);
    frame.extend_from_slice(words);
    frame
}

/// RFC 6455, 5.2; the channel, which is the first byte of a message, counts as part of the head.
fn web_socket_frame(head: &[u8], base64: bool) -> Option<Frame> {
    const CONTINUATION: u8 = 0;
    const CLOSE: u8 = 8;
    let (&[first, second], behind) = head.split_first_chunk::<2>()?;
    let (length, behind) = match second & 0x7F {
        126 => {
            let (length, behind) = behind.split_first_chunk::<2>()?;
            (u64::from(u16::from_be_bytes(*length)), behind)
        }
        127 => {
            let (length, behind) = behind.split_first_chunk::<8>()?;
            (u64::from_be_bytes(*length), behind)
        }
        length => (u64::from(length), behind),
    };
    let is_masked = second & 0x80 != 0;
    let payload = if is_masked { behind.get(4..)? } else { behind };
    let opcode = first & 0x0F;
    if length == 0 {
        return Some(Frame { rest: 0, is_last: opcode == CLOSE });
    }
    let channel = *payload.first()?;
    let error = if base64 { b'0' + ERROR_CHANNEL } else { ERROR_CHANNEL };
    let is_error = opcode != CONTINUATION && opcode < CLOSE && channel == error;
    Some(Frame { rest: length - 1, is_last: opcode == CLOSE || is_error })
}

/// One message on the error channel, and the end of the connection: 1011, as RFC 6455 has it for what a server could not do.
fn web_socket_message(words: &[u8], base64: bool) -> Vec<u8> {
    let (opcode, payload) = if base64 {
        (0x81, [&[b'0' + ERROR_CHANNEL][..], STANDARD.encode(words).as_bytes()].concat())
    } else {
        (0x82, [&[ERROR_CHANNEL][..], words].concat())
    };
    let mut frames = vec![opcode];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..126), _) => frames.push(length),
        (_, Ok(length)) => {
            frames.push(126);
            frames.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            frames.push(127);
            frames.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frames.extend_from_slice(&payload);
    frames.extend_from_slice(&[0x88, 2]);
    frames.extend_from_slice(&1011_u16.to_be_bytes());
    frames
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn tracker(upgrade: &'static str, name: &'static str, protocol: &'static str) -> ErrorStreamTracker {
        let all = [("upgrade", upgrade), (name, protocol)];
        let headers =
            all.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        ErrorStreamTracker::of("/exec/shop/till/c", &headers.into_iter().collect()).unwrap()
    }

    fn spdy() -> ErrorStreamTracker {
        tracker("SPDY/3.1", "x-stream-protocol-version", "v4.channel.k8s.io")
    }

    fn web_socket() -> ErrorStreamTracker {
        tracker("websocket", "sec-websocket-protocol", "v4.channel.k8s.io")
    }

    /// A data frame of stdout.
    fn stdout(length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, 0, 5, 0, 0, 0, length];
        frame.resize(8 + usize::from(length), b'x');
        frame
    }

    #[test]
    fn a_cut_is_said_on_the_error_stream_of_spdy() {
        let mut tracker = spdy();
        // SYN_REPLY of stream 1, whose headers say nothing here, then what the command prints, in pieces of any size.
        tracker.pass(&[0x80, 3, 0, 2, 0, 0, 0, 6, 0, 0, 0, 1, 9, 9]);
        for byte in stdout(200).chunks(7) {
            tracker.pass(byte);
        }
        let said = tracker.say("the link was cut").unwrap();
        assert_eq!(said[..5], [0, 0, 0, 1, 1]);
        let length = u32::from_be_bytes([0, said[5], said[6], said[7]]) as usize;
        let status: serde_json::Value = serde_json::from_slice(&said[8..]).unwrap();
        assert_eq!(length, said.len() - 8);
        assert_eq!((&status["status"], &status["message"]), (&"Failure".into(), &"the link was cut".into()));
    }

    #[test]
    fn nothing_is_said_within_a_frame_nor_where_the_node_has_spoken() {
        let mut tracker = spdy();
        tracker.pass(&stdout(9)[..12]);
        assert_eq!(tracker.say("x"), None, "in the middle of a frame");
        tracker.pass(&stdout(9)[12..]);
        assert!(tracker.say("x").is_some());
        tracker.pass(&[0, 0, 0, 1, 1, 0, 0, 2, b'{', b'}']);
        assert_eq!(tracker.say("x"), None, "it has ended by itself");
        let mut tracker = spdy();
        tracker.pass(&[0x80, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(tracker.say("x"), None, "the connection ends");
    }

    #[test]
    fn a_cut_is_said_on_the_error_channel_of_web_socket() {
        let mut tracker = web_socket();
        tracker.pass(&[0x82, 4, 1, b'a', b'b', b'c', 0x89, 0]);
        let long = [&[0x82, 126, 1, 0, 2][..], &[0; 255][..]].concat();
        tracker.pass(&long[..100]);
        assert_eq!(tracker.say("x"), None, "in the middle of a frame");
        tracker.pass(&long[100..]);
        let said = tracker.say("the link was cut").unwrap();
        let (close, head) = (said.len() - 4, 4);
        assert_eq!((said[0], said[1], said[head]), (0x82, 126, ERROR_CHANNEL), "{said:?}");
        assert_eq!(said[close..], [0x88, 2, 3, 243]);
        let status: serde_json::Value = serde_json::from_slice(&said[head + 1..close]).unwrap();
        assert_eq!(status["message"], "the link was cut");
        tracker.pass(&[0x82, 3, 3, b'{', b'}']);
        assert_eq!(tracker.say("x"), None, "the node has spoken");
        let mut tracker = web_socket();
        tracker.pass(&[0x88, 0]);
        assert_eq!(tracker.say("x"), None, "it has ended");
    }

    #[test]
    fn protocols_of_plain_text_are_told_plain_text() {
        let mut old = tracker("websocket", "sec-websocket-protocol", "base64.channel.k8s.io");
        old.pass(&[0x81, 1, b'1']);
        let said = old.say("cut").unwrap();
        assert_eq!(said, [&[0x81, 5][..], b"3Y3V0", &[0x88, 2, 3, 243]].concat());
        let old = tracker("SPDY/3.1", "x-stream-protocol-version", "v3.channel.k8s.io");
        assert_eq!(old.say("cut").unwrap(), [0, 0, 0, 1, 1, 0, 0, 3, b'c', b'u', b't']);
    }

    #[test]
    fn calls_without_an_error_stream_of_that_kind_have_none() {
        let headers = HeaderMap::from_iter([(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"))]);
        assert!(ErrorStreamTracker::of("/portForward/shop/till", &headers).is_none());
        assert!(ErrorStreamTracker::of("/exec/shop/till/c", &HeaderMap::new()).is_none());
    }
}
