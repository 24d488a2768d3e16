//! A device, or its router, with the quirks of the field. It answers each ReadProperty with 21.5 (480 for the length of its APDUs), and each
//! WriteProperty as done.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use dmi::Scalar;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

pub(crate) const READ_PROPERTY: u8 = 12;
pub(crate) const READ_PROPERTY_MULTIPLE: u8 = 14;
pub(crate) const WRITE_PROPERTY: u8 = 15;

/// What it does otherwise than it should.
#[derive(Debug, Clone, Default)]
pub(crate) struct Quirks {
    /// Services that it says nothing to.
    pub(crate) silent: Vec<u8>,
    /// It is silent to the first so many requests of each kind, and answers them before the next.
    pub(crate) late: usize,
    /// Sent before each answer, with its request's number in place of 0xEE, and the next one in place of 0xED.
    pub(crate) before: Vec<Vec<u8>>,
    /// Sent in place of an answer, in the same way: an APDU.
    pub(crate) instead: Option<Vec<u8>>,
    /// It says nothing of present values.
    pub(crate) is_shy: bool,
    /// What it answers to a registration as a foreign device.
    pub(crate) result: u16,
    /// It has no way to the network that is asked for.
    pub(crate) is_lost: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Inside {
    pub(crate) quirks: Quirks,
    /// The APDUs that came, in their order.
    pub(crate) asked: Vec<Vec<u8>>,
    /// Who asked last.
    pub(crate) client: Option<SocketAddr>,
    owed: Vec<Vec<u8>>,
}

pub(crate) struct Device {
    pub(crate) port: u16,
    pub(crate) inside: Arc<Mutex<Inside>>,
    pub(crate) socket: Arc<UdpSocket>,
    task: JoinHandle<()>,
}

impl Drop for Device {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Device {
    pub(crate) async fn start(quirks: Quirks) -> Self {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let port = socket.local_addr().unwrap().port();
        let inside = Arc::new(Mutex::new(Inside { quirks, ..Inside::default() }));
        let task = tokio::spawn(serve(Arc::clone(&socket), Arc::clone(&inside)));
        Device { port, inside, socket, task }
    }

    pub(crate) fn quirks(&self, quirks: Quirks) {
        self.inside.lock().unwrap().quirks = quirks;
    }

    /// How often a service was asked for.
    pub(crate) fn count(&self, service: u8) -> usize {
        self.inside.lock().unwrap().asked.iter().filter(|apdu| apdu[3] == service).count()
    }

    pub(crate) fn place(&self) -> Vec<(&'static str, Scalar)> {
        vec![
            ("ip", Scalar::Text("127.0.0.1".to_owned())),
            ("port", Scalar::Int(self.port.into())),
            ("localPort", Scalar::Int(0)),
            ("timeoutMs", Scalar::Int(150)),
            ("retries", Scalar::Int(2)),
        ]
    }
}

/// A message to one, with this behind its head.
pub(crate) fn unicast(npdu: &[u8]) -> Vec<u8> {
    let length = u16::try_from(npdu.len() + 4).unwrap().to_be_bytes();
    [&[0x81, 0x0A, length[0], length[1]], npdu].concat()
}

async fn serve(socket: Arc<UdpSocket>, inside: Arc<Mutex<Inside>>) {
    let mut buffer = [0; 1600];
    loop {
        let (count, from) = socket.recv_from(&mut buffer).await.unwrap();
        let answers = inside.lock().unwrap().answers(&buffer[..count], from);
        for answer in answers {
            socket.send_to(&answer, from).await.unwrap();
        }
    }
}

impl Inside {
    fn answers(&mut self, datagram: &[u8], from: SocketAddr) -> Vec<Vec<u8>> {
        self.client = Some(from);
        if datagram[1] == 5 {
            return vec![[&[0x81, 0, 0, 6][..], &self.quirks.result.to_be_bytes()].concat()];
        }
        // Behind a router: where the request goes, there the answer comes from.
        let npdu = &datagram[4..];
        let (head, apdu) = if npdu[1] & 0x20 == 0 {
            (vec![1, 0], &npdu[2..])
        } else {
            let length = usize::from(npdu[4]);
            let place = &npdu[2..5 + length];
            if self.quirks.is_lost {
                return vec![unicast(&[1, 0x80, 3, 1, place[0], place[1]])];
            }
            ([&[1, 8], place].concat(), &npdu[6 + length..])
        };
        if apdu[0] == 0x10 {
            // Who-Is: it is device 7.
            let i_am = [0x10, 0, 0xC4, 2, 0, 0, 7, 0x22, 1, 0xE0, 0x91, 3, 0x21, 1];
            return vec![unicast(&[&[1, 0][..], &i_am].concat())];
        }
        // What it is answered to what it sent by itself is no question.
        if apdu[0] >> 4 != 0 {
            return Vec::new();
        }
        self.asked.push(apdu.to_vec());
        let (invoke, service) = (apdu[2], apdu[3]);
        let is_present = service == READ_PROPERTY && apdu.ends_with(&[0x19, 85]);
        if self.quirks.silent.contains(&service) || (self.quirks.is_shy && is_present) {
            return Vec::new();
        }
        let numbered = |bytes: &Vec<u8>| {
            let of = |byte: &u8| match *byte {
                0xEE => invoke,
                0xED => invoke.wrapping_add(1),
                other => other,
            };
            bytes.iter().map(of).collect::<Vec<u8>>()
        };
        let answer = match (&self.quirks.instead, service) {
            (Some(instead), _) => numbered(instead),
            (None, READ_PROPERTY) => {
                let value: &[u8] =
                    if apdu.ends_with(&[0x19, 62]) { &[0x22, 1, 0xE0] } else { &[0x44, 0x41, 0xAC, 0, 0] };
                [&[0x30, invoke, service], &apdu[4..], &[0x3E], value, &[0x3F]].concat()
            }
            (None, WRITE_PROPERTY) => vec![0x20, invoke, service],
            (None, _) => vec![0x60, invoke, 9],
        };
        let answer = unicast(&[&head[..], &answer].concat());
        if self.quirks.late > 0 {
            self.quirks.late -= 1;
            self.owed.push(answer);
            return Vec::new();
        }
        let before = self.quirks.before.iter().map(numbered);
        std::mem::take(&mut self.owed).into_iter().chain(before).chain([answer]).collect()
    }
}
