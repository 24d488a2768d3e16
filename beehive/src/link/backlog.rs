//! The backlog of a stream: bytes that wait for its reader, in memory of their own.
//!
//! What comes from the pipe is a piece of a larger buffer, and a piece that waits keeps the whole of it; one byte in a frame
//! of its own costs a hundred. So bytes are copied, and small frames share a piece: what waits costs what it is long and at
//! most a fourth beside, whatever the frames were.

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};

/// 512 bytes to 8 KiB: a piece. Each costs some 50 bytes beside its own.
const PIECE: (usize, usize) = (512, 8 << 10);

/// The bytes that wait, in order.
#[derive(Default)]
pub(super) struct Backlog {
    pieces: VecDeque<BytesMut>,
    len: usize,
}

impl Backlog {
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        self.len += bytes.len();
        if let Some(last) = self.pieces.back_mut() {
            let (fits, rest) = bytes.split_at(bytes.len().min(last.capacity() - last.len()));
            last.extend_from_slice(fits);
            bytes = rest;
        }
        let (least, most) = PIECE;
        while !bytes.is_empty() {
            // A stream that holds little takes little.
            let size = bytes.len().max(self.len / 4).clamp(least, most);
            let (fits, rest) = bytes.split_at(bytes.len().min(size));
            let mut piece = BytesMut::with_capacity(size);
            piece.extend_from_slice(fits);
            self.pieces.push_back(piece);
            bytes = rest;
        }
    }

    /// Takes as many bytes as `into` has room for and are there in one piece; answers how many.
    pub(super) fn take(&mut self, into: &mut [u8]) -> usize {
        let Some(first) = self.pieces.front_mut() else { return 0 };
        let taken = first.len().min(into.len());
        if let (Some(into), Some(bytes)) = (into.get_mut(..taken), first.get(..taken)) {
            into.copy_from_slice(bytes);
        }
        first.advance(taken);
        if first.is_empty() {
            self.pieces.pop_front();
        }
        if self.pieces.is_empty() {
            self.pieces = VecDeque::new();
        }
        self.len -= taken;
        taken
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn clear(&mut self) {
        *self = Backlog::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What it costs, with what an allocator and the row of pieces take.
    fn cost(held: &Backlog) -> usize {
        let pieces: usize = held.pieces.iter().map(|piece| piece.capacity() + 16).sum();
        pieces + held.pieces.capacity() * size_of::<BytesMut>()
    }

    #[test]
    fn one_byte_in_a_frame_of_its_own_costs_a_byte() {
        let mut held = Backlog::default();
        for _ in 0..256 << 10 {
            held.push(&[7]);
        }
        assert_eq!(held.len, 256 << 10);
        assert!(cost(&held) < (256 << 10) * 5 / 4, "{}", cost(&held));
        let mut few = Backlog::default();
        few.push(&[1]);
        assert!(cost(&few) < 1024, "{}", cost(&few));
        few.take(&mut [0; 10]);
        assert_eq!(cost(&few), 0);
    }

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(
            frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..9000), 1..20),
            room in 1_usize..5000,
        ) {
            let (mut held, mut out) = (Backlog::default(), Vec::new());
            let mut into = vec![0; room];
            for (number, frame) in frames.iter().enumerate() {
                held.push(frame);
                if number % 3 == 0 {
                    let taken = held.take(&mut into);
                    out.extend_from_slice(&into[..taken]);
                }
            }
            while !held.is_empty() {
                let taken = held.take(&mut into);
                out.extend_from_slice(&into[..taken]);
            }
            prop_assert_eq!(out, frames.concat());
        }
    }
}
