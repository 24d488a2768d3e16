//! What a node's abort codes mean (CiA 301 §7.2.4.3.17), and those that we send. Pure.

/// What a client sends when it gives up.
pub(crate) const TOGGLE: u32 = 0x0503_0000;
pub(crate) const LATE: u32 = 0x0504_0000;
pub(crate) const UNKNOWN_COMMAND: u32 = 0x0504_0001;
pub(crate) const NO_MEMORY: u32 = 0x0504_0005;
pub(crate) const LENGTH: u32 = 0x0607_0010;

/// An abort code in words.
pub(crate) fn words(code: u32) -> String {
    let words = match code {
        TOGGLE => "the segments are out of step",
        LATE => "the transfer took too long for it",
        UNKNOWN_COMMAND => "it does not know this kind of transfer",
        NO_MEMORY => "it is out of memory",
        0x0601_0000 => "it does not give access to this object",
        0x0601_0001 => "the object is write only",
        0x0601_0002 => "the object is read only",
        0x0602_0000 => "there is no such object; check `index`",
        0x0604_0041 => "the object cannot be mapped to a PDO",
        0x0604_0043 | 0x0604_0047 => "its parameters do not go together",
        0x0606_0000 => "its hardware has failed",
        LENGTH => "the length does not fit; check `dataType`",
        0x0607_0012 => "the value is too long; check `dataType`",
        0x0607_0013 => "the value is too short; check `dataType`",
        0x0609_0011 => "there is no such subindex; check `subIndex`",
        0x0609_0030 => "the value is out of its range",
        0x0609_0031 => "the value is too high",
        0x0609_0032 => "the value is too low",
        0x0609_0036 => "its maximum is below its minimum",
        0x060A_0023 => "what it needs for that is not there",
        0x0800_0020 => "it cannot take the value now",
        0x0800_0021 => "it is under local control",
        0x0800_0022 => "its state does not allow it now",
        0x0800_0024 => "there is no data",
        0x0800_0000 => "for no reason that it tells",
        _ => "a code that is not known",
    };
    format!("{words} (abort code 0x{code:08X})")
}
