//! Bytes that are held for a reader, a little at a time: what was made of them counts until the last of them is taken.

use std::io;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};

use crate::budget::BudgetPermit;

/// 16 KiB at a time.
const PIECE: usize = 16 << 10;

/// Bytes of an answer in pieces.
pub(crate) type Pieces = BoxStream<'static, io::Result<Bytes>>;

struct Counted {
    bytes: Vec<u8>,
    _held: Option<BudgetPermit>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Bytes that count as `held` as long as any of them is there.
pub(crate) fn counted(bytes: Vec<u8>, held: Option<BudgetPermit>) -> Bytes {
    Bytes::from_owner(Counted { bytes, _held: held })
}

/// What of `rest` goes next.
pub(crate) fn next_piece(rest: &mut Bytes) -> Option<Bytes> {
    (!rest.is_empty()).then(|| rest.split_to(rest.len().min(PIECE)))
}

/// A whole body in pieces.
pub(crate) fn whole(bytes: Vec<u8>, held: Option<BudgetPermit>) -> Pieces {
    let mut rest = counted(bytes, held);
    stream::iter(std::iter::from_fn(move || next_piece(&mut rest).map(Ok))).boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{Budget, Origin};

    #[tokio::test]
    async fn a_body_counts_until_its_last_piece_is_gone() {
        let budget = Budget::default();
        let mut held = budget.answer(Origin::Link).unwrap();
        held.fit(12 << 20).unwrap();
        let mut pieces = whole(vec![7; PIECE + 1], Some(held));
        let (first, last) = (pieces.next().await.unwrap().unwrap(), pieces.next().await.unwrap().unwrap());
        assert_eq!((first.len(), last.len()), (PIECE, 1));
        assert!(pieces.next().await.is_none());
        drop((pieces, first));
        assert!(budget.answer(Origin::Link).is_err());
        drop(last);
        assert!(budget.answer(Origin::Link).is_ok());
    }
}
