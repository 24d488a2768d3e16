//! A client for threads: it blocks, so that it may be as fast or as slow as a test wants it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::{SOON, connect};

pub(crate) struct BlockingClient {
    socket: TcpStream,
    buffer: Vec<u8>,
    start: usize,
}

impl BlockingClient {
    pub(crate) fn raw(address: SocketAddr) -> BlockingClient {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        BlockingClient { socket, buffer: Vec::new(), start: 0 }
    }

    /// A client that is connected: clean session, no keep-alive, no will.
    pub(crate) fn client(address: SocketAddr, id: &str) -> BlockingClient {
        let mut line = BlockingClient::raw(address);
        line.send(&connect(id, true, 0, None));
        assert_eq!(line.next(), Some((0x20, vec![0, 0])));
        line
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// Whether the broker still takes it.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).is_ok()
    }

    /// The code of the CONNACK; 255 when the broker closes without one.
    pub(crate) fn code(&mut self) -> u8 {
        match self.try_next() {
            Some((0x20, body)) => *body.get(1).unwrap(),
            other => {
                assert_eq!(other, None);
                255
            }
        }
    }

    /// The next packet; `None` also when the broker reset the connection.
    fn try_next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some(packet) = self.whole() {
                return Some(packet);
            }
            let mut some = [0; 64];
            match self.socket.read(&mut some) {
                Ok(count @ 1..) => self.buffer.extend_from_slice(some.get(..count).unwrap()),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("no answer");
                }
                Ok(_) | Err(_) => return None,
            }
        }
    }

    /// Says that nothing more comes, and waits for the broker to close.
    pub(crate) fn finish(mut self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Write);
        let mut some = [0; 4096];
        loop {
            match self.socket.read(&mut some) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("connection stays open");
                }
                Err(_) => return,
            }
        }
    }

    /// First byte and body of the next packet; `None` when the broker has closed.
    pub(crate) fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some(packet) = self.whole() {
                return Some(packet);
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            let mut some = [0; 16 << 10];
            match self.socket.read(&mut some) {
                Ok(0) => return None,
                Ok(count) => self.buffer.extend_from_slice(some.get(..count).unwrap()),
                Err(error) => panic!("nothing comes: {error}"),
            }
        }
    }

    fn whole(&mut self) -> Option<(u8, Vec<u8>)> {
        let rest = self.buffer.get(self.start..)?;
        let (mut length, mut header) = (0, 1);
        loop {
            let byte = *rest.get(header)?;
            length |= usize::from(byte & 0x7f) << (7 * (header - 1));
            header += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let body = rest.get(header..header + length)?.to_vec();
        let first = *rest.first()?;
        self.start += header + length;
        Some((first, body))
    }
}
