//! What carries S7: TPKT (RFC 1006) around COTP of class 0 (RFC 905). Pure.

/// The bytes before each packet: version, nothing, and its length with them.
pub(crate) const HEAD: usize = 4;
const VERSION: u8 = 3;
/// A packet of data that is the last of its PDU.
const DATA: [u8; 3] = [2, 0xF0, 0x80];
/// Kinds of packets; the low half of the first two is credit, which class 0 has none of.
const CONNECT: u8 = 0xE0;
const CONFIRM: u8 = 0xD0;
const DISCONNECT: u8 = 0x80;
const DATA_KIND: u8 = 0xF0;
const IS_LAST: u8 = 0x80;

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    /// The connection is there.
    Confirmed,
    /// There is none, for this reason.
    Refused(u8),
    /// A part of a PDU, or all of it.
    Data { part: &'a [u8], is_last: bool },
}

/// Asks for a connection.
pub(crate) fn connect(local_tsap: u16, remote_tsap: u16) -> Vec<u8> {
    let ([local, at_local], [remote, at_remote]) = (local_tsap.to_be_bytes(), remote_tsap.to_be_bytes());
    // Packets of 1024 bytes, and who calls whom.
    let parameters = [0xC0, 1, 0x0A, 0xC1, 2, local, at_local, 0xC2, 2, remote, at_remote];
    let cotp = [&[6 + 11, CONNECT, 0, 0, 0, 1, 0][..], &parameters].concat();
    packet(&cotp)
}

/// A PDU on its way.
pub(crate) fn data(pdu: &[u8]) -> Vec<u8> {
    packet(&[&DATA, pdu].concat())
}

fn packet(cotp: &[u8]) -> Vec<u8> {
    let length = u16::try_from(HEAD + cotp.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&[VERSION, 0, length[0], length[1]], cotp].concat()
}

/// How many bytes follow a head.
///
/// # Errors
/// When that is no head, or more than `most` would come.
pub(crate) fn length(head: [u8; HEAD], most: usize) -> Result<usize, String> {
    let [version, _, high, low] = head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if version != VERSION || length < HEAD + 2 {
        return Err("this is no ISO-on-TCP; is it a PLC, and is the port right?".to_owned());
    }
    let rest = length - HEAD;
    if rest > most {
        return Err(format!("it sends a packet of {rest} bytes, and at most {most} were agreed"));
    }
    Ok(rest)
}

/// Understands what follows a head.
///
/// # Errors
/// When it is no packet.
pub(crate) fn understood(cotp: &[u8]) -> Result<Packet<'_>, String> {
    let (length, kind) = match cotp {
        [length, kind, ..] => (usize::from(*length) + 1, *kind),
        _ => return Err("a packet is too short".to_owned()),
    };
    let part = cotp.get(length..).ok_or("a packet is shorter than its head says")?;
    match (kind & 0xF0, cotp) {
        (CONFIRM, _) => Ok(Packet::Confirmed),
        (DISCONNECT, [_, _, _, _, _, _, reason, ..]) => Ok(Packet::Refused(*reason)),
        (DATA_KIND, [2, _, number, ..]) => Ok(Packet::Data { part, is_last: number & IS_LAST != 0 }),
        _ => Err(format!("a packet of a kind that nobody waits for (0x{kind:02X})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_asked_for_as_every_implementation_does() {
        let wanted = [3, 0, 0, 22, 17, 0xE0, 0, 0, 0, 1, 0, 0xC0, 1, 0x0A, 0xC1, 2, 1, 0, 0xC2, 2, 1, 2];
        assert_eq!(connect(0x0100, 0x0102), wanted);
        assert_eq!(data(b"pdu"), [3, 0, 0, 10, 2, 0xF0, 0x80, b'p', b'd', b'u']);
    }

    #[test]
    fn what_comes_is_understood_or_refused_before_it_is_kept() {
        assert_eq!(length([3, 0, 0, 22], 1024), Ok(18));
        assert!(length([3, 0, 0xFF, 0xFF], 1024).unwrap_err().contains("at most 1024"));
        for wrong in [[2, 0, 0, 22], [3, 0, 0, 5], *b"HTTP"] {
            length(wrong, 70_000).unwrap_err();
        }
        assert_eq!(understood(&[6, 0xD0, 0, 1, 0, 1, 0]), Ok(Packet::Confirmed));
        assert_eq!(understood(&[6, 0x80, 0, 1, 0, 1, 2]), Ok(Packet::Refused(2)));
        assert_eq!(understood(&[2, 0xF0, 0, 7]), Ok(Packet::Data { part: &[7], is_last: false }));
        assert_eq!(understood(&[2, 0xF0, 0x80]), Ok(Packet::Data { part: &[], is_last: true }));
        for wrong in [&[][..], &[2], &[9, 0xF0, 0x80], &[2, 0x70, 0], &[1, 0x80], &[1, 0xF0]] {
            understood(wrong).unwrap_err();
        }
    }
}
