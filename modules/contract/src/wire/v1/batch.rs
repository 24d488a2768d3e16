//! Batches of version 1: each entry has its row, its kind and its length in front, and is decoded by itself.
//!
//! ```text
//! form u8 (0: as it is, 1: deflated) | entries
//! entry: row i64 | flags u8 (bit 0: the node may have sent this row before) | kind u16 | length u32 | body
//! ```

use std::borrow::Cow;

use crate::batch::{Batch, DecodedBatch, SkipReason, SkippedRow};
use crate::wire::deflate::{deflate, inflate};
use crate::wire::{BATCH_MAX, BODY_MAX, WireError};

const PLAIN: u8 = 0;
const DEFLATED: u8 = 1;
const REPEAT: u8 = 1;
/// 256 bytes: what is shorter gains nothing that a packet would show.
const DEFLATE_FROM: usize = 256;

/// One entry.
pub(crate) struct BatchEntry {
    pub(crate) row: i64,
    pub(crate) repeat: bool,
    pub(crate) kind: u16,
    pub(crate) body: Vec<u8>,
}

/// A batch that was made here, as bytes. Deflated where the other end understands that and it is shorter.
pub(crate) fn encode<T>(
    batch: Batch<T>,
    deflates: bool,
    entry: impl Fn(T) -> Result<BatchEntry, WireError>,
) -> Result<Vec<u8>, WireError> {
    let DecodedBatch { items, skipped, .. } = batch.open()?;
    if !skipped.is_empty() {
        return Err(WireError::Received);
    }
    let mut entries = vec![PLAIN];
    for item in items {
        let BatchEntry { row, repeat, kind, body } = entry(item)?;
        entries.extend(row.to_le_bytes());
        entries.push(if repeat { REPEAT } else { 0 });
        entries.extend(kind.to_le_bytes());
        entries.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
        entries.extend(body);
    }
    if deflates && entries.len() >= DEFLATE_FROM {
        let deflated = deflate(entries.get(1..).unwrap_or_default());
        if deflated.len() + 1 < entries.len() {
            return Ok([&[DEFLATED], deflated.as_slice()].concat());
        }
    }
    Ok(entries)
}

/// What a batch holds. `item` makes one of its row, whether it is a repeat, its kind and its body.
pub(crate) fn open<T>(
    bytes: &[u8],
    item: impl Fn(i64, bool, u16, &[u8]) -> Result<T, SkipReason>,
) -> Result<DecodedBatch<T>, WireError> {
    let entries = match bytes.split_first() {
        Some((&PLAIN, entries)) => Cow::Borrowed(entries),
        Some((&DEFLATED, entries)) => {
            let most = usize::try_from(BODY_MAX).unwrap_or(usize::MAX);
            Cow::Owned(inflate(entries, most).ok_or(WireError::Deflated)?)
        }
        Some(_) | None => return Err(WireError::Batch),
    };
    let (mut items, mut skipped) = (Vec::new(), Vec::new());
    let mut rest: &[u8] = &entries;
    while !rest.is_empty() {
        if items.len() + skipped.len() == BATCH_MAX {
            return Err(WireError::Batch);
        }
        let (row, flags, kind, body) = entry(&mut rest).ok_or(WireError::Batch)?;
        match item(row, flags & REPEAT != 0, kind, body) {
            Ok(item) => items.push(item),
            Err(reason) => skipped.push(SkippedRow { row, reason }),
        }
    }
    Ok(DecodedBatch { items, skipped, bytes: entries.len() })
}

/// The next entry: row, flags, kind and body.
fn entry<'a>(rest: &mut &'a [u8]) -> Option<(i64, u8, u16, &'a [u8])> {
    let row = i64::from_le_bytes(*chunk(rest)?);
    let [flags] = *chunk(rest)?;
    let kind = u16::from_le_bytes(*chunk(rest)?);
    let length = usize::try_from(u32::from_le_bytes(*chunk(rest)?)).ok()?;
    let (body, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some((row, flags, kind, body))
}

fn chunk<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (chunk, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(chunk)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Item = (i64, bool, Vec<u8>);

    fn made(items: &[Item], deflates: bool) -> Vec<u8> {
        let entry = |(row, repeat, body): Item| Ok(BatchEntry { row, repeat, kind: 3, body });
        encode(Batch::from(items.to_vec()), deflates, entry).unwrap()
    }

    fn opened(bytes: &[u8]) -> Result<DecodedBatch<Item>, WireError> {
        open(bytes, |row, repeat, kind, body| match (kind, body) {
            (3, [0xff, ..]) => Err(SkipReason::Malformed { kind }),
            (3, body) => Ok((row, repeat, body.to_vec())),
            (kind, _) => Err(SkipReason::Unknown { kind }),
        })
    }

    #[test]
    fn what_repeats_itself_is_deflated_for_those_who_understand_it() {
        let items = [(1, false, b"{\"type\":\"Ready\"}".repeat(50)), (i64::MAX, true, vec![])];
        let (plain, deflated) = (made(&items, false), made(&items, true));
        assert!(plain.len() > 800 && deflated.len() < 150, "{} and {}", plain.len(), deflated.len());
        for bytes in [plain, deflated] {
            let opened = opened(&bytes).unwrap();
            assert_eq!((opened.items, opened.skipped), (items.to_vec(), vec![]));
        }
        // What gains nothing goes as it is: something short, and bytes of which no two in a row are alike.
        let dense: Vec<u8> = (0..=255_u8).map(|n| n.wrapping_mul(167) ^ (n >> 3)).collect();
        for body in [vec![7; 100], dense] {
            assert_eq!(made(&[(1, false, body.clone())], true), made(&[(1, false, body)], false));
        }
    }

    #[test]
    fn an_entry_that_is_not_understood_is_skipped_alone() {
        let mut bytes = made(&[(1, false, vec![1]), (2, true, vec![0xff, 1])], false);
        bytes.extend(
            [&4_i64.to_le_bytes()[..], &[0xfe], &9_u16.to_le_bytes(), &2_u32.to_le_bytes(), &[5, 6]].concat(),
        );
        bytes.extend(&made(&[(5, true, vec![2])], false)[1..]);
        let opened = opened(&bytes).unwrap();
        assert_eq!(opened.items, [(1, false, vec![1]), (5, true, vec![2])]);
        let skipped = |row, reason| SkippedRow { row, reason };
        assert_eq!(
            opened.skipped,
            [skipped(2, SkipReason::Malformed { kind: 3 }), skipped(4, SkipReason::Unknown { kind: 9 })]
        );
    }

    #[test]
    fn what_is_no_batch_is_refused_as_a_whole() {
        let good = made(&[(1, false, vec![1, 2, 3])], false);
        for cut in 2..good.len() {
            assert!(matches!(opened(&good[..cut]), Err(WireError::Batch)), "{cut}");
        }
        assert_eq!(opened(&good[..1]).unwrap(), DecodedBatch { items: vec![], skipped: vec![], bytes: 0 });
        assert!(matches!(opened(&[]), Err(WireError::Batch)));
        assert!(matches!(opened(&[2]), Err(WireError::Batch)));
        assert!(matches!(opened(&[1, 0xff, 0xff]), Err(WireError::Deflated)));
        let bomb = [&[DEFLATED], deflate(&vec![0; 64 << 20]).as_slice()].concat();
        assert!(bomb.len() < 1 << 20 && matches!(opened(&bomb), Err(WireError::Deflated)));
        let many = vec![(1, false, vec![]); BATCH_MAX + 1];
        assert!(matches!(opened(&made(&many, true)), Err(WireError::Batch)));
        assert_eq!(opened(&made(&many[1..], true)).unwrap().items.len(), BATCH_MAX);
    }
}
