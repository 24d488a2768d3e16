//! What the PLC's codes mean, and what to do about them. Pure.

/// Why one value was not read or written, by its return code.
pub(crate) fn of_item(code: u8) -> String {
    let words = match code {
        0x01 => "the hardware there has failed",
        0x03 => {
            "no access; in TIA Portal, take `Optimized block access` off the block, or lower the CPU's protection level"
        }
        0x05 => "the address is beyond the end; shorten `length`, or look how long the block is",
        0x06 => "it does not know this type there",
        0x07 => "the length does not fit what is there",
        0x0A => {
            "there is no such block; look whether it was downloaded, and take `Optimized block access` off it"
        }
        _ => "a code that is not known",
    };
    format!("{words} (return code 0x{code:02X})")
}

/// Why a whole request was refused, by class and code of its head.
pub(crate) fn of_head(code: u16) -> String {
    let words = match code {
        0x8104 => {
            "the function is not allowed; in TIA Portal, under Protection, allow PUT/GET access and give full access"
        }
        0x8404 => "it could not be done there; look whether the block is there and long enough",
        0x8500 => "the request is larger than the PDU; lower `pduSize`",
        0x8001 => "not in this operating state; is the PLC in STOP?",
        0x8000 => "the PLC is busy with something else",
        0xD241 => "it is protected by a password",
        0xD401..=0xD409 => "this PLC has no such information",
        _ => "a code that is not known",
    };
    format!("{words} (error 0x{code:04X})")
}

/// Why a connection was refused, by the reason of the transport (RFC 905 §13.5).
pub(crate) fn of_disconnect(reason: u8) -> String {
    let words = match reason {
        0x00 => "without a reason",
        0x01 => "the service access point is congested: all its connections are in use",
        0x02 | 0x03 => "nothing is at that service access point",
        0x80 => "ended by the other side",
        0x81 => "it is congested: all its connections are in use",
        _ => "for a reason that is not known",
    };
    format!("{words} (0x{reason:02X})")
}
