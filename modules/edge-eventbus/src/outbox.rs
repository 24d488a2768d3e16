//! What is about to be written to a client. Pure.
//!
//! Small packets are copied one behind the other; the payload of a large message stays where it is, and is shared by all clients that
//! get it: a hundred that read slowly hold one copy of it and not a hundred.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

/// 16 KiB: a payload that is as large is not copied.
const SHARED_BYTES: usize = 16 << 10;

/// Where packets are written.
pub(crate) trait PacketSink {
    /// Bytes that are in it.
    fn size(&self) -> usize;

    /// Takes what stands before a payload, and packets that have none.
    fn head(&mut self) -> &mut BytesMut;

    /// Takes the payload of a message.
    fn put_payload(&mut self, payload: &Bytes);
}

impl PacketSink for BytesMut {
    fn size(&self) -> usize {
        self.len()
    }

    fn head(&mut self) -> &mut BytesMut {
        self
    }

    fn put_payload(&mut self, payload: &Bytes) {
        self.put_slice(payload);
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// What goes first.
    parts: VecDeque<Bytes>,
    parts_size: usize,
    /// What goes behind it.
    tail: BytesMut,
}

impl Outbox {
    /// Takes the next piece out of it; `None`: it is empty.
    pub(crate) fn take_part(&mut self) -> Option<Bytes> {
        let part = match self.parts.pop_front() {
            Some(part) => {
                self.parts_size -= part.len();
                part
            }
            None if self.tail.is_empty() => return None,
            None => self.tail.split().freeze(),
        };
        Some(part)
    }

    fn push(&mut self, part: Bytes) {
        self.parts_size += part.len();
        self.parts.push_back(part);
    }
}

impl PacketSink for Outbox {
    fn size(&self) -> usize {
        self.parts_size + self.tail.len()
    }

    fn head(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    fn put_payload(&mut self, payload: &Bytes) {
        if payload.len() < SHARED_BYTES {
            self.tail.put_slice(payload);
            return;
        }
        if !self.tail.is_empty() {
            let before = self.tail.split().freeze();
            self.push(before);
        }
        self.push(payload.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_payload_is_shared_and_all_stands_in_its_order() {
        let (large, small) = (Bytes::from(vec![7; SHARED_BYTES]), Bytes::from_static(b"small"));
        let mut out = Outbox::default();
        out.head().put_slice(b"a");
        out.put_payload(&small);
        out.head().put_slice(b"b");
        out.put_payload(&large);
        out.put_payload(&large);
        out.head().put_slice(b"c");
        assert_eq!(out.size(), 8 + 2 * SHARED_BYTES);
        assert_eq!(out.take_part().unwrap(), b"asmallb".as_slice());
        for _ in 0..2 {
            assert_eq!(out.take_part().unwrap().as_ptr(), large.as_ptr(), "it is no copy");
        }
        assert_eq!(
            (out.take_part().unwrap(), out.take_part(), out.size()),
            (Bytes::from_static(b"c"), None, 0)
        );
    }
}
