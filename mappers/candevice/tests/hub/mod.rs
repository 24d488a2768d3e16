//! A strict stand-in of a socketcand, and of the bus behind it: what one client sends, all others get.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

#[derive(Default)]
struct Inside {
    clients: BTreeMap<usize, mpsc::UnboundedSender<String>>,
    joined: usize,
    /// Frames that were sent, as id and data.
    sent: Vec<(String, String)>,
    /// What a client did that no socketcand takes.
    wrong: Vec<String>,
}

#[derive(Clone, Default)]
pub(crate) struct Hub {
    inside: Arc<Mutex<Inside>>,
    pub(crate) port: u16,
}

impl Hub {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hub = Hub { port: listener.local_addr().unwrap().port(), ..Hub::default() };
        let serving = hub.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let hub = serving.clone();
                tokio::spawn(async move { hub.client(stream).await });
            }
        });
        hub
    }

    /// A frame that somebody on the bus sends.
    pub(crate) fn put(&self, id: &str, data: &str) {
        let inside = self.inside.lock().unwrap();
        inside
            .clients
            .values()
            .for_each(|client| drop(client.send(format!("< frame {id} 1.000000 {data} >"))));
    }

    /// The data of all frames with this id, in the order in which they were sent.
    pub(crate) fn sent(&self, id: &str) -> Vec<String> {
        let inside = self.inside.lock().unwrap();
        inside.sent.iter().filter(|(of, _)| of == id).map(|(_, data)| data.clone()).collect()
    }

    pub(crate) fn clients(&self) -> usize {
        self.inside.lock().unwrap().clients.len()
    }

    /// What was wrong of what clients said.
    pub(crate) fn wrong(&self) -> Vec<String> {
        self.inside.lock().unwrap().wrong.clone()
    }

    async fn client(&self, mut stream: TcpStream) {
        stream.write_all(b"< hi >").await.unwrap();
        let mut waiting = String::new();
        for wanted in ["< open can0 >", "< rawmode >"] {
            let Some(said) = next(&mut stream, &mut waiting).await else { return };
            if said != wanted {
                self.inside.lock().unwrap().wrong.push(said);
                drop(stream.write_all(b"< error unknown command >").await);
                return;
            }
            stream.write_all(b"< ok >").await.unwrap();
        }
        let (outbox, mut frames) = mpsc::unbounded_channel();
        let me = {
            let mut inside = self.inside.lock().unwrap();
            inside.joined += 1;
            let me = inside.joined;
            inside.clients.insert(me, outbox);
            me
        };
        loop {
            tokio::select! {
                Some(frame) = frames.recv() => {
                    if stream.write_all(frame.as_bytes()).await.is_err() {
                        break;
                    }
                }
                said = next(&mut stream, &mut waiting) => match said {
                    Some(said) => self.forward(me, &said),
                    None => break,
                },
            }
        }
        self.inside.lock().unwrap().clients.remove(&me);
    }

    fn forward(&self, from: usize, said: &str) {
        let mut inside = self.inside.lock().unwrap();
        let words: Vec<&str> = said.trim_matches(['<', '>']).split_whitespace().collect();
        let ["send", id, length, bytes @ ..] = words.as_slice() else {
            return inside.wrong.push(said.to_owned());
        };
        let is_id = matches!(id.len(), 3 | 8) && u32::from_str_radix(id, 16).is_ok();
        let parsed: Option<Vec<u8>> =
            bytes.iter().map(|byte| u8::from_str_radix(byte, 16).ok().filter(|_| byte.len() <= 2)).collect();
        let is_right = is_id && length.parse() == Ok(bytes.len()) && bytes.len() <= 8;
        let Some(parsed) = parsed.filter(|_| is_right) else { return inside.wrong.push(said.to_owned()) };
        let data: String = parsed.iter().map(|byte| format!("{byte:02X}")).collect();
        inside.sent.push(((*id).to_owned(), data.clone()));
        for (_, client) in inside.clients.iter().filter(|(client, _)| **client != from) {
            drop(client.send(format!("< frame {id} 1.000000 {data} >")));
        }
    }
}

/// What a client says next, with its brackets.
async fn next(stream: &mut TcpStream, waiting: &mut String) -> Option<String> {
    loop {
        if let Some(end) = waiting.find('>') {
            let said = waiting.drain(..=end).collect::<String>();
            return Some(said.trim().to_owned());
        }
        let mut some = [0; 1024];
        let count = stream.read(&mut some).await.ok().filter(|count| *count > 0)?;
        waiting.push_str(std::str::from_utf8(&some[..count]).ok()?);
    }
}
