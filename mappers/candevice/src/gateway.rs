//! A bus behind a socketcand: frames as text over TCP. For nodes whose kernel has no CAN, and for gateways.

use std::fmt::Write as _;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::frame::{BYTES_MAX, CanId, Frame};

/// 256 bytes: no word of a socketcand is longer.
const MESSAGE_MAX: usize = 256;

/// A connection to a socketcand, which has opened a bus.
#[derive(Debug)]
pub(crate) struct GatewayBus {
    stream: TcpStream,
    waiting: Vec<u8>,
}

impl GatewayBus {
    pub(crate) async fn open(host: &str, port: u16, bus: &str) -> Result<Self, String> {
        let found = framework::host::addresses(host, port).await?;
        let stream = TcpStream::connect(found.as_slice()).await.map_err(|error| error.to_string())?;
        // A frame is one small packet; waiting for more to send would only delay it.
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let mut gateway = GatewayBus { stream, waiting: Vec::new() };
        gateway.expect("hi", "its greeting").await?;
        gateway.say(&format!("< open {bus} >")).await?;
        gateway.expect("ok", &format!("that it has opened {bus}")).await?;
        gateway.say("< rawmode >").await?;
        gateway.expect("ok", "that it sends all frames").await?;
        Ok(gateway)
    }

    async fn expect(&mut self, wanted: &str, what: &str) -> Result<(), String> {
        let said = self.message().await?;
        if said == wanted {
            return Ok(());
        }
        let said: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(64).collect();
        Err(format!("it says `{said}` instead of {what}"))
    }

    async fn say(&mut self, words: &str) -> Result<(), String> {
        self.stream.write_all(words.as_bytes()).await.map_err(|error| error.to_string())
    }

    /// What stands between the next two angle brackets.
    async fn message(&mut self) -> Result<String, String> {
        loop {
            if let Some(end) = self.waiting.iter().position(|byte| *byte == b'>') {
                let message: Vec<u8> = self.waiting.drain(..=end).collect();
                let text = String::from_utf8_lossy(&message);
                let inside = text.trim_end_matches('>').rsplit('<').next().unwrap_or_default();
                return Ok(inside.trim().to_owned());
            }
            if self.waiting.len() > MESSAGE_MAX {
                return Err("what it says is no word of a socketcand".to_owned());
            }
            let mut some = [0; MESSAGE_MAX];
            let count = self.stream.read(&mut some).await.map_err(|error| error.to_string())?;
            if count == 0 {
                return Err("it has closed the connection".to_owned());
            }
            self.waiting.extend_from_slice(some.get(..count).unwrap_or_default());
        }
    }

    pub(crate) async fn send(&mut self, frame: &Frame) -> Result<(), String> {
        self.say(&written(frame)).await
    }

    pub(crate) async fn receive(&mut self) -> Result<Frame, String> {
        loop {
            if let Some(frame) = frame(&self.message().await?) {
                return Ok(frame);
            }
        }
    }
}

fn written(frame: &Frame) -> String {
    let id = frame.id.number;
    let mut words = match frame.id.is_extended {
        true => format!("< send {id:08X} {}", frame.bytes().len()),
        false => format!("< send {id:03X} {}", frame.bytes().len()),
    };
    for byte in frame.bytes() {
        let _ = write!(words, " {byte:x}");
    }
    words + " >"
}

/// A frame with data; None for all else that a socketcand says.
fn frame(message: &str) -> Option<Frame> {
    let mut words = message.split_ascii_whitespace();
    let (Some("frame"), Some(id), Some(_time)) = (words.next(), words.next(), words.next()) else {
        return None;
    };
    let id = CanId::new(u32::from_str_radix(id, 16).ok()?, id.len() > 3)?;
    let digits: Vec<&str> = words.collect();
    let mut bytes = Vec::with_capacity(BYTES_MAX);
    for word in &digits {
        // Some write all bytes as one word, and some each as its own, with one digit if that is enough.
        let is_one = word.len() < 2;
        let pairs = if is_one { vec![*word] } else { pairs(word)? };
        for pair in pairs {
            bytes.push(u8::from_str_radix(pair, 16).ok()?);
        }
        if bytes.len() > BYTES_MAX {
            return None;
        }
    }
    Frame::new(id, &bytes)
}

fn pairs(word: &str) -> Option<Vec<&str>> {
    let count = word.len();
    if !count.is_multiple_of(2) || count > BYTES_MAX * 2 {
        return None;
    }
    (0..count).step_by(2).map(|at| word.get(at..at + 2)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32, is_extended: bool) -> CanId {
        CanId { number, is_extended }
    }

    #[test]
    fn frames_are_written_and_read_as_socketcand_does() {
        let own = Frame::new(id(0x123, false), &[1, 0xFF]).unwrap();
        assert_eq!(written(&own), "< send 123 2 1 ff >");
        assert_eq!(written(&Frame::new(id(5, true), &[]).unwrap()), "< send 00000005 0 >");
        for said in ["frame 123 23.42 01FF", "frame 123 23.42 1 ff", "frame 123 0.0 01 FF"] {
            assert_eq!(frame(said), Some(own.clone()), "{said}");
        }
        assert_eq!(frame("frame 00000123 1.0 "), Frame::new(id(0x123, true), &[]));
    }

    #[test]
    fn what_is_no_frame_is_passed_over() {
        for said in [
            "",
            "hi",
            "error 20000040 1.0",
            "frame",
            "frame 123",
            "frame xyz 1.0 00",
            "frame 800 1.0 00",
            "frame 123 1.0 0g",
            "frame 123 1.0 001",
            "frame 123 1.0 000102030405060708",
            "frame 123 1.0 0 1 2 3 4 5 6 7 8",
            "frame 123 1.0 é0",
            "frame FFFFFFFF 1.0 00",
        ] {
            assert_eq!(frame(said), None, "{said}");
        }
    }
}
