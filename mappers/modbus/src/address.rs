//! Where a device is.

use framework::{InvalidSetting, Settings};

/// The port that Modbus TCP is assigned.
const DEFAULT_PORT: u16 = 502;
/// What most devices listen to that are not behind a gateway.
const DEFAULT_UNIT: u8 = 1;
/// Settings of a serial line, in all spellings of KubeEdge's mappers.
const SERIAL: [&str; 7] =
    ["serialPort", "serialName", "baudRate", "dataBits", "stopBits", "parity", "serialType"];

/// Where a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// An address or a name.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// The unit, which KubeEdge calls slave.
    pub unit: u8,
}

impl Address {
    /// From `protocol.configData`.
    ///
    /// # Errors
    /// With the key and the cure.
    pub fn read(settings: &Settings) -> Result<Self, InvalidSetting> {
        if let Some(mode) = settings.text("communicateMode")?
            && !mode.eq_ignore_ascii_case("tcp")
        {
            return Err(serial(&format!("communicateMode is `{mode}`")));
        }
        let mut given = None;
        for key in SERIAL {
            if settings.text(key)?.is_some() {
                given = given.or(Some(key));
            }
        }
        let host = settings.text("ip")?;
        let port = settings.whole("port")?;
        let unit = settings.whole("slaveID")?;
        let Some(host) = host else {
            return Err(match given {
                Some(key) => serial(&format!("`{key}` is given, and no `ip`")),
                None => InvalidSetting::new(
                    "setting `ip` is missing; write the address or name of the Modbus TCP device",
                ),
            });
        };
        if let Some(key) = given {
            return Err(serial(&format!("`{key}` is given beside `ip`")));
        }
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => u16::try_from(port).ok().filter(|port| *port > 0).ok_or_else(|| {
                InvalidSetting::new(format!("setting `port` is {port}, which is not between 1 and 65535"))
            })?,
        };
        let unit = match unit {
            None => DEFAULT_UNIT,
            Some(unit) => u8::try_from(unit).map_err(|_| {
                InvalidSetting::new(format!("setting `slaveID` is {unit}, which is not between 0 and 255"))
            })?,
        };
        Ok(Address { host, port, unit })
    }
}

fn serial(reason: &str) -> InvalidSetting {
    InvalidSetting::new(format!(
        "{reason}: Modbus over a serial line is not supported; reach the device through a Modbus TCP gateway and set \
         `ip`, `port` and `slaveID`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use framework::Scalar;

    fn read(pairs: &[(&str, Scalar)]) -> Result<Address, String> {
        Address::read(&Settings::from_pairs(pairs.iter().cloned())).map_err(|refusal| refusal.to_string())
    }

    fn text(text: &str) -> Scalar {
        Scalar::Text(text.to_owned())
    }

    #[test]
    fn kubeedges_keys_are_read() {
        let found =
            read(&[("ip", text("172.17.0.3")), ("port", Scalar::Float(1502.0)), ("slaveID", text("7"))]);
        assert_eq!(found, Ok(Address { host: "172.17.0.3".to_owned(), port: 1502, unit: 7 }));
        let found = read(&[("ip", text("plc.local")), ("communicateMode", text("TCP"))]);
        assert_eq!(found, Ok(Address { host: "plc.local".to_owned(), port: 502, unit: 1 }));
    }

    #[test]
    fn a_serial_line_is_refused_with_a_sentence() {
        for pairs in [
            vec![("serialPort", text("/dev/ttyS0")), ("baudRate", Scalar::Float(9600.0))],
            vec![("ip", text("h")), ("communicateMode", text("RTU"))],
            vec![("ip", text("h")), ("serialPort", text("/dev/ttyS0"))],
        ] {
            let said = read(&pairs).unwrap_err();
            assert!(said.contains("serial line is not supported") && said.contains("gateway"), "{said}");
        }
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        assert!(read(&[]).unwrap_err().contains("`ip` is missing"));
        assert!(read(&[("ip", text("h")), ("port", Scalar::Int(0))]).unwrap_err().contains("`port`"));
        assert!(read(&[("ip", text("h")), ("port", Scalar::Int(65536))]).unwrap_err().contains("`port`"));
        assert!(read(&[("ip", text("h")), ("slaveID", Scalar::Int(256))]).unwrap_err().contains("`slaveID`"));
        assert!(read(&[("ip", Scalar::Bool(true)), ("slaveID", Scalar::Float(1.5))]).is_err());
    }
}
