//! As much of D-Bus as logind and systemd need: calls, their answers, signals, and a descriptor that comes with an answer
//! (the D-Bus Specification 0.43, chapters "Message Protocol" and "Authentication Protocol"). What comes from the bus is read
//! within bounds, and what is not understood is an error or passed over.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::unix::AsyncFd;

/// 64 KiB: nothing that is asked for here is nearly so long.
const MESSAGE_MAX: usize = 64 << 10;
/// 64 messages that wait for somebody to look.
const WAITING_MAX: usize = 64;
/// The longest line of the authentication.
const LINE_MAX: usize = 512;

/// 64 messages that are nobody's answer before somebody who waits for one gives up.
const PASSED_MAX: usize = 64;

const CALL: u8 = 1;
const RETURN: u8 = 2;
const FAILED: u8 = 3;
const SIGNAL: u8 = 4;

/// One message, as far as it is of use here.
#[derive(Debug)]
pub(crate) struct Incoming {
    kind: u8,
    reply_to: Option<u32>,
    member: String,
    interface: String,
    error: String,
    body: Vec<u8>,
}

impl Incoming {
    /// Whether it is this signal.
    pub(crate) fn is_signal(&self, interface: &str, member: &str) -> bool {
        self.kind == SIGNAL && self.interface == interface && self.member == member
    }

    /// The name of the error that it is.
    pub(crate) fn error(&self) -> Option<&str> {
        (self.kind == FAILED).then_some(&*self.error)
    }

    /// The boolean that is its body.
    pub(crate) fn boolean(&self) -> Option<bool> {
        let bytes = self.body.first_chunk()?;
        Some(u32::from_le_bytes(*bytes) == 1)
    }

    /// The number of 64 bits in the variant that is its body.
    pub(crate) fn number_in_variant(&self) -> Option<u64> {
        // The signature `t` with its length and its end, then up to the next multiple of eight.
        (self.body.get(..3)? == [1, b't', 0]).then_some(())?;
        let bytes: [u8; 8] = self.body.get(8..16)?.try_into().ok()?;
        Some(u64::from_le_bytes(bytes))
    }
}

/// What a method is called with.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Argument<'a> {
    Text(&'a str),
    Number(i32),
    Flag(bool),
    /// Of a unit of systemd's, by their names.
    Properties(&'a [(&'a str, Property<'a>)]),
    /// No other units beside one.
    NoUnits,
}
use Argument::{Flag, NoUnits, Number, Properties, Text};

/// What a property of a unit is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Property<'a> {
    Text(&'a str),
    Flag(bool),
    Number(u64),
}

/// What is called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Method<'a> {
    pub(crate) destination: &'a str,
    pub(crate) path: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) member: &'a str,
}

/// A connection to a bus.
pub(crate) struct Bus {
    stream: AsyncFd<UnixStream>,
    serial: u32,
    input: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
    waiting: VecDeque<Incoming>,
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the bus says what is no D-Bus: {what}"))
}

/// Connects, as the user that this process is. Blocks for a moment.
pub(crate) fn connect(path: &Path) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(path)?;
    let limit = Some(std::time::Duration::from_secs(5));
    stream.set_read_timeout(limit)?;
    stream.set_write_timeout(limit)?;
    let user = rustix::process::geteuid().as_raw().to_string();
    stream.write_all(format!("\0AUTH EXTERNAL {}\r\n", hex::encode(user)).as_bytes())?;
    expect(&mut stream, "OK ")?;
    stream.write_all(b"NEGOTIATE_UNIX_FD\r\n")?;
    expect(&mut stream, "AGREE_UNIX_FD")?;
    stream.write_all(b"BEGIN\r\n")?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// A connection over which one call follows another, for who has no tokio runtime. It blocks, for 5 s at a time.
pub(crate) struct BlockingBus {
    stream: UnixStream,
    serial: u32,
    input: Vec<u8>,
}

impl BlockingBus {
    /// Connects, as the user that this process is.
    pub(crate) fn connect(path: &Path) -> io::Result<BlockingBus> {
        let stream = connect(path)?;
        stream.set_nonblocking(false)?;
        let mut bus = BlockingBus { stream, serial: 0, input: Vec::new() };
        let answer = bus.call(&of_bus("Hello"), &[])?;
        match answer.error() {
            None => Ok(bus),
            Some(error) => Err(io::Error::other(format!("Hello: {error}"))),
        }
    }

    /// Calls a method. Answers what it returned, be it an error.
    pub(crate) fn call(&mut self, method: &Method<'_>, arguments: &[Argument<'_>]) -> io::Result<Incoming> {
        self.serial += 1;
        self.stream.write_all(&encode(self.serial, method, arguments))?;
        for _ in 0..PASSED_MAX {
            let message = self.read()?;
            if message.reply_to == Some(self.serial) {
                return Ok(message);
            }
        }
        Err(wrong("many messages and no answer"))
    }

    fn read(&mut self) -> io::Result<Incoming> {
        loop {
            if let Some((message, length)) = decode(&self.input)? {
                self.input.drain(..length);
                return Ok(message);
            }
            let mut bytes = [0; 4096];
            let read = self.stream.read(&mut bytes)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.input.extend(bytes.iter().take(read));
        }
    }
}

fn expect(stream: &mut UnixStream, wanted: &str) -> io::Result<()> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        if line.len() > LINE_MAX {
            return Err(wrong("a line of the authentication without end"));
        }
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        line.extend(byte);
    }
    if line.starts_with(wanted.as_bytes()) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "the bus does not take this user"))
}

impl Bus {
    /// Over a stream of [`connect`]. Needs a tokio runtime.
    pub(crate) async fn over(stream: UnixStream) -> io::Result<Bus> {
        #[expect(
            deprecated,
            reason = "its successor is unsafe for descriptors that may be closed; this one is owned"
        )]
        let stream = AsyncFd::new(stream)?;
        let mut bus = Bus {
            stream,
            serial: 0,
            input: Vec::new(),
            descriptors: VecDeque::new(),
            waiting: VecDeque::new(),
        };
        bus.call(&of_bus("Hello"), &[]).await?;
        Ok(bus)
    }

    /// Hears of the signals of a rule from now on.
    pub(crate) async fn add_match(&mut self, rule: &str) -> io::Result<()> {
        self.call(&of_bus("AddMatch"), &[Text(rule)]).await.map(drop)
    }

    /// Calls a method. Answers what it returned.
    pub(crate) async fn call(
        &mut self,
        method: &Method<'_>,
        arguments: &[Argument<'_>],
    ) -> io::Result<Incoming> {
        self.serial += 1;
        let (serial, message) = (self.serial, encode(self.serial, method, arguments));
        self.send(&message).await?;
        loop {
            let message = self.read().await?;
            if message.reply_to == Some(serial) {
                return match message.kind {
                    RETURN => Ok(message),
                    // An error, of which the name says enough.
                    _ => Err(io::Error::other(format!("{}: {}", method.member, message.error))),
                };
            }
            if message.kind == SIGNAL && self.waiting.len() < WAITING_MAX {
                self.waiting.push_back(message);
            }
        }
    }

    /// The next signal.
    pub(crate) async fn signal(&mut self) -> io::Result<Incoming> {
        loop {
            let message = match self.waiting.pop_front() {
                Some(message) => message,
                None => self.read().await?,
            };
            if message.kind == SIGNAL {
                return Ok(message);
            }
        }
    }

    /// A descriptor that came with the last answer.
    pub(crate) fn descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptors.pop_back()
    }

    async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let mut left = message;
        while !left.is_empty() {
            let mut ready = self.stream.writable().await?;
            match ready.try_io(|stream| stream.get_ref().write(left)) {
                Ok(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(Ok(sent)) => left = left.get(sent..).unwrap_or_default(),
                Ok(Err(error)) => return Err(error),
                Err(_) => {}
            }
        }
        Ok(())
    }

    async fn read(&mut self) -> io::Result<Incoming> {
        loop {
            if let Some((message, length)) = decode(&self.input)? {
                self.input.drain(..length);
                return Ok(message);
            }
            let mut ready = self.stream.readable().await?;
            let received = ready.try_io(|stream| receive(stream.get_ref()));
            match received {
                Ok(Ok((bytes, descriptors))) => {
                    if bytes.is_empty() {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    self.input.extend(bytes);
                    // Nobody asks for more than one.
                    self.descriptors.extend(descriptors);
                    self.descriptors.truncate(1);
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => {}
            }
        }
    }
}

/// What can be read now, and the descriptors that came with it.
fn receive(stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(rights) => Some(rights.collect::<Vec<_>>()),
        _ => None,
    });
    let descriptors = descriptors.flatten().collect();
    bytes.truncate(received.bytes);
    Ok((bytes, descriptors))
}

fn of_bus(member: &str) -> Method<'_> {
    let name = "org.freedesktop.DBus";
    Method { destination: name, path: "/org/freedesktop/DBus", interface: name, member }
}

fn align(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    align(bytes, 4);
    bytes.extend(u32::try_from(text.len()).unwrap_or(0).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.push(0);
}

/// An array of structures: its length counts from the first one, which begins at a multiple of eight.
fn put_array(bytes: &mut Vec<u8>, put: impl FnOnce(&mut Vec<u8>)) {
    align(bytes, 4);
    let at = bytes.len();
    bytes.extend([0; 4]);
    align(bytes, 8);
    let begin = bytes.len();
    put(bytes);
    let length = u32::try_from(bytes.len() - begin).unwrap_or(0).to_le_bytes();
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&length);
    }
}

/// A structure of a name and a variant.
fn put_property(bytes: &mut Vec<u8>, (name, value): &(&str, Property<'_>)) {
    align(bytes, 8);
    put_text(bytes, name);
    let kind = match value {
        Property::Text(_) => b's',
        Property::Flag(_) => b'b',
        Property::Number(_) => b't',
    };
    bytes.extend([1, kind, 0]);
    match value {
        Property::Text(text) => put_text(bytes, text),
        Property::Flag(flag) => {
            align(bytes, 4);
            bytes.extend(u32::from(*flag).to_le_bytes());
        }
        Property::Number(number) => {
            align(bytes, 8);
            bytes.extend(number.to_le_bytes());
        }
    }
}

/// A call as it is sent.
fn encode(serial: u32, method: &Method<'_>, arguments: &[Argument<'_>]) -> Vec<u8> {
    let (mut body, mut signature) = (Vec::new(), Vec::new());
    for argument in arguments {
        match argument {
            Text(text) => {
                put_text(&mut body, text);
                signature.push(b's');
            }
            Number(number) => {
                align(&mut body, 4);
                body.extend(number.to_le_bytes());
                signature.push(b'i');
            }
            Flag(flag) => {
                align(&mut body, 4);
                body.extend(u32::from(*flag).to_le_bytes());
                signature.push(b'b');
            }
            Properties(properties) => {
                put_array(&mut body, |body| properties.iter().for_each(|one| put_property(body, one)));
                signature.extend(b"a(sv)");
            }
            NoUnits => {
                put_array(&mut body, |_| {});
                signature.extend(b"a(sa(sv))");
            }
        }
    }
    let mut fields = Vec::new();
    let mut text = |code: u8, kind: u8, text: &str| {
        align(&mut fields, 8);
        fields.extend([code, 1, kind, 0]);
        put_text(&mut fields, text);
    };
    text(1, b'o', method.path);
    text(2, b's', method.interface);
    text(3, b's', method.member);
    text(6, b's', method.destination);
    if !arguments.is_empty() {
        align(&mut fields, 8);
        fields.extend([8, 1, b'g', 0, u8::try_from(signature.len()).unwrap_or(0)]);
        fields.extend(signature);
        fields.push(0);
    }
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(0).to_le_bytes();
    let mut message = vec![b'l', CALL, 0, 1];
    message.extend(length(&body));
    message.extend(serial.to_le_bytes());
    message.extend(length(&fields));
    message.extend(fields);
    align(&mut message, 8);
    message.extend(body);
    message
}

/// The message that the bytes begin with, and how many it has; `None`: there are too few yet.
fn decode(bytes: &[u8]) -> io::Result<Option<(Incoming, usize)>> {
    let Some(head) = bytes.first_chunk::<16>() else { return Ok(None) };
    let [endian, kind, _, version, rest @ ..] = *head;
    if endian != b'l' || version != 1 || !(CALL..=SIGNAL).contains(&kind) {
        return Err(wrong("another byte order, version or kind"));
    }
    let number = |at: usize| {
        let bytes = rest.get(at..at + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        bytes.map_or(0, u32::from_le_bytes) as usize
    };
    let (body, fields) = (number(0), number(8));
    if body > MESSAGE_MAX || fields > MESSAGE_MAX {
        return Err(wrong("a message that is too long"));
    }
    let begin = (16 + fields).next_multiple_of(8);
    let (Some(head), Some(body)) = (bytes.get(16..16 + fields), bytes.get(begin..begin + body)) else {
        return Ok(None);
    };
    let mut message = Incoming {
        kind,
        reply_to: None,
        member: String::new(),
        interface: String::new(),
        error: String::new(),
        body: body.to_vec(),
    };
    read_fields(head, &mut message).ok_or_else(|| wrong("a header that makes no sense"))?;
    Ok(Some((message, begin + body.len())))
}

/// The header's fields. `None`: they make no sense.
fn read_fields(bytes: &[u8], message: &mut Incoming) -> Option<()> {
    let mut at = 0;
    while at < bytes.len() {
        at = at.next_multiple_of(8);
        let [code, 1, kind, 0] = *bytes.get(at..)?.first_chunk()? else { return None };
        at += 4;
        match kind {
            b'u' => {
                let value = u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?);
                at += 4;
                if code == 5 {
                    message.reply_to = Some(value);
                }
            }
            b's' | b'o' => {
                let length = u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?) as usize;
                let text = std::str::from_utf8(bytes.get(at + 4..at + 4 + length)?).ok()?;
                at += 4 + length + 1;
                match code {
                    2 => text.clone_into(&mut message.interface),
                    3 => text.clone_into(&mut message.member),
                    4 => text.clone_into(&mut message.error),
                    _ => {}
                }
            }
            b'g' => at += usize::from(*bytes.get(at)?) + 2,
            _ => return None,
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_read_again_and_half_of_it_is_waited_for() {
        let method = Method { destination: "a.b", path: "/c", interface: "d.e", member: "F" };
        let properties =
            [("A", Property::Text("b")), ("C", Property::Number(9)), ("D", Property::Flag(true))];
        let all = [Text("one"), Number(-2), Text(""), Flag(true), Properties(&properties), NoUnits];
        let bytes = encode(7, &method, &all);
        let (message, length) = decode(&bytes).unwrap().unwrap();
        assert_eq!((message.member.as_str(), message.interface.as_str(), length), ("F", "d.e", bytes.len()));
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end]).unwrap().is_none(), "{end}");
        }
    }

    #[test]
    fn nonsense_is_an_error_and_never_a_panic() {
        let method = Method { destination: "a.b", path: "/c", interface: "d.e", member: "F" };
        let bytes = encode(7, &method, &[Text("one")]);
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bent = bytes.clone();
                bent[at] = value;
                let _ = decode(&bent);
            }
        }
        let mut long = bytes;
        long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(decode(&long).is_err());
    }
}
