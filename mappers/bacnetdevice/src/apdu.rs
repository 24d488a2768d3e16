//! The heads of requests and answers (20.1). Pure.

use crate::tag::Reader;

/// 1476 bytes: the longest APDU of BACnet/IP, and ours.
pub(crate) const APDU_MAX: usize = 1476;
/// How that is said in a request, with no word on segments: none is taken (20.1.2.4, 20.1.2.5).
const OUR_MAX: u8 = 0x05;
const IS_SEGMENTED: u8 = 0x08;
/// An abort by a server.
const BY_SERVER: u8 = 0x01;

/// Confirmed services (21, BACnetConfirmedServiceChoice).
pub(crate) const CONFIRMED_COV: u8 = 1;
pub(crate) const SUBSCRIBE_COV: u8 = 5;
pub(crate) const READ_PROPERTY: u8 = 12;
pub(crate) const READ_PROPERTY_MULTIPLE: u8 = 14;
pub(crate) const WRITE_PROPERTY: u8 = 15;
/// Unconfirmed ones.
pub(crate) const I_AM: u8 = 0;
pub(crate) const UNCONFIRMED_COV: u8 = 2;
pub(crate) const WHO_IS: u8 = 8;

/// Abort reasons (20.1.9.4).
pub(crate) const BUFFER_OVERFLOW: u8 = 1;
pub(crate) const SEGMENTATION_NOT_SUPPORTED: u8 = 4;
pub(crate) const APDU_TOO_LONG: u8 = 11;
/// A reject reason (20.1.8.4).
pub(crate) const UNRECOGNIZED_SERVICE: u8 = 9;

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Apdu<'a> {
    /// Somebody asks us, and wants an answer.
    Request { invoke: u8, service: u8, body: &'a [u8] },
    /// Somebody tells us.
    Told { service: u8, body: &'a [u8] },
    /// An answer to the request of this number.
    Answer { invoke: u8, answer: Answer },
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Done, or what was asked for.
    Done { service: u8, body: Vec<u8> },
    /// Not done.
    Refused(Refusal),
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It was understood and cannot be served: class and code.
    Error(u32, u32),
    /// It was not understood.
    Reject(u8),
    /// Its answer cannot be given.
    Abort(u8),
    /// The answer comes in segments, which were not offered.
    Segments,
}

impl Refusal {
    /// Whether less at once may be answered.
    pub(crate) fn is_too_long(self) -> bool {
        matches!(
            self,
            Refusal::Abort(BUFFER_OVERFLOW | SEGMENTATION_NOT_SUPPORTED | APDU_TOO_LONG) | Refusal::Segments
        )
    }
}

/// A request that is answered.
pub(crate) fn request(invoke: u8, service: u8, body: &[u8]) -> Vec<u8> {
    [&[0x00, OUR_MAX, invoke, service], body].concat()
}

/// A request that is not.
pub(crate) fn unconfirmed(service: u8, body: &[u8]) -> Vec<u8> {
    [&[0x10, service], body].concat()
}

/// It is done.
pub(crate) fn simple_ack(invoke: u8, service: u8) -> Vec<u8> {
    vec![0x20, invoke, service]
}

/// It is not done: class and code, each of one byte.
pub(crate) fn error(invoke: u8, service: u8, class: u8, code: u8) -> Vec<u8> {
    vec![0x50, invoke, service, 0x91, class, 0x91, code]
}

/// It is not understood.
pub(crate) fn reject(invoke: u8, reason: u8) -> Vec<u8> {
    vec![0x60, invoke, reason]
}

/// What an APDU is; None for what has no place here.
pub(crate) fn understood(apdu: &[u8]) -> Option<Apdu<'_>> {
    let first = *apdu.first()?;
    let done = |invoke, service, body: &[u8]| {
        Some(Apdu::Answer { invoke, answer: Answer::Done { service, body: body.to_vec() } })
    };
    let refused = |invoke, refusal| Some(Apdu::Answer { invoke, answer: Answer::Refused(refusal) });
    match (first >> 4, apdu) {
        // Requests in segments are none for us: nothing that we serve is that long.
        (0, [_, _, invoke, service, body @ ..]) if first & IS_SEGMENTED == 0 => {
            Some(Apdu::Request { invoke: *invoke, service: *service, body })
        }
        (1, [_, service, body @ ..]) => Some(Apdu::Told { service: *service, body }),
        (2, [_, invoke, service]) => done(*invoke, *service, &[]),
        (3, [_, invoke, ..]) if first & IS_SEGMENTED != 0 => refused(*invoke, Refusal::Segments),
        (3, [_, invoke, service, body @ ..]) => done(*invoke, *service, body),
        (5, [_, invoke, _, body @ ..]) => {
            let (class, code) = class_and_code(body)?;
            refused(*invoke, Refusal::Error(class, code))
        }
        (6, [_, invoke, reason]) => refused(*invoke, Refusal::Reject(*reason)),
        // One by a client is for what it asked us.
        (7, [_, invoke, reason]) if first & BY_SERVER != 0 => refused(*invoke, Refusal::Abort(*reason)),
        _ => None,
    }
}

/// The class and the code of an error.
pub(crate) fn class_and_code(body: &[u8]) -> Option<(u32, u32)> {
    let mut reader = Reader::new(body);
    let mut next = || reader.application(9).and_then(crate::tag::unsigned32).ok();
    Some((next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let answer = |bytes: &'static [u8]| match understood(bytes) {
            Some(Apdu::Answer { invoke: 7, answer }) => answer,
            other => panic!("{bytes:?}: {other:?}"),
        };
        assert_eq!(answer(&[0x20, 7, 15]), Answer::Done { service: 15, body: Vec::new() });
        assert_eq!(answer(&[0x30, 7, 12, 1, 2]), Answer::Done { service: 12, body: vec![1, 2] });
        let refused = |bytes| match answer(bytes) {
            Answer::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(&[0x50, 7, 12, 0x91, 1, 0x91, 31]), Refusal::Error(1, 31));
        assert_eq!(refused(&[0x50, 7, 12, 0x92, 2, 0, 0x91, 31]), Refusal::Error(512, 31));
        assert_eq!(refused(&[0x60, 7, 9]), Refusal::Reject(9));
        assert_eq!(refused(&[0x71, 7, 4]), Refusal::Abort(4));
        assert!(refused(&[0x3C, 7, 0, 4, 14]).is_too_long() && refused(&[0x71, 7, 1]).is_too_long());
        assert!(!refused(&[0x71, 7, 9]).is_too_long());
        assert_eq!(understood(&[0x10, 8]), Some(Apdu::Told { service: 8, body: &[] }));
        let request = request(3, 12, &[5]);
        assert_eq!(understood(&request), Some(Apdu::Request { invoke: 3, service: 12, body: &[5] }));
        assert_eq!(request[1], 5, "1476 bytes, and no segments");
    }

    #[test]
    fn what_is_none_is_dropped() {
        for bytes in [
            &[][..],
            &[0x00, 5, 7],
            &[0x08, 5, 7, 0, 4, 12],
            &[0x10],
            &[0x20, 7],
            &[0x20, 7, 15, 0],
            &[0x30, 7],
            &[0x40, 7, 0, 4],
            &[0x50, 7, 12],
            &[0x50, 7, 12, 0x91, 1],
            &[0x50, 7, 12, 0x21, 1, 0x91, 31],
            &[0x60, 7],
            &[0x70, 7, 4],
            &[0x80, 7, 4],
        ] {
            assert_eq!(understood(bytes), None, "{bytes:?}");
        }
    }
}
