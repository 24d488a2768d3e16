//! What goes wrong at a line or a device, for a person: what, where, and what to look at. Pure.

use std::io;

use tokio_modbus::{ExceptionCode, ProtocolError, Request};

use crate::address::{Framing, IGNORE_IDS, Place};
use crate::own_answers::ForeignAnswer;

/// What is asked: `reading holding registers 40 to 41`.
fn asked(request: &Request<'_>) -> String {
    let span = |what: &str, first: u16, count: usize| match count {
        1 => format!("{what} {first}"),
        count => format!("{what}s {first} to {}", usize::from(first) + count.saturating_sub(1)),
    };
    match request {
        Request::ReadCoils(first, count) => format!("reading {}", span("coil", *first, usize::from(*count))),
        Request::ReadDiscreteInputs(first, count) => {
            format!("reading {}", span("discrete input", *first, usize::from(*count)))
        }
        Request::ReadInputRegisters(first, count) => {
            format!("reading {}", span("input register", *first, usize::from(*count)))
        }
        Request::ReadHoldingRegisters(first, count) => {
            format!("reading {}", span("holding register", *first, usize::from(*count)))
        }
        Request::WriteSingleCoil(at, _) => format!("writing {}", span("coil", *at, 1)),
        Request::WriteMultipleCoils(first, bits) => format!("writing {}", span("coil", *first, bits.len())),
        Request::WriteSingleRegister(at, _) | Request::MaskWriteRegister(at, ..) => {
            format!("writing {}", span("holding register", *at, 1))
        }
        Request::WriteMultipleRegisters(first, words)
        | Request::ReadWriteMultipleRegisters(_, _, first, words) => {
            format!("writing {}", span("holding register", *first, words.len()))
        }
        other => format!("function {}", other.function_code().value()),
    }
}

fn is_read(request: &Request<'_>) -> bool {
    matches!(
        request,
        Request::ReadCoils(..)
            | Request::ReadDiscreteInputs(..)
            | Request::ReadInputRegisters(..)
            | Request::ReadHoldingRegisters(..)
    )
}

/// A device's refusal (Modbus Application Protocol, 7).
pub(crate) fn exception(exception: ExceptionCode, request: &Request<'_>, unit: u8) -> String {
    let code = u8::from(exception);
    let (name, cure) = match ExceptionCode::new(code) {
        ExceptionCode::IllegalFunction if is_read(request) => {
            ("illegal function", "the device does not know it; look at `register`")
        }
        ExceptionCode::IllegalFunction => (
            "illegal function",
            "the device does not know it; set `writeFunction`, or make the property ReadOnly",
        ),
        ExceptionCode::IllegalDataAddress => (
            "illegal data address",
            "the device has nothing there, or less; look at `register`, at `offset`, which counts from 0, and at `limit`",
        ),
        ExceptionCode::IllegalDataValue if is_read(request) => (
            "illegal data value",
            "the device does not give so much at once; look at `limit` and `maxRegisters`",
        ),
        ExceptionCode::IllegalDataValue => (
            "illegal data value",
            "the device does not take this value; look at its range in the manual, and at `dataType`, `scale` and `byteOrder`",
        ),
        ExceptionCode::ServerDeviceFailure => {
            ("server device failure", "the device has failed at it; look at the device")
        }
        ExceptionCode::Acknowledge => {
            ("acknowledge", "the device has begun and needs its time; make `collectCycle` longer")
        }
        ExceptionCode::ServerDeviceBusy => {
            ("server device busy", "the device was busy at each try; make `collectCycle` longer")
        }
        ExceptionCode::MemoryParityError => {
            ("memory parity error", "the device's memory is damaged; look at the device")
        }
        ExceptionCode::GatewayPathUnavailable => (
            "gateway path unavailable",
            "the gateway has no way there; look at its settings and at `slaveID`",
        ),
        ExceptionCode::GatewayTargetDevice => (
            "gateway target device failed to respond",
            "nothing answers behind the gateway; look at `slaveID`, and whether the device has power and its cable",
        ),
        ExceptionCode::Custom(7) => {
            ("negative acknowledge", "the device cannot do it now; look into its manual")
        }
        ExceptionCode::Custom(_) => {
            ("which Modbus does not know", "what the device means by it stands in its manual")
        }
    };
    format!("exception {code} ({name}) of unit {unit} at {}: {cure}", asked(request))
}

/// The device answers, and not under the id of the request.
pub(crate) fn under_another_id(ForeignAnswer { came, asked }: ForeignAnswer) -> String {
    format!(
        "the device answers under another transaction id than the request's ({came} in place of {asked}); if it always does, set \
         `{IGNORE_IDS}` to true in protocol.configData"
    )
}

/// The answer is not to what was asked.
pub(crate) fn out_of_step(error: &ProtocolError) -> String {
    match error {
        ProtocolError::HeaderMismatch { .. } => {
            "the device answers another request, or for another unit; look whether unit and framing are the device's".to_owned()
        }
        ProtocolError::FunctionCodeMismatch { request, .. } => {
            format!(
                "the device's answer is to another function than {}, which was asked for; look whether unit and framing are the device's, and \
                 whether anybody else asks on this line",
                request.value()
            )
        }
    }
}

/// So many bytes came, and no answer can be made of them.
pub(crate) fn garbled(bytes: usize, place: &Place, unit: u8) -> String {
    let bytes = if bytes == 1 {
        "1 byte came, which is".to_owned()
    } else {
        format!("{bytes} bytes came, which are")
    };
    match place {
        Place::Tcp { host, port, framing: Framing::Tcp | Framing::TcpWithoutIds } => format!(
            "{bytes} no whole answer of Modbus TCP; look whether another service has {host}:{port}, or a serial server that passes frames on \
             (`communicateMode`: RTUoverTCP)"
        ),
        Place::Tcp { host, port, framing: Framing::Rtu } => format!(
            "{bytes} no whole answer of unit {unit} with a right checksum; look whether {host}:{port} passes RTU frames on (Modbus TCP is \
             `communicateMode`: TCP), and whether its line has the device's rate and parity, and its terminators"
        ),
        Place::Serial(line) => format!(
            "{bytes} no whole answer of unit {unit} with a right checksum; look at `baudRate`, `dataBits`, `stopBits` and `parity` of {}, \
             at the cable and its terminators, whether the adapter echoes what is sent, and whether two devices have the same unit",
            line.path
        ),
    }
}

/// What went wrong at a connection. Where nobody acknowledges what was sent, the kernel's word is that of TCP's user timeout, or that of a
/// queue that has waited in vain: both say that the device is silent.
pub(crate) fn of_connection(error: &io::Error) -> String {
    let words = match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            "timed out: nothing answers there; look whether the device has power and its network"
        }
        io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::NotConnected => {
            "the device has closed the connection; many take one client at a time, or those alone that are allowed: look who has it, and \
             into the device's settings"
        }
        io::ErrorKind::ConnectionRefused => {
            "connection refused: nothing listens there; look at `ip` and `port`, and whether the device's Modbus is switched on"
        }
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::AddrNotAvailable => {
            "no way leads there; look at `ip`, and at the network and routes of the node"
        }
        io::ErrorKind::PermissionDenied => {
            "the node does not let it out; look at its firewall, and at the network policies of the mapper's pod"
        }
        io::ErrorKind::InvalidData => {
            "what came is no Modbus; look at `communicateMode`, and whether another service has that port"
        }
        _ => return format!("{error}; look at the network of the node"),
    };
    words.to_owned()
}

/// Why a serial line does not open.
pub(crate) fn of_serial(error: &io::Error, path: &str) -> String {
    /// `EBUSY` of the kernel.
    const BUSY: i32 = 16;
    /// `ENOTTY` of the kernel.
    const NO_TERMINAL: i32 = 25;
    let words = match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::NotFound, _) => {
            "it is not there; look at /dev/serial/by-id where the mapper runs, and whether its pod mounts it"
        }
        (io::ErrorKind::PermissionDenied, _) => {
            "the mapper may not open it; give its user the group of the port (dialout), or its pod the device"
        }
        (_, Some(BUSY)) => "another program has it; end that one",
        (_, Some(NO_TERMINAL)) => "it is no serial port; look at `serialPort`",
        (io::ErrorKind::InvalidInput, _) => {
            "it does not take these settings; look at `baudRate`, `dataBits`, `stopBits` and `parity`"
        }
        _ => return format!("cannot open {path}: {error}; look at `serialPort`"),
    };
    format!("cannot open {path}: {words}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;

    #[test]
    fn a_silent_device_timed_out_whatever_the_kernel_calls_it() {
        for kernels in [11, 110] {
            let reason = of_connection(&io::Error::from_raw_os_error(kernels));
            assert!(reason.starts_with("timed out") && !reason.contains("os error"), "{reason}");
        }
    }

    #[test]
    fn each_way_of_a_connection_to_fail_has_its_words_and_a_cure() {
        for (kernels, words) in [
            (32, "closed the connection"),
            (104, "closed the connection"),
            (103, "closed the connection"),
            (107, "closed the connection"),
            (111, "connection refused: nothing listens there"),
            (113, "no way leads there"),
            (101, "no way leads there"),
            (1, "firewall"),
            (115, "look at the network"),
        ] {
            let reason = of_connection(&io::Error::from_raw_os_error(kernels));
            assert!(reason.contains(words) && reason.contains("look "), "{kernels}: {reason}");
        }
        for (kernels, words) in [
            (2, "it is not there; look at /dev/serial/by-id"),
            (13, "dialout"),
            (16, "another program has it"),
            (25, "no serial port; look at `serialPort`"),
            (22, "look at `baudRate`"),
            (5, "look at `serialPort`"),
        ] {
            let reason = of_serial(&io::Error::from_raw_os_error(kernels), "/dev/ttyS9");
            assert!(reason.starts_with("cannot open /dev/ttyS9: ") && reason.contains(words), "{reason}");
        }
    }

    #[test]
    fn every_exception_says_what_was_asked_where_and_what_to_look_at() {
        let read = Request::ReadHoldingRegisters(40, 2);
        let write = Request::WriteSingleRegister(7, 1);
        for code in 0..=u8::MAX {
            for request in [&read, &write] {
                let said = exception(ExceptionCode::new(code), request, 3);
                let begin = format!("exception {code} (");
                let (_, cure) = said.split_once(": ").unwrap();
                assert!(
                    said.starts_with(&begin) && said.contains(" of unit 3 at ") && cure.len() > 20,
                    "{said}"
                );
            }
        }
        let unknown = "exception 99 (which Modbus does not know) of unit 3 at reading holding registers 40 to 41: what the device means by it stands in its manual";
        assert_eq!(exception(ExceptionCode::new(99), &read, 3), unknown);
        let refused = exception(ExceptionCode::IllegalDataValue, &write, 3);
        assert!(
            refused.contains("at writing holding register 7: the device does not take this value"),
            "{refused}"
        );
        // What the client below reads as a code of its own is the same one.
        assert_eq!(exception(ExceptionCode::Custom(2), &read, 1), exception(ExceptionCode::new(2), &read, 1));
    }

    #[test]
    fn what_is_no_answer_names_the_settings_of_its_line() {
        let tcp = Address::tcp("h", 502, 1).place;
        assert!(garbled(7, &tcp, 1).contains("7 bytes came") && garbled(7, &tcp, 1).contains("h:502"));
        let rtu = Place::Tcp { host: "h".to_owned(), port: 502, framing: Framing::Rtu };
        let said = garbled(1, &rtu, 4);
        assert!(
            said.starts_with("1 byte came, which is no whole answer of unit 4 with a right checksum"),
            "{said}"
        );
    }
}
