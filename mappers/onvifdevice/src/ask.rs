//! Requests that a Device may write, and where in their answers something is. Pure.

use std::fmt::Write as _;

use crate::soap::{envelope, namespace};
use crate::xml::{Element, escape, is_letter, parse};

/// 16 KiB of a request.
const REQUEST_MAX: usize = 16 << 10;
/// What takes the place of a value, and of the token of the media profile.
const VALUE: &str = "{{value}}";
const PROFILE: &str = "{{profile}}";

/// A service of a camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Service {
    Device,
    Media,
    Media2,
    Ptz,
    Imaging,
    Events,
    DeviceIo,
    Analytics,
}

/// Each with its name in `service`, and its prefix in requests.
const SERVICES: [(Service, &str, &str); 8] = [
    (Service::Device, "device", "tds"),
    (Service::Media, "media", "trt"),
    (Service::Media2, "media2", "tr2"),
    (Service::Ptz, "ptz", "tptz"),
    (Service::Imaging, "imaging", "timg"),
    (Service::Events, "events", "tev"),
    (Service::DeviceIo, "deviceIO", "tmd"),
    (Service::Analytics, "analytics", "tan"),
];

impl Service {
    pub(crate) fn named(name: &str) -> Option<Service> {
        SERVICES.iter().find(|(_, of, _)| of.eq_ignore_ascii_case(name)).map(|(service, ..)| *service)
    }

    pub(crate) fn names() -> String {
        SERVICES.map(|(_, name, _)| name).join(", ")
    }

    pub(crate) fn name(self) -> &'static str {
        SERVICES.iter().find(|(of, ..)| *of == self).map_or("", |(_, name, _)| name)
    }

    pub(crate) fn prefix(self) -> &'static str {
        SERVICES.iter().find(|(of, ..)| *of == self).map_or("", |(.., prefix)| prefix)
    }

    /// By the namespace that a camera calls it by.
    pub(crate) fn of_namespace(name: &str) -> Option<Service> {
        SERVICES.iter().find(|(.., prefix)| namespace(prefix) == name).map(|(service, ..)| *service)
    }
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) service: Service,
    /// What stands in the body of its envelope.
    pub(crate) body: String,
    /// As which SOAP knows it.
    pub(crate) action: String,
}

impl Ask {
    /// An operation without anything in it.
    pub(crate) fn of(service: Service, operation: &str) -> Ask {
        Ask::with(service, operation, "")
    }

    /// An operation of a media profile.
    pub(crate) fn of_profile(service: Service, operation: &str) -> Ask {
        let prefix = service.prefix();
        Ask::with(service, operation, &format!("<{prefix}:ProfileToken>{PROFILE}</{prefix}:ProfileToken>"))
    }

    /// An operation with this XML in it.
    pub(crate) fn with(service: Service, operation: &str, inside: &str) -> Ask {
        let prefix = service.prefix();
        let body = format!("<{prefix}:{operation}>{inside}</{prefix}:{operation}>");
        Ask { service, body, action: format!("{}/{operation}", namespace(prefix)) }
    }

    /// As a Device has it: the name of an operation, or XML.
    ///
    /// # Errors
    /// What is wrong, and the cure.
    pub(crate) fn read(service: Service, text: &str) -> Result<Ask, String> {
        let text = text.trim();
        if text.len() > REQUEST_MAX {
            return Err(format!("has more than {REQUEST_MAX} bytes"));
        }
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Ok(Ask::of(service, text));
        }
        let tried = text.replace(VALUE, "0").replace(PROFILE, "0");
        let read = parse(envelope("", &tried).as_bytes());
        let cure = "write the name of an operation, or XML with ONVIF's prefixes, as <tds:GetHostname/>";
        let read = read.map_err(|why| format!("cannot be read ({why}); {cure}"))?;
        let Some([root]) = read.child("Body").map(|body| body.children.as_slice()) else {
            return Err(format!("is not one element; {cure}"));
        };
        if let Some(name) = of_no_namespace(root) {
            return Err(format!("has `{name}`, whose prefix is none of ONVIF's; {cure}"));
        }
        let action = format!("{}/{}", root.namespace, root.name);
        Ok(Ask { service, body: text.to_owned(), action })
    }

    pub(crate) fn is_of_profile(&self) -> bool {
        self.body.contains(PROFILE)
    }

    /// Of the profile with this token.
    pub(crate) fn for_profile(&self, token: &str) -> Ask {
        Ask { body: self.body.replace(PROFILE, &escape(token)), ..self.clone() }
    }
}

/// The name of the first element that no camera knows.
fn of_no_namespace(element: &Element) -> Option<&str> {
    if element.namespace.is_empty() {
        return Some(&element.name);
    }
    element.children.iter().find_map(of_no_namespace)
}

/// A request that writes a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(Ask);

impl Template {
    /// As a Device has it.
    ///
    /// # Errors
    /// What is wrong, and the cure.
    pub(crate) fn read(service: Service, text: &str) -> Result<Template, String> {
        if !text.contains(VALUE) {
            return Err(format!("has no {VALUE}; write it where the value goes"));
        }
        Ask::read(service, text).map(Template)
    }

    /// With this value.
    ///
    /// # Errors
    /// When XML cannot have it.
    pub(crate) fn with(&self, value: &str) -> Result<Ask, String> {
        if !value.chars().all(is_letter) {
            return Err("it has a control character, which XML cannot have".to_owned());
        }
        // Both at once: a value may look like the other's mark.
        let mut body = String::new();
        let mut parts = self.0.body.split(VALUE);
        body.push_str(parts.next().unwrap_or_default());
        for part in parts {
            // Writing into a text does not fail.
            let _ = write!(body, "{}{part}", escape(value).replace('{', "&#123;"));
        }
        Ok(Ask { body, ..self.0.clone() })
    }
}

/// Where in an answer something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    steps: Vec<Step>,
    /// None: the text of what is there.
    attribute: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    name: String,
    /// An attribute and its value.
    with: Option<(String, String)>,
}

impl Path {
    /// One that is known to be one.
    pub(crate) fn of(text: &str) -> Path {
        Path::read(text).unwrap_or(Path { steps: Vec::new(), attribute: None })
    }

    /// From `A/B`, `A/B/@c`, `A[@token=1]/B`. None: it is none.
    pub(crate) fn read(text: &str) -> Option<Path> {
        let (mut steps, mut attribute) = (Vec::new(), None);
        let is_name = |name: &str| {
            !name.is_empty() && name.chars().all(|letter| letter.is_alphanumeric() || "-_.".contains(letter))
        };
        for part in text.trim().trim_matches('/').split('/') {
            if attribute.is_some() {
                return None;
            }
            if let Some(name) = part.strip_prefix('@') {
                attribute = Some(name.to_owned()).filter(|name| is_name(name));
                attribute.as_ref()?;
                continue;
            }
            let (name, with) = match part.split_once("[@") {
                None => (part, None),
                Some((name, rest)) => {
                    let (of, value) = rest.strip_suffix(']')?.split_once('=')?;
                    (name, Some((of.to_owned(), value.trim_matches(['"', '\'']).to_owned())))
                }
            };
            // What stands before a colon is the prefix in somebody's document.
            let name = name.rsplit(':').next().unwrap_or(name);
            if !is_name(name) || with.as_ref().is_some_and(|(of, _)| !is_name(of)) {
                return None;
            }
            steps.push(Step { name: name.to_owned(), with });
        }
        (!steps.is_empty()).then_some(Path { steps, attribute })
    }

    /// What is there, without blanks around it.
    pub(crate) fn find<'a>(&self, answer: &'a Element) -> Option<&'a str> {
        let found = self.steps.iter().try_fold(answer, |at, step| {
            let is_meant = |child: &&Element| {
                step.with.as_ref().is_none_or(|(of, value)| child.attribute(of) == Some(value.as_str()))
            };
            at.children.iter().find(|child| child.name == step.name && is_meant(child))
        })?;
        match &self.attribute {
            Some(name) => {
                found.attributes.iter().find(|(_, of, _)| of == name).map(|(.., value)| value.trim())
            }
            None => Some(found.text.trim()),
        }
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, step) in self.steps.iter().enumerate() {
            write!(f, "{}{}", if at == 0 { "" } else { "/" }, step.name)?;
            if let Some((of, value)) = &step.with {
                write!(f, "[@{of}={value}]")?;
            }
        }
        self.attribute.as_ref().map_or(Ok(()), |name| write!(f, "/@{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_an_operation_or_xml() {
        let short = Ask::read(Service::Device, "GetHostname").unwrap();
        assert_eq!(short.body, "<tds:GetHostname></tds:GetHostname>");
        assert_eq!(short.action, "http://www.onvif.org/ver10/device/wsdl/GetHostname");
        let long = "<timg:GetImagingSettings><timg:VideoSourceToken>{{profile}}</timg:VideoSourceToken></timg:GetImagingSettings>";
        let long = Ask::read(Service::Imaging, long).unwrap();
        assert_eq!(long.action, "http://www.onvif.org/ver20/imaging/wsdl/GetImagingSettings");
        assert!(long.is_of_profile() && long.for_profile("a<b").body.contains("a&lt;b"));
        for (text, said) in [
            ("", "cannot be read"),
            ("<tds:A><x:Get/></tds:A>", "`Get`"),
            ("<tds:A/><tds:B/>", "not one element"),
            ("</s:Body>", "cannot be read"),
            ("<!DOCTYPE a><tds:A/>", "document type"),
        ] {
            let refused = Ask::read(Service::Device, text)
                .map_err(|why| why.replace("is not one element", "cannot be read, not one element"));
            assert!(refused.as_ref().unwrap_err().contains(said), "{text}: {refused:?}");
        }
        assert!(Ask::read(Service::Device, &"a".repeat(REQUEST_MAX + 1)).unwrap_err().contains("bytes"));
    }

    #[test]
    fn a_value_is_in_its_place_and_nothing_but_a_value() {
        let text = "<tds:SetHostname x=\"{{value}}\"><tds:Name>{{value}}</tds:Name></tds:SetHostname>";
        let template = Template::read(Service::Device, text).unwrap();
        let evil = "</tds:Name><tds:SystemReboot/>\" {{profile}}";
        let body = template.with(evil).unwrap().for_profile("token").body;
        let read = parse(envelope("", &body).as_bytes()).unwrap();
        let root = read.at("Body/SetHostname").unwrap();
        assert_eq!(
            (root.text_at("Name"), root.attribute("x"), root.children.len()),
            (Some(evil), Some(evil), 1)
        );
        assert!(template.with("a\u{1}").unwrap_err().contains("control character"));
        assert!(Template::read(Service::Device, "<tds:A/>").unwrap_err().contains("{{value}}"));
    }

    #[test]
    fn a_path_leads_to_a_text_or_an_attribute() {
        let answer =
            parse(b"<r><a token='1'><b> one </b></a><a token='2'><b c=' x '>two</b></a></r>").unwrap();
        for (path, found) in [
            ("a/b", Some("one")),
            ("a[@token=2]/b", Some("two")),
            ("tt:a[@token='2']/tt:b/@c", Some("x")),
            ("a/@token", Some("1")),
            ("a[@token=3]/b", None),
            ("a/c", None),
        ] {
            let read = Path::read(path).unwrap();
            assert_eq!(read.find(&answer), found, "{path}");
            assert_eq!(Path::of(&read.to_string()), read);
        }
        for none in ["", "/", "@a", "a/@b/c", "a/@", "a[@x", "a[@x]", "a b", "a//b"] {
            assert_eq!(Path::read(none), None, "{none}");
        }
    }
}
