//! Where a device is, and by which way it is asked.

use std::net::SocketAddrV4;
use std::time::Duration;

use framework::{InvalidSetting, Settings, shown};

use crate::network::{MAC_MAX, Remote};
use crate::target::ANY_INSTANCE;

/// BACnet/IP's port, 0xBAC0.
const PORT: i64 = 47_808;
/// 3 s for an answer and three more tries, as the standard has it (12.11).
const ANSWER_MILLIS: i64 = 3000;
const RETRIES: i64 = 3;
/// 5 min: how long a device tells of changes until it is asked again, and a BBMD of broadcasts.
const COV_LIFETIME: i64 = 300;
const TTL: i64 = 300;

/// Where a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Our own port, whose socket all Devices with it share. 0: any that is free.
    pub local_port: u16,
    /// Where the device is to be found.
    pub place: Place,
    /// How long an answer may take.
    pub answer: Duration,
    /// How often a question without an answer is asked again. What writes is never repeated.
    pub retries: u32,
    /// How long a device is asked to tell of changes, in seconds, until it is asked again.
    pub cov_lifetime: u32,
}

/// Where a device is to be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Whoever answers for this instance.
    Instance {
        /// 0 to 4194302.
        instance: u32,
        /// How everybody is asked.
        through: Through,
    },
    /// At this address.
    At {
        /// An address or a name.
        host: String,
        /// The port.
        port: u16,
        /// Behind that, which is a router.
        remote: Option<Remote>,
        /// Which device has to be there. None: any.
        instance: Option<u32>,
    },
}

/// How everybody is asked who is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Through {
    /// By broadcasts to this port in each network of this machine.
    Networks(u16),
    /// By a broadcast to this address.
    Broadcast(SocketAddrV4),
    /// By a BBMD elsewhere, at which we are a foreign device.
    Bbmd {
        /// An address or a name.
        host: String,
        /// The port.
        port: u16,
        /// For how many seconds we register there, again and again.
        ttl: u16,
    },
}

impl Address {
    /// From `protocol.configData`.
    ///
    /// # Errors
    /// With the key and the cure.
    pub fn read(settings: &Settings) -> Result<Self, InvalidSetting> {
        let instance: Option<u32> = match settings.whole("deviceInstance")? {
            None => None,
            Some(_) => Some(settings.whole_within("deviceInstance", 0, 0..=i64::from(ANY_INSTANCE) - 1)?),
        };
        let port = settings.whole_within("port", PORT, 1..=65_535)?;
        let through = through(settings, port)?;
        let remote = remote(settings)?;
        let place = match (settings.text("ip")?, instance) {
            (Some(_), _) if through.is_some() => {
                return Err(InvalidSetting::new(
                    "settings `broadcast` and `bbmd` find a device by its `deviceInstance`; leave them out beside `ip`",
                ));
            }
            (Some(host), instance) => Place::At { host, port, remote, instance },
            (None, Some(_)) if remote.is_some() => {
                return Err(InvalidSetting::new(
                    "setting `network` is given without `ip`; write the router's address, or leave `network` and `mac` out",
                ));
            }
            (None, Some(instance)) => {
                Place::Instance { instance, through: through.unwrap_or(Through::Networks(port)) }
            }
            (None, None) => {
                return Err(InvalidSetting::new(
                    "settings `deviceInstance` and `ip` are missing; write the device's number, or its address or name",
                ));
            }
        };
        let millis: u64 = settings.whole_within("timeoutMs", ANSWER_MILLIS, 10..=60_000)?;
        Ok(Address {
            local_port: settings.whole_within("localPort", PORT, 0..=65_535)?,
            place,
            answer: Duration::from_millis(millis),
            retries: settings.whole_within("retries", RETRIES, 0..=10)?,
            cov_lifetime: settings.whole_within("covLifetime", COV_LIFETIME, 10..=86_400)?,
        })
    }
}

fn through(settings: &Settings, port: u16) -> Result<Option<Through>, InvalidSetting> {
    let ttl = settings.whole("ttl")?;
    match (settings.text("broadcast")?, settings.text("bbmd")?) {
        (_, None) if ttl.is_some() => Err(InvalidSetting::new(
            "setting `ttl` is given without `bbmd`; write where that is, or leave it out",
        )),
        (None, None) => Ok(None),
        (Some(_), Some(_)) => {
            Err(InvalidSetting::new("setting `broadcast` is given beside `bbmd`; leave one of them out"))
        }
        (Some(text), None) => match text.parse() {
            Ok(address) => Ok(Some(Through::Broadcast(SocketAddrV4::new(address, port)))),
            Err(_) => Err(InvalidSetting::new(format!(
                "setting `broadcast` is `{}`; write an IPv4 address, as 192.0.2.255",
                shown(&text)
            ))),
        },
        (None, Some(text)) => {
            let (host, port) = text.rsplit_once(':').unwrap_or((&text, "47808"));
            match port.parse() {
                Ok(port) if port != 0 && !host.is_empty() => {
                    let ttl = settings.whole_within("ttl", TTL, 10..=65_535)?;
                    Ok(Some(Through::Bbmd { host: host.to_owned(), port, ttl }))
                }
                _ => Err(InvalidSetting::new(format!(
                    "setting `bbmd` is `{}`; write HOST or HOST:PORT",
                    shown(&text)
                ))),
            }
        }
    }
}

fn remote(settings: &Settings) -> Result<Option<Remote>, InvalidSetting> {
    match (settings.whole("network")?, settings.text("mac")?) {
        (None, None) => Ok(None),
        (Some(_), Some(text)) => {
            let network = settings.whole_within("network", 1, 1..=65_534)?;
            let mac = mac(&text).ok_or_else(|| {
                InvalidSetting::new(format!(
                    "setting `mac` is `{}`; write a number up to 255 (MS/TP), ADDRESS:PORT (BACnet/IP), or bytes as 0x0a0b0c",
                    shown(&text)
                ))
            })?;
            Ok(Some(Remote { network, mac }))
        }
        _ => Err(InvalidSetting::new(
            "settings `network` and `mac` belong together; write both, or leave both out",
        )),
    }
}

fn mac(text: &str) -> Option<Vec<u8>> {
    if let Ok(number) = text.parse::<u8>() {
        return Some(vec![number]);
    }
    if let Ok(at) = text.parse::<std::net::SocketAddrV4>() {
        return Some([&at.ip().octets()[..], &at.port().to_be_bytes()].concat());
    }
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))?;
    let digits: Option<Vec<u32>> = digits.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| !digits.is_empty() && digits.len().is_multiple_of(2))?;
    let bytes = digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| (byte << 4) | *digit as u8));
    Some(bytes.collect()).filter(|mac: &Vec<u8>| mac.len() <= MAC_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    use framework::Scalar;

    fn read(pairs: &[(&str, &str)]) -> Result<Address, String> {
        let pairs = pairs.iter().map(|(key, value)| (*key, Scalar::Text((*value).to_owned())));
        Address::read(&Settings::from_pairs(pairs)).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn a_device_is_at_an_address_or_found_by_its_instance() {
        let through = |pairs: &[(&str, &str)]| match read(pairs).unwrap().place {
            Place::Instance { instance: 1234, through } => through,
            other => panic!("{other:?}"),
        };
        assert_eq!(through(&[("deviceInstance", "1234")]), Through::Networks(47_808));
        let own = [("deviceInstance", "1234"), ("broadcast", "192.0.2.255")];
        let to = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 255), 47_808);
        assert_eq!(through(&own), Through::Broadcast(to));
        let foreign = [("deviceInstance", "1234"), ("bbmd", "bbmd.plant:47809"), ("ttl", "60")];
        let host = "bbmd.plant".to_owned();
        assert_eq!(through(&foreign), Through::Bbmd { host, port: 47_809, ttl: 60 });
        let routed = read(&[("IP", "192.0.2.7"), ("network", "2001"), ("mac", "12")]).unwrap();
        let remote = Some(Remote { network: 2001, mac: vec![12] });
        let host = "192.0.2.7".to_owned();
        assert_eq!(routed.place, Place::At { host, port: 47_808, remote, instance: None });
        assert_eq!((routed.answer, routed.retries, routed.cov_lifetime), (Duration::from_secs(3), 3, 300));
        assert_eq!(routed.local_port, 47_808);
        assert_eq!(mac("192.0.2.9:47808"), Some(vec![192, 0, 2, 9, 0xBA, 0xC0]));
        assert_eq!(mac("0x0a0B"), Some(vec![10, 11]));
    }

    #[test]
    fn what_is_wrong_says_what_to_write() {
        for (pairs, said) in [
            (vec![], "`deviceInstance` and `ip`"),
            (vec![("deviceInstance", "4194303")], "`deviceInstance`"),
            (vec![("ip", "h"), ("broadcast", "192.0.2.255")], "beside `ip`"),
            (vec![("deviceInstance", "1"), ("broadcast", "all")], "192.0.2.255"),
            (vec![("deviceInstance", "1"), ("network", "5"), ("mac", "1")], "without `ip`"),
            (vec![("ip", "h"), ("network", "5")], "belong together"),
            (vec![("ip", "h"), ("network", "65535"), ("mac", "1")], "`network`"),
            (vec![("ip", "h"), ("network", "5"), ("mac", "256")], "MS/TP"),
            (vec![("ip", "h"), ("network", "5"), ("mac", "0x")], "0x0a0b0c"),
            (vec![("ip", "h"), ("bbmd", "b")], "beside `ip`"),
            (vec![("deviceInstance", "1"), ("bbmd", "b:0")], "HOST:PORT"),
            (vec![("deviceInstance", "1"), ("bbmd", "b"), ("broadcast", "192.0.2.255")], "beside `bbmd`"),
            (vec![("deviceInstance", "1"), ("ttl", "60")], "without `bbmd`"),
            (vec![("ip", "h"), ("port", "0")], "`port`"),
            (vec![("ip", "h"), ("timeoutMs", "1")], "`timeoutMs`"),
            (vec![("ip", "h"), ("retries", "11")], "`retries`"),
            (vec![("ip", "h"), ("covLifetime", "0")], "`covLifetime`"),
        ] {
            let refusal = read(&pairs).unwrap_err();
            assert!(refusal.contains(said), "{refusal}");
        }
    }
}
