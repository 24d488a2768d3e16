//! Where a PLC is, and how one asks for it there.

use std::time::Duration;

use framework::{InvalidSetting, Settings, shown};

/// The port of ISO-on-TCP.
const PORT: i64 = 102;
/// 2 s for an answer, unless `timeoutMs` says otherwise.
const ANSWER_MILLIS: i64 = 2000;
/// The largest PDU that is asked for, unless `pduSize` says otherwise; the PLC says what it has.
const PDU: i64 = 480;
/// The smallest that any PLC has, and the largest of an S7-1500.
const PDU_LEAST: i64 = 112;
const PDU_MOST: i64 = 960;
/// Our own service access point, which no PLC looks at.
const LOCAL_TSAP: u16 = 0x0100;
/// Where CPUs are in their racks: an S7-1200 and 1500, the same by their older numbers, an S7-300.
const SLOTS: [u16; 3] = [1, 0, 2];

/// Where a PLC is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// What Devices share: one connection, and one queue before it.
    pub plc: Plc,
    /// How long an answer may take.
    pub answer: Duration,
}

/// A PLC at its place in the network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Plc {
    /// An address or a name.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Our service access point.
    pub local_tsap: u16,
    /// Those of the CPU, tried one after the other until one takes the connection.
    pub remote_tsaps: Vec<u16>,
    /// The largest PDU that is asked for.
    pub pdu: u16,
}

impl Address {
    /// From `protocol.configData`.
    ///
    /// # Errors
    /// With the key and the cure.
    pub fn read(settings: &Settings) -> Result<Self, InvalidSetting> {
        let host = settings.text("ip")?.ok_or_else(|| {
            InvalidSetting::new("setting `ip` is missing; write the address or name of the PLC")
        })?;
        let port = settings.whole_within("port", PORT, 1..=65_535)?;
        let rack: u16 = settings.whole_within("rack", 0, 0..=7)?;
        let slot = settings.whole("slot")?;
        let slots = match slot {
            None => SLOTS.to_vec(),
            Some(_) => vec![settings.whole_within("slot", 0, 0..=31)?],
        };
        let class: u16 =
            match settings.text("connectionType")?.unwrap_or_default().to_ascii_lowercase().as_str() {
                "" | "pg" | "1" => 1,
                "op" | "2" => 2,
                "basic" | "3" => 3,
                other => {
                    return Err(InvalidSetting::new(format!(
                        "setting `connectionType` is `{other}`; write pg, op or basic"
                    )));
                }
            };
        let remote_tsaps = match tsap(settings, "remoteTSAP")? {
            Some(_) if slot.is_some() => {
                let sentence = "setting `remoteTSAP` is given beside `slot`; leave one of them out";
                return Err(InvalidSetting::new(sentence));
            }
            Some(tsap) => vec![tsap],
            None => slots.into_iter().map(|slot| (class << 8) | (rack << 5) | slot).collect(),
        };
        let millis: u64 = settings.whole_within("timeoutMs", ANSWER_MILLIS, 10..=60_000)?;
        let plc = Plc {
            host,
            port,
            local_tsap: tsap(settings, "localTSAP")?.unwrap_or(LOCAL_TSAP),
            remote_tsaps,
            pdu: settings.whole_within("pduSize", PDU, PDU_LEAST..=PDU_MOST)?,
        };
        Ok(Address { plc, answer: Duration::from_millis(millis) })
    }
}

/// Four digits in base 16, as TIA Portal and LOGO! show them: `0200` or `02.00`.
fn tsap(settings: &Settings, key: &str) -> Result<Option<u16>, InvalidSetting> {
    let Some(text) = settings.text(key)? else { return Ok(None) };
    let digits: String = text.trim_start_matches("0x").chars().filter(|letter| *letter != '.').collect();
    let found = u16::from_str_radix(&digits, 16).ok().filter(|_| digits.len() <= 4);
    found.map(Some).ok_or_else(|| {
        let shown = shown(&text);
        InvalidSetting::new(format!("setting `{key}` is `{shown}`; write two bytes in hexadecimal, as 02.00"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use framework::Scalar;

    fn read(pairs: &[(&str, &str)]) -> Result<Address, String> {
        let pairs = pairs.iter().map(|(key, value)| (*key, Scalar::Text((*value).to_owned())));
        Address::read(&Settings::from_pairs(pairs)).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn a_slot_is_a_service_access_point_and_without_one_the_usual_ones_are_tried() {
        let tsaps =
            |pairs: &[(&str, &str)]| read(&[&[("ip", "plc")], pairs].concat()).unwrap().plc.remote_tsaps;
        assert_eq!(tsaps(&[]), [0x0101, 0x0100, 0x0102]);
        assert_eq!(tsaps(&[("slot", "2")]), [0x0102]);
        assert_eq!(tsaps(&[("rack", "1"), ("slot", "3"), ("connectionType", "OP")]), [0x0223]);
        assert_eq!(tsaps(&[("remoteTSAP", "02.00"), ("localTSAP", "0100")]), [0x0200]);
        let plain = read(&[("IP", "192.0.2.7")]).unwrap();
        assert_eq!((plain.plc.port, plain.plc.pdu, plain.answer), (102, 480, Duration::from_secs(2)));
    }

    #[test]
    fn what_is_wrong_says_what_to_write() {
        for (pairs, said) in [
            (vec![], "`ip` is missing"),
            (vec![("ip", "h"), ("slot", "32")], "`slot`"),
            (vec![("ip", "h"), ("rack", "8")], "`rack`"),
            (vec![("ip", "h"), ("port", "0")], "`port`"),
            (vec![("ip", "h"), ("pduSize", "100")], "`pduSize`"),
            (vec![("ip", "h"), ("timeoutMs", "1")], "`timeoutMs`"),
            (vec![("ip", "h"), ("connectionType", "x")], "pg, op or basic"),
            (vec![("ip", "h"), ("remoteTSAP", "PLC")], "02.00"),
            (vec![("ip", "h"), ("remoteTSAP", "0200"), ("slot", "1")], "beside `slot`"),
        ] {
            let refusal = read(&pairs).unwrap_err();
            assert!(refusal.contains(said), "{refusal}");
        }
    }
}
