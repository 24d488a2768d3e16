//! Where a device publishes, and where its properties are.

use framework::{InvalidSetting, Payload, Property, Settings};

/// The node's own broker.
const BROKER: &str = "127.0.0.1";
/// The port that MQTT is assigned.
const PORT: i64 = 1883;
/// 65535 bytes: the longest topic (MQTT 3.1.1 §1.5.3).
const TOPIC_MAX: usize = 65_535;

/// The broker of a device.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// Its address or name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// User and password.
    pub login: Option<(String, String)>,
    /// The client's name; None: one of its own for each connection.
    pub client_id: Option<String>,
    /// Where it is told whether the device is there, and the word for that it is not.
    pub availability: Option<(String, String)>,
}

impl std::fmt::Debug for Address {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Address({}:{})", self.host, self.port)
    }
}

/// Where a property is.
#[derive(Debug, Clone, PartialEq)]
pub struct Visitor {
    /// Where the device publishes it.
    pub topic: String,
    /// Where it takes what is desired. None: it cannot be written.
    pub command: Option<String>,
    /// Where it is in what is published.
    pub payload: Payload,
    /// What is published, with the value for `{{value}}`.
    pub template: String,
    /// Whether the broker keeps it for the device.
    pub retain: bool,
}

impl Address {
    /// From `protocol.configData`, in our keys and those of KubeEdge's mapper and of its sample.
    ///
    /// # Errors
    /// With the key and the cure.
    pub fn read(settings: &Settings) -> Result<Self, InvalidSetting> {
        // The broker may name it itself.
        settings.without_effect(&["port"]);
        let first = |keys: [&str; 3]| -> Result<Option<String>, InvalidSetting> {
            let mut found = None;
            for key in keys {
                found = found.or(settings.text(key)?);
            }
            Ok(found)
        };
        let broker = first(["broker", "brokerURL", "ip"])?.unwrap_or_else(|| BROKER.to_owned());
        let (scheme, place) = broker.split_once("://").unwrap_or(("tcp", &broker));
        if !["tcp", "mqtt"].contains(&scheme) {
            return Err(InvalidSetting::new(format!(
                "setting `broker` is `{scheme}://…`; write tcp://HOST:PORT, and bridge from the node's own broker what needs TLS"
            )));
        }
        let place = place.trim_end_matches('/');
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') && !port.ends_with(']') => (host, port.parse().ok()),
            _ => (place, Some(settings.whole("port")?.unwrap_or(PORT))),
        };
        let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
        let port = port.ok_or_else(|| {
            InvalidSetting::new("the broker's port is not between 1 and 65535; write `broker` as HOST:PORT")
        })?;
        let user = first(["userName", "username", "userName"])?;
        let password = settings.text("password")?.unwrap_or_default();
        let offline = settings.text("offline")?.unwrap_or_else(|| "offline".to_owned());
        // Said for those who read the file: any other word means that it is there.
        settings.text("online")?;
        let availability = match settings.text("availabilityTopic")? {
            Some(topic) => Some((checked("availabilityTopic", topic)?, offline)),
            None => None,
        };
        Ok(Address {
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            login: user.map(|user| (user, password)),
            client_id: settings.text("clientID")?,
            availability,
        })
    }
}

impl Visitor {
    /// From `visitors.configData`.
    ///
    /// # Errors
    /// With the key and the cure.
    pub fn read(property: &Property, settings: &Settings) -> Result<Self, InvalidSetting> {
        let (topic, older) = (settings.text("stateTopic")?, settings.text("topic")?);
        let topic = topic.or(older);
        let topic = topic.ok_or_else(|| {
            InvalidSetting::new(
                "setting `stateTopic` is missing; write the topic on which the device publishes",
            )
        })?;
        let topic = checked("stateTopic", topic)?;
        let command = settings.text("commandTopic")?;
        let command = command.map(|topic| checked("commandTopic", topic)).transpose()?;
        if command.as_ref() == Some(&topic) {
            return Err(InvalidSetting::new(
                "`commandTopic` is `stateTopic`: what is desired would come back as if the device had said it",
            ));
        }
        Ok(Visitor {
            topic,
            command,
            payload: Payload::read(property.kind, settings)?,
            template: settings.text("payload")?.unwrap_or_else(|| "{{value}}".to_owned()),
            retain: settings.flag("retainCommand")?,
        })
    }
}

fn checked(key: &str, topic: String) -> Result<String, InvalidSetting> {
    if topic.len() > TOPIC_MAX || topic.contains(['+', '#', '\0']) {
        return Err(InvalidSetting::new(format!(
            "setting `{key}` is no topic; it has no +, no # and no end"
        )));
    }
    Ok(topic)
}

#[cfg(test)]
mod tests {
    use super::*;
    use framework::{Kind, Scalar};

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        Settings::from_pairs(pairs.iter().map(|(key, value)| (*key, Scalar::Text((*value).to_owned()))))
    }

    #[test]
    fn a_broker_is_read_in_all_spellings() {
        for (pairs, host, port) in [
            (vec![], "127.0.0.1", 1883),
            (vec![("broker", "broker.local:1884")], "broker.local", 1884),
            (vec![("brokerURL", "tcp://192.0.2.7:1883/")], "192.0.2.7", 1883),
            (vec![("ip", "192.0.2.7"), ("port", "1885")], "192.0.2.7", 1885),
            (vec![("broker", "[2001:db8::7]:1883")], "2001:db8::7", 1883),
        ] {
            let found = Address::read(&settings(&pairs)).unwrap();
            assert_eq!((found.host.as_str(), found.port), (host, port));
        }
        let secret = Address::read(&settings(&[("userName", "u"), ("password", "hidden")])).unwrap();
        assert!(!format!("{secret:?}").contains("hidden"));
        for wrong in ["ssl://h:8883", "h:0", "h:many"] {
            Address::read(&settings(&[("broker", wrong)])).unwrap_err();
        }
    }

    #[test]
    fn topics_are_topics() {
        let property = Property { writable: true, ..Property::new("p", Kind::Int) };
        let read = |pairs: &[(&str, &str)]| {
            Visitor::read(&property, &settings(pairs)).map_err(|refusal| refusal.to_string())
        };
        assert_eq!(read(&[("topic", "a/b")]).unwrap().topic, "a/b");
        for (pairs, said) in [
            (vec![], "`stateTopic` is missing"),
            (vec![("stateTopic", "a/#")], "no topic"),
            (vec![("stateTopic", "a"), ("commandTopic", "a")], "would come back"),
        ] {
            let refusal = read(&pairs).unwrap_err();
            assert!(refusal.contains(said), "{refusal}");
        }
    }
}
