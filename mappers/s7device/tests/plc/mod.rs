//! A PLC that has one quirk or another, which no library's server has.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

/// What is odd about it.
#[derive(Clone, Default)]
pub(crate) struct Quirks {
    /// The only service access point that takes a connection.
    pub(crate) tsap: Option<u16>,
    /// How large a PDU is that it agrees to; 0: 240.
    pub(crate) pdu: u16,
    /// The error in the head of each answer, but for the agreement.
    pub(crate) error: u16,
    /// It takes connections and says nothing.
    pub(crate) is_hung: bool,
    /// It hangs at requests alone.
    pub(crate) is_deaf: bool,
    /// It sends this in the place of its next answer.
    pub(crate) instead: Option<Vec<u8>>,
    /// It sends its answers in pieces: packets of so many bytes, each byte alone on the wire.
    pub(crate) pieces: Option<usize>,
    /// It closes after each answer.
    pub(crate) closes: bool,
    /// It closes the connection instead of answering a write.
    pub(crate) cuts_at_writes: bool,
}

#[derive(Default)]
pub(crate) struct Inside {
    pub(crate) quirks: Quirks,
    /// The PDUs that it was asked, without the agreements.
    pub(crate) asked: Vec<Vec<u8>>,
    pub(crate) connections: usize,
}

#[derive(Clone)]
pub(crate) struct Plc {
    pub(crate) inside: Arc<Mutex<Inside>>,
    pub(crate) address: SocketAddr,
}

impl Plc {
    pub(crate) async fn start(quirks: Quirks) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let plc = Plc { inside: Arc::new(Mutex::new(Inside { quirks, ..Inside::default() })), address };
        let serving = plc.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                serving.inside.lock().unwrap().connections += 1;
                let plc = serving.clone();
                tokio::spawn(async move { drop(plc.connection(stream).await) });
            }
        });
        plc
    }

    pub(crate) fn quirks(&self) -> Quirks {
        self.inside.lock().unwrap().quirks.clone()
    }

    async fn connection(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let request = packet(&mut stream).await?;
        if self.quirks().is_hung {
            sleep(Duration::from_secs(60)).await;
        }
        let called = u16::from_be_bytes([request[16], request[17]]);
        if self.quirks().tsap.is_some_and(|tsap| tsap != called) {
            stream.write_all(&[3, 0, 0, 11, 6, 0x80, 0, 1, 0, 1, 2]).await?;
            return Ok(());
        }
        stream.write_all(&[3, 0, 0, 11, 6, 0xD0, 0, 1, 0, 2, 0]).await?;
        loop {
            let request = packet(&mut stream).await?;
            let pdu = request[3..].to_vec();
            let quirks = self.quirks();
            let is_setup = pdu[10] == 0xF0;
            if !is_setup {
                self.inside.lock().unwrap().asked.push(pdu.clone());
                if quirks.is_deaf {
                    sleep(Duration::from_secs(60)).await;
                }
                if quirks.cuts_at_writes && pdu[10] == 5 {
                    return Ok(());
                }
            }
            let answer = self.answer(&pdu, &quirks);
            let instead = self.inside.lock().unwrap().quirks.instead.take_if(|_| !is_setup);
            if let Some(instead) = instead {
                stream.write_all(&instead).await?;
                continue;
            }
            send(&mut stream, &answer, quirks.pieces.filter(|_| !is_setup)).await?;
            if quirks.closes && !is_setup {
                return Ok(());
            }
        }
    }

    /// Each byte that is read is 7, whatever its address.
    fn answer(&self, pdu: &[u8], quirks: &Quirks) -> Vec<u8> {
        let (parameters, data) = match pdu[10] {
            0xF0 => {
                let [high, low] = (if quirks.pdu == 0 { 240 } else { quirks.pdu }).to_be_bytes();
                (vec![0xF0, 0, 0, 1, 0, 1, high, low], Vec::new())
            }
            4 => {
                let mut data = Vec::new();
                for item in pdu[12..].chunks(12) {
                    let count = u16::from_be_bytes([item[4], item[5]]);
                    let [high, low] = (count * 8).to_be_bytes();
                    if data.len() % 2 == 1 {
                        data.push(0);
                    }
                    data.extend([0xFF, 4, high, low]);
                    data.extend(vec![7; count.into()]);
                }
                (vec![4, pdu[11]], data)
            }
            _ => (vec![5, 1], vec![0xFF]),
        };
        let error = if pdu[10] == 0xF0 { 0 } else { quirks.error };
        let (parameters, data) = if error == 0 { (parameters, data) } else { (Vec::new(), Vec::new()) };
        let length = |part: &[u8]| u16::try_from(part.len()).unwrap().to_be_bytes();
        let head = [
            &[0x32, 3, 0, 0, pdu[4], pdu[5]][..],
            &length(&parameters),
            &length(&data),
            &error.to_be_bytes(),
        ];
        [head.concat(), parameters, data].concat()
    }
}

async fn packet(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let mut packet = vec![0; usize::from(u16::from_be_bytes([head[2], head[3]])) - 4];
    stream.read_exact(&mut packet).await?;
    Ok(packet)
}

async fn send(stream: &mut TcpStream, pdu: &[u8], pieces: Option<usize>) -> std::io::Result<()> {
    let parts: Vec<&[u8]> = pdu.chunks(pieces.unwrap_or(usize::MAX)).collect();
    for (at, part) in parts.iter().enumerate() {
        let [high, low] = u16::try_from(part.len() + 7).unwrap().to_be_bytes();
        let last = if at + 1 == parts.len() { 0x80 } else { 0 };
        let packet = [&[3, 0, high, low, 2, 0xF0, last], *part].concat();
        if pieces.is_some() {
            stream.set_nodelay(true)?;
            for byte in packet {
                stream.write_all(&[byte]).await?;
            }
        } else {
            stream.write_all(&packet).await?;
        }
    }
    Ok(())
}
