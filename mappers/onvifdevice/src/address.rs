//! Where a camera is, and who asks there.

use std::time::Duration;

use framework::answers::BYTES_MAX;
use framework::http_device::DeviceUrl;
use framework::{InvalidSetting, Secret, Settings};

use crate::login::Way;

/// 5 s for an answer, unless `timeoutMs` says otherwise.
const ANSWER_MILLIS: i64 = 5000;
/// Where cameras have ONVIF, unless `url` has a path (Core §5.1.1.2).
const PATH: &str = "/onvif/device_service";
/// 512 bytes of an endpoint reference.
const REFERENCE_MAX: usize = 512;

/// Where a camera is, who asks there, and how long it may take.
#[derive(Debug, Clone, PartialEq)]
pub struct Address {
    /// Where it is.
    pub place: Place,
    /// Who asks: a name and its password. None: nobody in particular.
    pub user: Option<(String, Secret)>,
    /// How that is said.
    pub way: Way,
    /// The password may be sent in clear (HTTP Basic), where the camera asks for that.
    pub may_basic: bool,
    /// The media profile, by its token or name. None: the camera's first.
    pub profile: Option<String>,
    /// How long an answer may take.
    pub answer: Duration,
    /// The largest picture.
    pub bytes: usize,
}

/// Where a camera is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// At this address.
    Url {
        /// Its address or name.
        host: String,
        /// The TCP port.
        port: u16,
        /// Where its device service is.
        path: String,
    },
    /// Wherever it says that it is, when it is called by its endpoint reference (WS-Discovery).
    Reference {
        /// As `urn:uuid:…`.
        reference: String,
        /// The network interface on which it is called. None: each that there is.
        interface: Option<String>,
    },
}

impl Address {
    /// From `protocol.configData`.
    ///
    /// # Errors
    /// With the key and the cure.
    pub fn read(settings: &Settings) -> Result<Self, InvalidSetting> {
        // KubeEdge's mapper had them for TLS, which is not spoken.
        settings.without_effect(&["cert", "remoteCert", "key"]);
        let millis: u64 = settings.whole_within("timeoutMs", ANSWER_MILLIS, 100..=60_000)?;
        let most = i64::try_from(BYTES_MAX).unwrap_or(i64::MAX);
        Ok(Address {
            place: place(settings)?,
            user: user(settings)?,
            way: way(settings)?,
            may_basic: settings.flag("allowBasic")?,
            profile: settings.text("profile")?,
            answer: Duration::from_millis(millis),
            bytes: settings.whole_within("maxBytes", most, 1..=most)?,
        })
    }
}

fn place(settings: &Settings) -> Result<Place, InvalidSetting> {
    let (url, reference) = (settings.text("url")?, settings.text("endpointReference")?);
    let interface = settings.text("interface")?;
    match (url, reference) {
        (Some(_), Some(_)) => Err(InvalidSetting::new(
            "settings `url` and `endpointReference` are both there; remove one: with the second the camera is looked for",
        )),
        (None, None) => Err(InvalidSetting::new(
            "setting `url` is missing; write it as 192.0.2.7 or http://192.0.2.7:8000, or `endpointReference` for a camera that is looked for",
        )),
        (Some(_), None) if interface.is_some() => Err(InvalidSetting::new(
            "setting `interface` is for `endpointReference`, and `url` is there; remove one",
        )),
        (Some(url), None) => at(&url),
        (None, Some(reference)) => {
            let reference = reference.trim().to_owned();
            if reference.len() > REFERENCE_MAX || !reference.to_ascii_lowercase().starts_with("urn:") {
                return Err(InvalidSetting::new(
                    "setting `endpointReference` is none; write it as the camera says it, as urn:uuid:4d454930-0000-1000-8000-bcaec5c0ffee",
                ));
            }
            let is_name = |name: &String| (1..16).contains(&name.len()) && !name.contains(['/', ' ', '\0']);
            if interface.as_ref().is_some_and(|interface| !is_name(interface)) {
                return Err(InvalidSetting::new(
                    "setting `interface` is no name of a network interface, as eth0",
                ));
            }
            Ok(Place::Reference { reference, interface })
        }
    }
}

/// KubeEdge's mapper takes an address with its port, and no scheme.
fn at(url: &str) -> Result<Place, InvalidSetting> {
    let whole = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let DeviceUrl { host, port, path, query } =
        DeviceUrl::read(&whole, "192.0.2.7 or http://192.0.2.7:8000")?;
    let path = match (path.as_str(), query) {
        ("/", None) => PATH.to_owned(),
        (_, None) => path,
        (_, Some(query)) => format!("{path}?{query}"),
    };
    Ok(Place::Url { host, port, path })
}

fn user(settings: &Settings) -> Result<Option<(String, Secret)>, InvalidSetting> {
    let (user, given, file) =
        (settings.text("userName")?, settings.text("password")?, settings.text("passwordFile")?);
    if given.is_some() && file.is_some() {
        return Err(InvalidSetting::new("settings `password` and `passwordFile` are both there; remove one"));
    }
    let secret = file.map(|file| Secret::File(file.into())).or(given.map(Secret::Given));
    match (user, secret) {
        (Some(user), secret) => Ok(Some((user, secret.unwrap_or(Secret::Given(String::new()))))),
        (None, None) => Ok(None),
        (None, Some(_)) => Err(InvalidSetting::new("setting `userName` is missing, and a password is there")),
    }
}

fn way(settings: &Settings) -> Result<Way, InvalidSetting> {
    match settings.text("auth")?.unwrap_or_default().to_ascii_lowercase().as_str() {
        "" => Ok(Way::AsAsked),
        "usernametoken" => Ok(Way::Token),
        "digest" => Ok(Way::Digest),
        other => Err(InvalidSetting::new(format!(
            "setting `auth` is `{other}`; write usernameToken or digest, or leave it out and the camera says it"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use framework::Scalar;

    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Address, String> {
        let pairs = pairs.iter().map(|(key, value)| (*key, Scalar::Text((*value).to_owned())));
        Address::read(&Settings::from_pairs(pairs)).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn addresses_are_read_as_kubeedge_has_them_and_as_cameras_show_them() {
        for (url, host, port, path) in [
            ("192.0.2.7", "192.0.2.7", 80, PATH),
            ("192.0.2.7:8000", "192.0.2.7", 8000, PATH),
            ("http://door.local/", "door.local", 80, PATH),
            ("http://[2001:db8::7]:8899/onvif/device?x=1", "2001:db8::7", 8899, "/onvif/device?x=1"),
        ] {
            let place = Place::Url { host: host.to_owned(), port, path: path.to_owned() };
            let found =
                read(&[("URL", url), ("userName", "op"), ("password", "hidden"), ("cert", "x")]).unwrap();
            assert_eq!(found.place, place, "{url}");
            assert!(!format!("{found:?}").contains("hidden"));
        }
        let found = read(&[("endpointReference", "urn:uuid:1"), ("interface", "eth0")]).unwrap();
        let reference = "urn:uuid:1".to_owned();
        assert_eq!(found.place, Place::Reference { reference, interface: Some("eth0".to_owned()) });
        assert_eq!((found.user, found.way), (None, Way::AsAsked));
    }

    #[test]
    fn what_is_wrong_says_what_to_write() {
        let url = ("url", "192.0.2.7");
        for (pairs, said) in [
            (vec![], "`url` is missing"),
            (vec![("url", "https://192.0.2.7")], "proxy"),
            (vec![("url", "rtsp://192.0.2.7")], "no URL of http"),
            (vec![("url", "http://u:p@192.0.2.7")], "`userName`"),
            (vec![("url", "a b")], "no URL"),
            (vec![url, ("endpointReference", "urn:uuid:1")], "remove one"),
            (vec![url, ("interface", "eth0")], "remove one"),
            (vec![("endpointReference", "1234")], "urn:uuid:"),
            (vec![("endpointReference", "urn:uuid:1"), ("interface", "a/b")], "`interface`"),
            (vec![url, ("password", "p")], "`userName` is missing"),
            (vec![url, ("userName", "u"), ("password", "p"), ("passwordFile", "/p")], "remove one"),
            (vec![url, ("auth", "basic")], "usernameToken or digest"),
            (vec![url, ("timeoutMs", "1")], "`timeoutMs`"),
            (vec![url, ("maxBytes", "99999999")], "`maxBytes`"),
        ] {
            let refusal = read(&pairs).unwrap_err();
            assert!(refusal.contains(said), "{refusal}");
        }
    }
}
