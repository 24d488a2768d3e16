//! Which bus a device is on, and what it speaks there.

use std::time::Duration;

use framework::{InvalidSetting, Settings, shown};

/// 500 ms for an answer, unless `timeoutMs` says otherwise.
const ANSWER_MILLIS: i64 = 500;
/// 3 s: raw frames that have not come for that long are missed, unless `timeoutMs` says otherwise.
const FRAMES_MILLIS: i64 = 3000;
/// The port of socketcand.
const GATEWAY_PORT: u16 = 29_536;
/// What Linux allows for the name of an interface.
const NAME_MAX: usize = 15;

/// Which bus a device is on, and what it speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The bus.
    pub interface: Interface,
    /// What is spoken.
    pub speech: Speech,
    /// How long an answer, or the next frame, may take.
    pub timeout: Duration,
}

/// A bus.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interface {
    /// Its name: `can0`.
    pub name: String,
    /// Host and port of the socketcand that has it. None: this machine has it.
    pub gateway: Option<(String, u16)>,
}

/// What a device speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    /// CANopen: it is this node.
    CanOpen(u8),
    /// Frames by their ids.
    Raw,
}

impl Address {
    /// From `protocol.configData`.
    ///
    /// # Errors
    /// With the key and the cure.
    pub fn read(settings: &Settings) -> Result<Self, InvalidSetting> {
        let name = settings
            .text("interface")?
            .ok_or_else(|| InvalidSetting::new("setting `interface` is missing; write the bus, as can0"))?;
        if name.len() > NAME_MAX
            || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        {
            let shown = shown(&name);
            return Err(InvalidSetting::new(format!(
                "setting `interface` is `{shown}`, which is no name of a bus; write one as can0"
            )));
        }
        let gateway = settings.text("gateway")?.map(|text| gateway(&text)).transpose()?;
        let (node, spoken) = (settings.whole("nodeID")?, settings.text("protocol")?.unwrap_or_default());
        let speech = match (spoken.to_ascii_lowercase().as_str(), node) {
            ("canopen" | "", Some(node)) => {
                let node = u8::try_from(node).ok().filter(|node| (1..=127).contains(node));
                Speech::CanOpen(
                    node.ok_or_else(|| InvalidSetting::new("setting `nodeID` is not between 1 and 127"))?,
                )
            }
            ("raw", None) => Speech::Raw,
            ("raw", Some(_)) => {
                let sentence = "setting `nodeID` is given, and `protocol` is raw; leave one of them out";
                return Err(InvalidSetting::new(sentence));
            }
            ("canopen" | "", None) => {
                let sentence = "setting `nodeID` is missing; write the node of CANopen, or `protocol`: raw";
                return Err(InvalidSetting::new(sentence));
            }
            (other, _) => {
                let sentence = format!("setting `protocol` is `{other}`; write canopen or raw");
                return Err(InvalidSetting::new(sentence));
            }
        };
        let usual = if speech == Speech::Raw { FRAMES_MILLIS } else { ANSWER_MILLIS };
        let timeout = Duration::from_millis(settings.whole_within("timeoutMs", usual, 10..=600_000)?);
        Ok(Address { interface: Interface { name, gateway }, speech, timeout })
    }
}

/// `HOST`, `HOST:PORT` or `[ADDRESS]:PORT`.
fn gateway(text: &str) -> Result<(String, u16), InvalidSetting> {
    let wrong = || {
        let shown = shown(text);
        InvalidSetting::new(format!(
            "setting `gateway` is `{shown}`; write host and port of a socketcand, as 192.0.2.7:29536"
        ))
    };
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.starts_with('[') => {
            (host, port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong)?)
        }
        _ => (text, GATEWAY_PORT),
    };
    let host = host.trim_matches(['[', ']']);
    if host.is_empty() || host.contains(['/', ' ']) { Err(wrong()) } else { Ok((host.to_owned(), port)) }
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
    fn a_node_or_raw_frames_on_a_bus_here_or_behind_a_gateway() {
        let node = read(&[("interface", "can0"), ("nodeID", "5")]).unwrap();
        assert_eq!((node.speech, node.timeout), (Speech::CanOpen(5), Duration::from_millis(500)));
        assert_eq!(node.interface.gateway, None);
        let raw = |gateway| {
            let pairs = [("interface", "vcan1"), ("protocol", "RAW"), ("gateway", gateway)];
            read(&pairs).unwrap().interface.gateway.unwrap()
        };
        assert_eq!(raw("plant.local"), ("plant.local".to_owned(), 29_536));
        assert_eq!(raw("192.0.2.7:28600"), ("192.0.2.7".to_owned(), 28_600));
        assert_eq!(raw("[2001:db8::7]:28600"), ("2001:db8::7".to_owned(), 28_600));
        assert_eq!(raw("2001:db8::7"), ("2001:db8::7".to_owned(), 29_536));
    }

    #[test]
    fn what_is_wrong_says_what_to_write() {
        let bus = ("interface", "can0");
        for (pairs, said) in [
            (vec![("nodeID", "5")], "`interface` is missing"),
            (vec![("interface", "can0; rm"), ("nodeID", "5")], "no name of a bus"),
            (vec![("interface", "a-very-long-name"), ("nodeID", "5")], "no name of a bus"),
            (vec![bus], "`nodeID` is missing"),
            (vec![bus, ("nodeID", "0")], "1 and 127"),
            (vec![bus, ("nodeID", "128")], "1 and 127"),
            (vec![bus, ("protocol", "j1939")], "`j1939`"),
            (vec![bus, ("protocol", "raw"), ("nodeID", "1")], "leave one"),
            (vec![bus, ("nodeID", "1"), ("timeoutMs", "1")], "`timeoutMs`"),
            (vec![bus, ("nodeID", "1"), ("gateway", "http://h")], "`gateway`"),
            (vec![bus, ("nodeID", "1"), ("gateway", "h:0")], "`gateway`"),
        ] {
            let refusal = read(&pairs).unwrap_err();
            assert!(refusal.contains(said), "{refusal}");
        }
    }
}
