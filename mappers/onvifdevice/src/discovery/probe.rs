//! The words of WS-Discovery of April 2005, which ONVIF has. Pure.

use std::net::IpAddr;

use hyper::http::uri::PathAndQuery;
use uuid::Uuid;

use crate::xml::parse;

/// 64 matches of one answer.
const MATCHES_MAX: usize = 64;
/// What cameras are: ONVIF's first edition has the one, and later ones the other.
const TYPES: [(&str, &str); 2] = [
    ("http://www.onvif.org/ver10/network/wsdl", "NetworkVideoTransmitter"),
    ("http://www.onvif.org/ver10/device/wsdl", "Device"),
];

/// A call to all cameras, by whose number answers are known.
#[derive(Debug)]
pub(crate) struct Called(Uuid);

/// One that has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Match {
    pub(crate) reference: String,
    pub(crate) port: u16,
    pub(crate) path: String,
}

impl Called {
    pub(crate) fn new(id: Uuid) -> Self {
        Called(id)
    }

    /// What is sent.
    pub(crate) fn probes(&self) -> [String; 2] {
        let id = self.0;
        TYPES.map(|(namespace, kind)| {
            format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?><e:Envelope xmlns:e=\"http://www.w3.org/2003/05/soap-envelope\" \
                 xmlns:w=\"http://schemas.xmlsoap.org/ws/2004/08/addressing\" xmlns:d=\"http://schemas.xmlsoap.org/ws/2005/04/discovery\" \
                 xmlns:dn=\"{namespace}\"><e:Header><w:MessageID>urn:uuid:{id}</w:MessageID>\
                 <w:To e:mustUnderstand=\"true\">urn:schemas-xmlsoap-org:ws:2005:04:discovery</w:To>\
                 <w:Action e:mustUnderstand=\"true\">http://schemas.xmlsoap.org/ws/2005/04/discovery/Probe</w:Action></e:Header>\
                 <e:Body><d:Probe><d:Types>dn:{kind}</d:Types></d:Probe></e:Body></e:Envelope>"
            )
        })
    }

    /// Those that a datagram names, if it is an answer to this call. Whatever address they give, they are where it came from.
    pub(crate) fn answered(&self, datagram: &[u8], from: IpAddr) -> Vec<Match> {
        let Ok(envelope) = parse(datagram) else { return Vec::new() };
        let relates_to = envelope.text_at("Header/RelatesTo").unwrap_or_default().to_ascii_lowercase();
        if !relates_to.contains(&self.0.to_string()) {
            return Vec::new();
        }
        let Some(body) = envelope.child("Body") else { return Vec::new() };
        // Some leave out what is around the match.
        let matches = body.child("ProbeMatches").unwrap_or(body);
        let one = |found: &crate::xml::Element| {
            let reference = found.text_at("EndpointReference/Address")?.to_owned();
            let (port, path) = place(found.text_at("XAddrs")?, from)?;
            Some(Match { reference, port, path })
        };
        matches.all("ProbeMatch").take(MATCHES_MAX).filter_map(one).collect()
    }
}

/// Whether both are the same: some write `uuid:` for `urn:uuid:`.
pub(crate) fn is_same(one: &str, other: &str) -> bool {
    let plain = |text: &str| text.trim().to_ascii_lowercase().trim_start_matches("urn:").to_owned();
    plain(one) == plain(other)
}

/// The port and the path of the best of these addresses: that which has the sender's own address, or the first.
fn place(addresses: &str, from: IpAddr) -> Option<(u16, String)> {
    let read = |address: &str| {
        let rest = address.strip_prefix("http://")?;
        let (authority, path) = rest.split_at(rest.find('/')?);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().ok().filter(|port| *port != 0)?),
            _ => (authority, 80),
        };
        let is_own = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip == from);
        Some((is_own, port, path.parse::<PathAndQuery>().ok()?.as_str().to_owned()))
    };
    let found: Vec<_> = addresses.split_whitespace().take(16).filter_map(read).collect();
    let best = found.iter().find(|(is_own, ..)| *is_own).or(found.first());
    best.map(|(_, port, path)| (*port, path.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Uuid = Uuid::from_u128(7);

    fn answer(relates_to: &str, matches: &str) -> String {
        format!(
            "<e:Envelope xmlns:e='e' xmlns:w='w' xmlns:d='d'><e:Header><w:RelatesTo>{relates_to}</w:RelatesTo></e:Header>\
             <e:Body><d:ProbeMatches>{matches}</d:ProbeMatches></e:Body></e:Envelope>"
        )
    }

    fn one(reference: &str, addresses: &str) -> String {
        format!(
            "<d:ProbeMatch><w:EndpointReference><w:Address>{reference}</w:Address></w:EndpointReference><d:XAddrs>{addresses}</d:XAddrs></d:ProbeMatch>"
        )
    }

    #[test]
    fn an_answer_to_this_call_says_who_is_where_it_came_from() {
        let (called, from): (_, IpAddr) = (Called::new(ID), "192.0.2.7".parse().unwrap());
        let all = [
            one("urn:uuid:a", "http://10.0.0.1/first http://192.0.2.7:8000/onvif/device_service"),
            one("urn:uuid:b", " http://169.254.1.1:81/onvif/device_service\n"),
            one("urn:uuid:c", "https://192.0.2.7/x http://[fe80::1]:8080/y"),
            one("urn:uuid:d", "http://192.0.2.7:0/a ftp://x"),
            one("urn:uuid:e", ""),
        ];
        let found = called.answered(answer(&format!("URN:UUID:{ID}"), &all.concat()).as_bytes(), from);
        let at = |reference: &str, port, path: &str| Match {
            reference: reference.to_owned(),
            port,
            path: path.to_owned(),
        };
        assert_eq!(
            found,
            [
                at("urn:uuid:a", 8000, "/onvif/device_service"),
                at("urn:uuid:b", 81, "/onvif/device_service"),
                at("urn:uuid:c", 8080, "/y"),
            ]
        );
        let bare =
            answer(&ID.to_string(), &all[1]).replace("<d:ProbeMatches>", "").replace("</d:ProbeMatches>", "");
        assert_eq!(called.answered(bare.as_bytes(), from), [at("urn:uuid:b", 81, "/onvif/device_service")]);
        assert_eq!(called.answered(answer("uuid:8", &all.concat()).as_bytes(), from), [], "somebody else's");
        for datagram in [&b""[..], b"\xFF", b"<a/>", answer(&ID.to_string(), "").as_bytes()] {
            assert_eq!(called.answered(datagram, from), []);
        }
        assert!(is_same("urn:uuid:AB", " uuid:ab") && !is_same("urn:uuid:ab", "urn:uuid:abc"));
    }

    #[test]
    fn a_call_is_xml_with_its_number() {
        for probe in Called::new(ID).probes() {
            let read = parse(probe.as_bytes()).unwrap();
            assert!(read.text_at("Header/MessageID").unwrap().ends_with(&ID.to_string()));
            assert!(read.text_at("Body/Probe/Types").unwrap().starts_with("dn:"));
        }
    }
}
