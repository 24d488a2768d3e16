//! Requests of S7 and their answers. Pure.

use crate::place::Place;

const PROTOCOL: u8 = 0x32;
const JOB: u8 = 1;
const ANSWER: u8 = 2;
const ANSWER_WITH_DATA: u8 = 3;
/// Functions.
pub(crate) const SETUP: u8 = 0xF0;
pub(crate) const READ: u8 = 4;
pub(crate) const WRITE: u8 = 5;
/// What is asked for: bits or bytes, and how the bytes that come along are counted.
const BIT: u8 = 1;
const BYTES: u8 = 2;
const AS_BIT: u8 = 3;
const IN_BITS: u8 = 4;
/// The head of a request, that of an answer, and what one value adds to each.
const REQUEST_HEAD: usize = 12;
const ANSWER_HEAD: usize = 14;
const REQUEST_ITEM: usize = 12;
const ANSWER_ITEM: usize = 4;
/// 20: values in one request.
const ITEMS_MAX: usize = 20;
/// What of a PDU is not the value that is written.
const WRITE_OVERHEAD: usize = 35;
/// The smallest PDU that an answer may be made of.
const PDU_LEAST: u16 = 64;

/// So many bytes from a place on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) place: Place,
    pub(crate) bytes: usize,
}

/// What the PLC has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) parameters: Vec<u8>,
    pub(crate) data: Vec<u8>,
}

/// Why there is no answer in what has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotAnswered {
    /// It is not the answer to this request: the connection is out of step.
    Stranger(String),
    /// The request was refused.
    Refused(u16),
}

/// Agrees on how large a PDU may be, and that there is one request at a time.
pub(crate) fn setup(reference: u16, pdu: u16) -> Vec<u8> {
    let [high, low] = pdu.to_be_bytes();
    request(reference, &[SETUP, 0, 0, 1, 0, 1, high, low], &[])
}

/// Reads these. How many fit says [`fitting`].
pub(crate) fn read(reference: u16, items: &[Item]) -> Vec<u8> {
    let mut parameters = vec![READ, u8::try_from(items.len()).unwrap_or(u8::MAX)];
    for item in items {
        parameters.extend(address(&item.place, BYTES, item.bytes));
    }
    request(reference, &parameters, &[])
}

/// Writes one value: a bit, or bytes.
pub(crate) fn write(reference: u16, place: &Place, bytes: &[u8]) -> Vec<u8> {
    let (kind, as_kind, length) = match place.bit {
        Some(_) => (BIT, AS_BIT, 1),
        None => (BYTES, IN_BITS, bytes.len() * 8),
    };
    let parameters = [&[WRITE, 1], &address(place, kind, bytes.len())[..]].concat();
    let length = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    request(reference, &parameters, &[&[0, as_kind, length[0], length[1]], bytes].concat())
}

fn address(place: &Place, kind: u8, count: usize) -> [u8; REQUEST_ITEM] {
    let (area, block) = place.area.codes();
    let ([count, of_count], [block, of_block]) =
        (u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes(), block.to_be_bytes());
    let [_, high, middle, low] = place.bits().to_be_bytes();
    [0x12, 10, 0x10, kind, count, of_count, block, of_block, area, high, middle, low]
}

fn request(reference: u16, parameters: &[u8], data: &[u8]) -> Vec<u8> {
    let length = |part: &[u8]| u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes();
    let ([reference, of_reference], [first, second], [third, fourth]) =
        (reference.to_be_bytes(), length(parameters), length(data));
    let head = [PROTOCOL, JOB, 0, 0, reference, of_reference, first, second, third, fourth];
    [&head[..], parameters, data].concat()
}

/// How many of these, from the first on, one request can read within a PDU; at least one.
pub(crate) fn fitting(items: &[Item], pdu: usize) -> usize {
    let (mut request, mut answer) = (REQUEST_HEAD, ANSWER_HEAD);
    let fits = |item: &&Item| {
        request += REQUEST_ITEM;
        // Each is filled up to an even number of bytes.
        answer += ANSWER_ITEM + item.bytes.next_multiple_of(2);
        request <= pdu && answer <= pdu
    };
    items.iter().take(ITEMS_MAX).take_while(fits).count().max(1)
}

/// How many bytes of one value can be read at once, and written.
pub(crate) fn readable(pdu: usize) -> usize {
    pdu.saturating_sub(ANSWER_HEAD + ANSWER_ITEM).max(2) & !1
}

pub(crate) fn writable(pdu: usize) -> usize {
    pdu.saturating_sub(WRITE_OVERHEAD)
}

/// The answer to a request, in the PDU that has come.
///
/// # Errors
/// When it is none, or the PLC has refused.
pub(crate) fn answer(pdu: &[u8], reference: u16, function: u8) -> Result<Answer, NotAnswered> {
    let stranger = |what: &str| NotAnswered::Stranger(format!("the answer is out of step: {what}"));
    let [PROTOCOL, kind, _, _, r1, r2, p1, p2, d1, d2, class, code, rest @ ..] = pdu else {
        return Err(stranger("it is no answer of S7; newer firmware may speak only S7CommPlus"));
    };
    if u16::from_be_bytes([*r1, *r2]) != reference {
        return Err(stranger("it belongs to another request"));
    }
    if !matches!(*kind, ANSWER | ANSWER_WITH_DATA) {
        return Err(stranger("it is of a kind that nobody waits for"));
    }
    let refused = u16::from_be_bytes([*class, *code]);
    if refused != 0 {
        return Err(NotAnswered::Refused(refused));
    }
    let (parameters, data) =
        (usize::from(u16::from_be_bytes([*p1, *p2])), usize::from(u16::from_be_bytes([*d1, *d2])));
    let (Some(parameters), Some(data)) = (rest.get(..parameters), rest.get(parameters..parameters + data))
    else {
        return Err(stranger("it is shorter than it says"));
    };
    if parameters.first() != Some(&function) {
        return Err(stranger("it answers another function"));
    }
    Ok(Answer { parameters: parameters.to_vec(), data: data.to_vec() })
}

/// How large a PDU may be, at most what was asked for.
pub(crate) fn agreed(answer: &Answer, asked: u16) -> Result<u16, String> {
    let [.., high, low] = answer.parameters.as_slice() else {
        return Err("it does not say how large a PDU may be".to_owned());
    };
    let pdu = u16::from_be_bytes([*high, *low]);
    if answer.parameters.len() != 8 || pdu < PDU_LEAST {
        return Err(format!("it agrees to PDUs of {pdu} bytes, in which nothing fits"));
    }
    Ok(pdu.min(asked))
}

/// What was read of each value, or its return code.
///
/// # Errors
/// When that are not so many values.
pub(crate) fn values(answer: &Answer, items: &[Item]) -> Result<Vec<Result<Vec<u8>, u8>>, String> {
    let mut rest = answer.data.as_slice();
    let mut values = Vec::with_capacity(items.len());
    for item in items {
        let [code, kind, high, low, after @ ..] = rest else {
            return Err(format!("{} values came instead of {}", values.len(), items.len()));
        };
        if *code != OK {
            // Some fill up even nothing.
            values.push(Err(*code));
            rest = after;
            continue;
        }
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        // Of words, bytes and whole numbers it counts bits, of all else bytes.
        let length = if matches!(*kind, IN_BITS | 5) { length.div_ceil(8) } else { length };
        let own = after.get(..length).ok_or("a value is shorter than it says")?;
        if length != item.bytes {
            return Err(format!("{length} bytes came instead of {}", item.bytes));
        }
        values.push(Ok(own.to_vec()));
        rest = after.get(length.next_multiple_of(2)..).unwrap_or_default();
    }
    Ok(values)
}

/// The return code of what was written, if it is not well.
///
/// # Errors
/// When there is none.
pub(crate) fn written(answer: &Answer) -> Result<Option<u8>, String> {
    match answer.data.as_slice() {
        [OK] => Ok(None),
        [code] => Ok(Some(*code)),
        _ => Err("it does not say what became of the value".to_owned()),
    }
}

/// The return code of what is well.
const OK: u8 = 0xFF;

#[cfg(test)]
mod tests;
