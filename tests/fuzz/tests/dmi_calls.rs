//! The DMI server: what a process on the node may send to its socket, well-formed calls with bad content and bytes that are
//! no calls at all.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod node;

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use bytes::{Buf as _, BufMut as _};
use dmi::v1beta1 as pb;
use fuzz::{SplitMix64, endure_async};
use node::{LONG, Node, run};
use prost::Message;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Status};

const PATHS: [&str; 4] = [
    "/v1beta1.DeviceManagerService/MapperRegister",
    "/v1beta1.DeviceManagerService/ReportDeviceStatus",
    "/v1beta1.DeviceManagerService/ReportDeviceStates",
    "/v1beta1.DeviceManagerService/Nothing",
];
/// What opens an HTTP/2 connection, and an empty SETTINGS frame (RFC 9113).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

/// Sends bytes as they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = usize;
    type Encoder = Raw;
    type Decoder = Raw;
    fn encoder(&mut self) -> Raw {
        Raw
    }
    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn encode(&mut self, item: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = usize;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<usize>, Status> {
        let length = from.remaining();
        from.advance(length);
        Ok(Some(length))
    }
}

/// One of each kind; the first makes the caller the mapper of the device.
fn valid(folder: &Path) -> Vec<Vec<u8>> {
    let mapper = pb::MapperInfo {
        name: "m".to_owned(),
        version: "1".to_owned(),
        api_version: "v1beta1".to_owned(),
        protocol: "modbus".to_owned(),
        address: [folder.as_os_str().as_bytes(), b"/m.sock"].concat(),
        state: "ok".to_owned(),
    };
    let twin = pb::Twin {
        property_name: "speed".to_owned(),
        observed_desired: Some(pb::TwinProperty { value: "3".to_owned(), ..Default::default() }),
        reported: Some(pb::TwinProperty { value: "4".to_owned(), ..Default::default() }),
    };
    let status = pb::DeviceStatus { twins: vec![twin.clone(), twin], ..Default::default() };
    vec![
        pb::MapperRegisterRequest { with_data: false, mapper: Some(mapper) }.encode_to_vec(),
        pb::ReportDeviceStatusRequest {
            device_name: "pump".to_owned(),
            reported_device: Some(status),
            device_namespace: "default".to_owned(),
        }
        .encode_to_vec(),
        pb::ReportDeviceStatesRequest {
            device_name: "pump".to_owned(),
            state: "ok".to_owned(),
            device_namespace: "default".to_owned(),
        }
        .encode_to_vec(),
    ]
}

async fn until_there(socket: &Path) {
    let begun = Instant::now();
    while UnixStream::connect(socket).await.is_err() {
        assert!(begun.elapsed() < LONG, "no socket");
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_call_is_taken_or_refused_and_leaves_nothing() {
    run(async |folder| {
        let mut node = Node::start(&folder);
        node.pump().await;
        let socket = folder.join(dmi::SOCKET_NAME);
        until_there(&socket).await;
        let mut client = tonic::client::Grpc::new(dmi::channel(socket.to_str().unwrap()));
        let valid = valid(&folder);
        let valid: Vec<&[u8]> = valid.iter().map(Vec::as_slice).collect();
        client.ready().await.unwrap();
        client
            .unary(Request::new(valid[0].to_vec()), PATHS[0].parse().unwrap(), Raw)
            .await
            .expect("registered");
        let mut taken = [0_u32; 4];
        let left = endure_async(7, async |random| {
            let which = random.below(4);
            let body = match random.below(400) {
                0 => random.bytes(600 << 10),
                1..60 => random.bytes(300),
                // Each kind of call has its own body most of the time.
                60..350 => random.damaged(&[valid[which % 3]]),
                _ => random.damaged(&valid),
            };
            client.ready().await.unwrap();
            let path = PATHS[which].parse().unwrap();
            match client.unary(Request::new(body), path, Raw).await {
                Ok(_) => taken[which] += 1,
                // The actor has died or hangs.
                Err(status) => {
                    assert!(!matches!(status.code(), Code::DeadlineExceeded | Code::Unavailable), "{status}");
                }
            }
            node.drain();
        });
        println!("{} KiB are left; {taken:?} were taken", left.await.unwrap());
        assert!(taken[..3].iter().all(|taken| *taken > 0), "damage lets some of each kind pass: {taken:?}");
        node.stop().await;
    });
}

/// A connection's worth of bytes: noise, or frames of HTTP/2 that do not hold what they say.
fn connection(random: &mut SplitMix64) -> Vec<u8> {
    if random.below(4) == 0 {
        return random.bytes(2000);
    }
    let mut bytes = PREFACE.to_vec();
    for _ in 0..random.below(6) {
        let body = random.bytes(200);
        let length = if random.below(3) == 0 { random.bits() } else { body.len() as u64 };
        bytes.extend_from_slice(&length.to_be_bytes()[5..]);
        bytes.push(random.bits().to_le_bytes()[0] % 12);
        bytes.push(random.bits().to_le_bytes()[0]);
        bytes.extend_from_slice(&u32::try_from(random.below(9)).unwrap().to_be_bytes());
        bytes.extend(body);
    }
    random.damaged(&[&bytes])
}

#[test]
fn bytes_that_are_no_calls_leave_nothing_and_stop_nobody() {
    run(async |folder| {
        let mut node = Node::start(&folder);
        node.pump().await;
        let socket = folder.join(dmi::SOCKET_NAME);
        until_there(&socket).await;
        let left = endure_async(8, async |random| {
            let bytes = connection(random);
            let mut line = UnixStream::connect(&socket).await.expect("the socket takes connections");
            // It may be closed in the middle.
            let _ = line.write_all(&bytes).await;
            let _ = line.shutdown().await;
            node.drain();
        });
        println!("{} KiB are left", left.await.unwrap());
        let mut client = tonic::client::Grpc::new(dmi::channel(socket.to_str().unwrap()));
        for (at, body) in valid(&folder).into_iter().enumerate() {
            client.ready().await.unwrap();
            let answer = client.unary(Request::new(body), PATHS[at].parse().unwrap(), Raw).await;
            answer.expect("an honest mapper is heard");
        }
        node.stop().await;
    });
}
