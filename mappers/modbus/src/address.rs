//! Where a device is, and how it likes to be asked.

use std::time::Duration;

use framework::{InvalidSetting, Settings};

/// The port that Modbus TCP is assigned.
const DEFAULT_PORT: i64 = 502;
/// What most devices listen to that are not behind a gateway.
const DEFAULT_UNIT: i64 = 1;
/// The highest unit on a serial line; 0 speaks to all and is answered by none (Modbus over Serial Line §2.2).
const SERIAL_UNIT_MAX: u8 = 247;
/// Settings of a serial line, in all spellings of KubeEdge's mappers.
const SERIAL: [&str; 8] =
    ["serialPort", "serialName", "baudRate", "dataBits", "stopBits", "parity", "serialType", "rs485Enabled"];
/// The key that takes answers under any transaction id.
pub(crate) const IGNORE_IDS: &str = "ignoreTransactionId";
/// 1 min: no pause and no answer takes longer.
const MILLIS_MAX: i64 = 60_000;

/// Where a device is, and how it likes to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// What it is reached by.
    pub place: Place,
    /// The unit, which KubeEdge calls slave.
    pub unit: u8,
    /// Time-outs and pauses.
    pub timing: Timing,
    /// How much one request may read.
    pub sizes: Sizes,
}

/// What a device is reached by. Devices with the same place share one connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// A TCP port.
    Tcp {
        /// An address or a name.
        host: String,
        /// The port.
        port: u16,
        /// How requests are framed there.
        framing: Framing,
    },
    /// A serial line.
    Serial(SerialLine),
}

/// How requests are framed on TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Framing {
    /// Modbus TCP.
    Tcp,
    /// Modbus TCP of a device that does not give back the transaction id of a request: whatever answers the one request that is under
    /// way is its answer.
    TcpWithoutIds,
    /// As on a serial line, with a checksum: what simple serial servers pass on.
    Rtu,
}

/// A serial line.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SerialLine {
    /// Its device file.
    pub path: String,
    /// Bits a second.
    pub baud_rate: u32,
    /// 7 or 8.
    pub data_bits: u8,
    /// 1 or 2.
    pub stop_bits: u8,
    /// The parity bit.
    pub parity: Parity,
    /// Whether the kernel is to switch the direction of an RS-485 transceiver.
    pub rs485: bool,
}

/// The parity bit of a serial line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Parity {
    /// There is none.
    None,
    /// The standard's default.
    Even,
    /// Odd.
    Odd,
}

/// Time-outs and pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How long an answer may take.
    pub answer: Duration,
    /// How often a read that was not answered is asked again.
    pub retries: u32,
    /// The pause after a connection is made.
    pub after_connect: Duration,
    /// The pause between two requests.
    pub between: Duration,
}

/// How much one request may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Registers, at most 125.
    pub registers: u16,
    /// Bits, at most 2000.
    pub bits: u16,
    /// Registers or bits between two values that nobody asked for, and that are read for the sake of one request.
    pub gap: u16,
}

impl Default for Timing {
    fn default() -> Self {
        let second = Duration::from_secs(1);
        Timing { answer: second, retries: 1, after_connect: Duration::ZERO, between: Duration::ZERO }
    }
}

impl Default for Sizes {
    /// What the protocol allows (Modbus Application Protocol V1.1b3, §6.1 and §6.3), without gaps.
    fn default() -> Self {
        Sizes { registers: 125, bits: 2000, gap: 0 }
    }
}

impl Address {
    /// A device at a port of Modbus TCP, asked as most like it.
    pub fn tcp(host: impl Into<String>, port: u16, unit: u8) -> Self {
        let place = Place::Tcp { host: host.into(), port, framing: Framing::Tcp };
        Address { place, unit, timing: Timing::default(), sizes: Sizes::default() }
    }

    /// From `protocol.configData`.
    ///
    /// # Errors
    /// With the key and the cure.
    pub fn read(settings: &Settings) -> Result<Self, InvalidSetting> {
        // Those of the other kind of connection, and KubeEdge's time-out, of which nothing says the unit.
        settings.without_effect(&["ip", "port", "timeout", IGNORE_IDS]);
        settings.without_effect(&SERIAL);
        let place = place(settings)?;
        let unit = settings.whole_within("slaveID", DEFAULT_UNIT, 0..=255)?;
        if matches!(place, Place::Serial(_)) && !(1..=SERIAL_UNIT_MAX).contains(&unit) {
            return Err(InvalidSetting::new(format!(
                "setting `slaveID` is {unit}; units on a serial line are 1 to {SERIAL_UNIT_MAX}"
            )));
        }
        let millis =
            |key, default| settings.whole_within(key, default, 0..=MILLIS_MAX).map(Duration::from_millis);
        let timing = Timing {
            answer: millis("timeoutMs", 1000)?.max(Duration::from_millis(10)),
            retries: settings.whole_within("retries", 1, 0..=10)?,
            after_connect: millis("connectDelayMs", 0)?,
            between: millis("requestDelayMs", 0)?,
        };
        let sizes = Sizes {
            registers: settings.whole_within("maxRegisters", 125, 1..=125)?,
            bits: settings.whole_within("maxBits", 2000, 1..=2000)?,
            gap: settings.whole_within("maxGap", 0, 0..=124)?,
        };
        Ok(Address { place, unit, timing, sizes })
    }
}

fn place(settings: &Settings) -> Result<Place, InvalidSetting> {
    let mode = settings.text("communicateMode")?.unwrap_or_default().to_ascii_lowercase();
    let host = settings.text("ip")?;
    let mut serial = None;
    for key in SERIAL {
        if settings.text(key)?.is_some() {
            serial = serial.or(Some(key));
        }
    }
    let framing = match (mode.as_str(), &host, serial) {
        ("rtu", None, _) | ("", None, Some(_)) => return serial_line(settings).map(Place::Serial),
        ("", Some(_), Some(key)) => {
            return Err(InvalidSetting::new(format!(
                "`{key}` is given beside `ip`; set `communicateMode` to RTU and leave out `ip`, or to RTUoverTCP or TCP"
            )));
        }
        ("rtu", Some(_), _) => {
            return Err(InvalidSetting::new(
                "communicateMode is RTU, and `ip` is given; write RTUoverTCP for a serial server, or leave out `ip`",
            ));
        }
        ("tcp" | "", _, _) if settings.flag(IGNORE_IDS)? => Framing::TcpWithoutIds,
        ("tcp" | "", _, _) => Framing::Tcp,
        ("rtuovertcp", _, _) => Framing::Rtu,
        (other, _, _) => {
            return Err(InvalidSetting::new(format!(
                "setting `communicateMode` is `{other}`; write TCP, RTU or RTUoverTCP"
            )));
        }
    };
    let host = host.ok_or_else(|| {
        InvalidSetting::new(
            "setting `ip` is missing; write the address or name of the device, or `serialPort` for a serial line",
        )
    })?;
    let port = settings.whole_within("port", DEFAULT_PORT, 1..=65_535)?;
    Ok(Place::Tcp { host, port, framing })
}

fn serial_line(settings: &Settings) -> Result<SerialLine, InvalidSetting> {
    let path = match settings.text("serialPort")? {
        Some(path) => Some(path),
        None => settings.text("serialName")?,
    };
    let path = path.filter(|path| path.starts_with('/')).ok_or_else(|| {
        InvalidSetting::new(
            "setting `serialPort` is missing or no path; write its device file, as /dev/ttyS0",
        )
    })?;
    let parity = match settings.text("parity")?.unwrap_or_default().to_ascii_lowercase().as_str() {
        "" | "none" | "n" => Parity::None,
        "even" | "e" => Parity::Even,
        "odd" | "o" => Parity::Odd,
        other => {
            return Err(InvalidSetting::new(format!(
                "setting `parity` is `{other}`; write none, even or odd"
            )));
        }
    };
    let kind = settings.text("serialType")?.unwrap_or_default();
    Ok(SerialLine {
        path,
        baud_rate: settings.whole_within("baudRate", 9600, 50..=4_000_000)?,
        data_bits: settings.whole_within("dataBits", 8, 7..=8)?,
        stop_bits: settings.whole_within("stopBits", 1, 1..=2)?,
        parity,
        rs485: kind.eq_ignore_ascii_case("rs485") || settings.flag("rs485Enabled")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use framework::Scalar;

    fn read(pairs: &[(&str, Scalar)]) -> Result<Address, String> {
        let settings = Settings::from_pairs(pairs.iter().cloned());
        let address = Address::read(&settings).map_err(|refusal| refusal.to_string());
        if address.is_ok() {
            assert_eq!(settings.unread_keys(), Vec::<String>::new());
        }
        address
    }

    fn text(text: &str) -> Scalar {
        Scalar::Text(text.to_owned())
    }

    #[test]
    fn kubeedges_keys_are_read() {
        let found =
            read(&[("IP", text("172.17.0.3")), ("Port", Scalar::Float(1502.0)), ("SlaveID", text("7"))]);
        assert_eq!(found, Ok(Address::tcp("172.17.0.3", 1502, 7)));
        let found = read(&[("ip", text("plc.local")), ("communicateMode", text("TCP"))]);
        assert_eq!(found, Ok(Address::tcp("plc.local", 502, 1)));
    }

    #[test]
    fn a_serial_line_is_read_in_both_spellings() {
        let line = |parity, rs485| {
            Place::Serial(SerialLine {
                path: "/dev/ttyS0".to_owned(),
                baud_rate: 19_200,
                data_bits: 8,
                stop_bits: 1,
                parity,
                rs485,
            })
        };
        let old = read(&[
            ("serialPort", text("/dev/ttyS0")),
            ("baudRate", Scalar::Float(19_200.0)),
            ("parity", text("even")),
            ("dataBits", Scalar::Int(8)),
            ("stopBits", Scalar::Int(1)),
            ("serialType", text("RS485")),
            ("slaveID", Scalar::Int(5)),
        ]);
        assert_eq!(old.map(|address| (address.place, address.unit)), Ok((line(Parity::Even, true), 5)));
        let new = read(&[
            ("port", text("502")),
            ("timeout", Scalar::Int(5)),
            ("communicateMode", text("RTU")),
            ("serialName", text("/dev/ttyS0")),
            ("baudRate", text("19200")),
            ("rs485Enabled", Scalar::Bool(false)),
        ]);
        assert_eq!(new.map(|address| address.place), Ok(line(Parity::None, false)));
    }

    #[test]
    fn rtu_may_go_over_tcp_and_a_device_may_want_pauses() {
        let found = read(&[
            ("communicateMode", text("RTUoverTCP")),
            ("ip", text("h")),
            ("timeoutMs", Scalar::Int(300)),
            ("retries", text("0")),
            ("connectDelayMs", Scalar::Int(1000)),
            ("requestDelayMs", Scalar::Int(100)),
            ("maxRegisters", Scalar::Int(16)),
            ("maxBits", Scalar::Int(32)),
            ("maxGap", Scalar::Int(4)),
        ]);
        let found = found.unwrap();
        assert!(matches!(found.place, Place::Tcp { framing: Framing::Rtu, port: 502, .. }));
        let millis = Duration::from_millis;
        let timing =
            Timing { answer: millis(300), retries: 0, after_connect: millis(1000), between: millis(100) };
        assert_eq!((found.timing, found.sizes), (timing, Sizes { registers: 16, bits: 32, gap: 4 }));
    }

    #[test]
    fn a_device_may_answer_under_any_transaction_id() {
        let framing = |mode: &str, ignore: &str| {
            let found = read(&[
                ("ip", text("h")),
                ("communicateMode", text(mode)),
                ("ignoreTransactionId", text(ignore)),
            ]);
            match found.unwrap().place {
                Place::Tcp { framing, .. } => framing,
                Place::Serial(_) => panic!("{mode}"),
            }
        };
        assert_eq!(framing("TCP", "true"), Framing::TcpWithoutIds);
        assert_eq!(framing("TCP", "false"), Framing::Tcp);
        assert_eq!(framing("RTUoverTCP", "true"), Framing::Rtu, "there are none in its frames");
    }

    #[test]
    fn what_is_ambiguous_or_out_of_range_is_refused() {
        let host = ("ip", text("h"));
        for (pairs, said) in [
            (vec![], "`ip` is missing"),
            (vec![host.clone(), ("serialPort", text("/dev/ttyS0"))], "`communicateMode`"),
            (vec![host.clone(), ("communicateMode", text("RTU"))], "RTUoverTCP"),
            (vec![host.clone(), ("communicateMode", text("UDP"))], "`udp`"),
            (vec![("communicateMode", text("RTU"))], "`serialPort` is missing"),
            (vec![("serialPort", text("COM1"))], "/dev/ttyS0"),
            (vec![("serialPort", text("/dev/ttyS0")), ("parity", text("mark"))], "`mark`"),
            (vec![("serialPort", text("/dev/ttyS0")), ("slaveID", Scalar::Int(0))], "1 to 247"),
            (vec![host.clone(), ("port", Scalar::Int(0))], "`port`"),
            (vec![host.clone(), ("port", Scalar::Int(65_536))], "`port`"),
            (vec![host.clone(), ("slaveID", Scalar::Int(256))], "`slaveID`"),
            (vec![host.clone(), ("slaveID", Scalar::Float(1.5))], "`slaveID`"),
            (vec![host.clone(), ("maxRegisters", Scalar::Int(126))], "`maxRegisters`"),
            (vec![host, ("timeoutMs", Scalar::Int(100_000))], "`timeoutMs`"),
        ] {
            let refusal = read(&pairs).unwrap_err();
            assert!(refusal.contains(said), "{refusal}");
        }
    }
}
