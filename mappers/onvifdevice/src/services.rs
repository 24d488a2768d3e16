//! What a camera has, and where: its services and its media profiles. Pure.
//!
//! A camera says its addresses as it sees itself: behind a NAT, or after a move, they lead elsewhere. Only the path of such an address
//! counts, and the port where the address is the one that was dialled: so no camera leads to another machine either.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use hyper::http::uri::PathAndQuery;

use crate::ask::Service;
use crate::soap::short;
use crate::xml::Element;

/// 4 KiB of an address, and 2 KiB of the path in it.
const ADDRESS_MAX: usize = 4096;
const PATH_MAX: usize = 2048;
/// 256 profiles.
const PROFILES_MAX: usize = 256;
/// 256 bytes of a token (ONVIF has 64).
const TOKEN_MAX: usize = 256;

/// The address that was dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dialled {
    /// As the device has it, or in numbers.
    pub(crate) host: String,
    pub(crate) at: SocketAddr,
}

/// Something at the machine that was dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) port: u16,
    /// With its query.
    pub(crate) path: String,
}

impl Dialled {
    /// Where an address leads that the camera has given.
    ///
    /// # Errors
    /// A sentence, when it is none that is spoken.
    pub(crate) fn target(&self, address: &str) -> Result<Target, String> {
        let address = address.trim();
        // Some of it is said back with each request.
        if address.len() > ADDRESS_MAX {
            return Err(format!("`{}` has more than {ADDRESS_MAX} bytes", short(address)));
        }
        let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
        let (authority, path) = match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" => rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len())),
            "" if rest.starts_with('/') => ("", rest),
            _ => return Err(format!("`{}` is no address of HTTP", short(address))),
        };
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        // Without what stands behind `#`, which nobody is asked for.
        let read = path.parse::<PathAndQuery>().ok().filter(|path| path.as_str().len() <= PATH_MAX);
        let path = read.ok_or_else(|| format!("`{}` has no path that can be asked for", short(address)))?;
        let path = path.as_str().to_owned();
        let port = self.own_port(authority).filter(|_| scheme.eq_ignore_ascii_case("http"));
        Ok(Target { port: port.unwrap_or(self.at.port()), path })
    }

    /// The port in `HOST:PORT`, if the host is that which was dialled.
    fn own_port(&self, authority: &str) -> Option<u16> {
        // Some have the login in it.
        let place = authority.rsplit('@').next().unwrap_or(authority);
        let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, rest)) => (host, rest.strip_prefix(':')),
            None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
        };
        let is_own = host.eq_ignore_ascii_case(&self.host)
            || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical() == self.at.ip().to_canonical());
        let port = port.map_or(Some(80), |port| port.parse().ok().filter(|port| *port != 0));
        port.filter(|_| is_own)
    }

    /// As it stands in a `Host` header. Some cameras sign without `:80`.
    pub(crate) fn authority(&self, port: u16) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if port == 80 { host } else { format!("{host}:{port}") }
    }
}

/// Where each service is.
pub(crate) type Services = BTreeMap<Service, Target>;

/// From the answer to `GetServices`.
pub(crate) fn services(answer: &Element, dialled: &Dialled) -> Services {
    let service = |one: &Element| {
        let service = Service::of_namespace(one.text_at("Namespace")?)?;
        Some((service, dialled.target(one.text_at("XAddr")?).ok()?))
    };
    answer.all("Service").filter_map(service).collect()
}

/// From the answer to `GetCapabilities`, which older cameras have.
pub(crate) fn capabilities(answer: &Element, dialled: &Dialled) -> Services {
    let places = [
        (Service::Media, "Media"),
        (Service::Ptz, "PTZ"),
        (Service::Imaging, "Imaging"),
        (Service::Events, "Events"),
        (Service::Analytics, "Analytics"),
        (Service::DeviceIo, "Extension/DeviceIO"),
    ];
    let place = |(service, path): (Service, &str)| {
        let address = answer.text_at(&format!("Capabilities/{path}/XAddr"))?;
        Some((service, dialled.target(address).ok()?))
    };
    places.into_iter().filter_map(place).collect()
}

/// A media profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) token: String,
    name: String,
    /// It moves.
    has_ptz: bool,
}

/// From the answer to `GetProfiles`, of either media service.
pub(crate) fn profiles(answer: &Element) -> Vec<Profile> {
    let profile = |one: &Element| {
        let token = one.attribute("token").filter(|token| token.len() <= TOKEN_MAX)?.to_owned();
        let has_ptz = one.child("PTZConfiguration").is_some() || one.at("Configurations/PTZ").is_some();
        Some(Profile { token, name: short(one.text_at("Name").unwrap_or_default()), has_ptz })
    };
    answer.all("Profiles").take(PROFILES_MAX).filter_map(profile).collect()
}

/// The token of the profile that is meant: by its token or name, or the first, of those that move where that is asked for.
///
/// # Errors
/// A sentence with those that there are.
pub(crate) fn chosen(profiles: &[Profile], wanted: Option<&str>, is_to_move: bool) -> Result<String, String> {
    let found = match wanted {
        Some(wanted) => profiles
            .iter()
            .find(|profile| profile.token == wanted)
            .or_else(|| profiles.iter().find(|profile| profile.name == wanted)),
        None => profiles.iter().find(|profile| profile.has_ptz || !is_to_move).or(profiles.first()),
    };
    if let Some(found) = found {
        return Ok(found.token.clone());
    }
    let Some(wanted) = wanted else { return Err("it has no media profile".to_owned()) };
    let names: Vec<String> = profiles
        .iter()
        .take(16)
        .map(|profile| format!("{} ({})", short(&profile.token), profile.name))
        .collect();
    Err(format!("it has no profile `{wanted}`; there are {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::soap::namespace;
    use crate::xml::parse;

    fn dialled() -> Dialled {
        Dialled { host: "door.local".to_owned(), at: "192.0.2.7:8000".parse().unwrap() }
    }

    #[test]
    fn an_address_leads_to_nothing_but_the_machine_that_was_dialled() {
        for (address, port, path) in [
            ("http://192.0.2.7/onvif/media", 80, "/onvif/media"),
            ("http://192.0.2.7:8899/onvif/media?x=1", 8899, "/onvif/media?x=1"),
            ("http://DOOR.local:81/a", 81, "/a"),
            ("http://[::ffff:192.0.2.7]:82/a", 82, "/a"),
            ("http://user:pw@192.0.2.7:83/a", 83, "/a"),
            // Behind a NAT, or wrong.
            ("http://10.0.0.5:8081/onvif/media", 8000, "/onvif/media"),
            ("http://169.254.169.254/latest/meta-data", 8000, "/latest/meta-data"),
            ("http://[fe80::1%25eth0]/onvif", 8000, "/onvif"),
            ("http://192.0.2.7:99999/a", 8000, "/a"),
            ("http://192.0.2.7:0/a", 8000, "/a"),
            // TLS is not spoken; the same is there without it as a rule.
            ("https://192.0.2.7:443/onvif/media", 8000, "/onvif/media"),
            ("/onvif/media", 8000, "/onvif/media"),
            ("/onvif/media?a#b c", 8000, "/onvif/media?a"),
            ("http://192.0.2.7", 80, "/"),
        ] {
            assert_eq!(dialled().target(address), Ok(Target { port, path: path.to_owned() }), "{address}");
        }
        for address in
            ["", "rtsp://192.0.2.7/live", "file:///etc/passwd", "http://192.0.2.7/a b\r\nX: y", "onvif"]
        {
            assert!(dialled().target(address).is_err(), "{address}");
        }
        assert!(dialled().target(&format!("/{}", "a".repeat(PATH_MAX))).is_err());
        assert!(dialled().target(&format!("http://door.local/a#{}", "a".repeat(ADDRESS_MAX))).is_err());
        assert_eq!(
            (dialled().authority(80).as_str(), dialled().authority(81).as_str()),
            ("door.local", "door.local:81")
        );
    }

    #[test]
    fn services_are_known_by_their_namespaces_or_by_older_cameras_names() {
        let service = |prefix: &str, path: &str| {
            format!(
                "<Service><Namespace>{}</Namespace><XAddr>http://10.0.0.5/{path}</XAddr></Service>",
                namespace(prefix)
            )
        };
        let answer = format!(
            "<r>{}{}<Service><Namespace>urn:other</Namespace><XAddr>http://10.0.0.5/x</XAddr></Service><Service/></r>",
            service("trt", "m"),
            service("tptz", "p")
        );
        let found = services(&parse(answer.as_bytes()).unwrap(), &dialled());
        let at = |path: &str| Target { port: 8000, path: path.to_owned() };
        assert_eq!(found, BTreeMap::from([(Service::Media, at("/m")), (Service::Ptz, at("/p"))]));
        let old = "<r><Capabilities><Media><XAddr>http://10.0.0.5/m</XAddr></Media><Extension><DeviceIO><XAddr>http://10.0.0.5/d</XAddr>\
                   </DeviceIO></Extension></Capabilities></r>";
        let found = capabilities(&parse(old.as_bytes()).unwrap(), &dialled());
        assert_eq!(found, BTreeMap::from([(Service::Media, at("/m")), (Service::DeviceIo, at("/d"))]));
    }

    #[test]
    fn a_profile_is_meant_by_its_token_or_name_or_as_the_first_that_does() {
        let answer = "<r><Profiles token='0'><Name>main</Name></Profiles>\
            <Profiles token='1'><Name>sub</Name><PTZConfiguration/></Profiles><Profiles><Name>none</Name></Profiles></r>";
        let found = profiles(&parse(answer.as_bytes()).unwrap());
        assert_eq!(found.len(), 2);
        let chosen = |wanted, is_to_move| chosen(&found, wanted, is_to_move);
        assert_eq!(chosen(None, false).as_deref(), Ok("0"));
        assert_eq!(chosen(None, true).as_deref(), Ok("1"));
        assert_eq!(chosen(Some("main"), true).as_deref(), Ok("0"));
        assert_eq!(chosen(Some("1"), false).as_deref(), Ok("1"));
        assert!(chosen(Some("x"), false).unwrap_err().contains("0 (main), 1 (sub)"));
        assert!(super::chosen(&[], None, false).unwrap_err().contains("no media profile"));
        let second = "<r><Profiles token='a'><Configurations><PTZ/></Configurations></Profiles></r>";
        assert!(profiles(&parse(second.as_bytes()).unwrap())[0].has_ptz);
    }

    proptest! {
        #[test]
        fn whatever_an_address_is_it_leads_to_a_path_of_one_line(address in any::<String>(), rest in "[ -~]{0,40}") {
            for address in [address, format!("http://{rest}")] {
                if let Ok(target) = dialled().target(&address) {
                    prop_assert!(target.path.starts_with('/') && target.path.bytes().all(|byte| byte > b' '));
                }
            }
        }
    }
}
