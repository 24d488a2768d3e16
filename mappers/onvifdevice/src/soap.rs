//! SOAP 1.2: the envelope of a request, and what an answer says. Pure.

use crate::xml::{Element, parse};

/// What requests may be written with, by prefix: that of ONVIF's documents.
const NAMESPACES: [(&str, &str); 14] = [
    ("s", "http://www.w3.org/2003/05/soap-envelope"),
    ("wsa", "http://www.w3.org/2005/08/addressing"),
    ("wsnt", "http://docs.oasis-open.org/wsn/b-2"),
    ("tt", "http://www.onvif.org/ver10/schema"),
    ("tds", "http://www.onvif.org/ver10/device/wsdl"),
    ("trt", "http://www.onvif.org/ver10/media/wsdl"),
    ("tr2", "http://www.onvif.org/ver20/media/wsdl"),
    ("tptz", "http://www.onvif.org/ver20/ptz/wsdl"),
    ("timg", "http://www.onvif.org/ver20/imaging/wsdl"),
    ("tev", "http://www.onvif.org/ver10/events/wsdl"),
    ("tmd", "http://www.onvif.org/ver10/deviceIO/wsdl"),
    ("tan", "http://www.onvif.org/ver20/analytics/wsdl"),
    ("wsse", "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd"),
    ("wsu", "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd"),
];

/// The namespace of a prefix.
pub(crate) fn namespace(prefix: &str) -> &'static str {
    NAMESPACES.iter().find(|(of, _)| *of == prefix).map_or("", |(_, name)| name)
}

/// A request. Both parts are XML.
pub(crate) fn envelope(header: &str, body: &str) -> String {
    let declared: String =
        NAMESPACES.iter().map(|(prefix, name)| format!(" xmlns:{prefix}=\"{name}\"")).collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><s:Envelope{declared}><s:Header>{header}</s:Header><s:Body>{body}</s:Body></s:Envelope>"
    )
}

/// Why a camera does not do what it is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Its codes, from the general one to that which says most, without prefixes.
    pub(crate) codes: Vec<String>,
    /// What it says to people.
    pub(crate) reason: String,
}

impl Refusal {
    pub(crate) fn has(&self, code: &str) -> bool {
        self.codes.iter().any(|of| of == code)
    }

    /// It does not know who asks, or whoever asks may not.
    pub(crate) fn is_of_login(&self) -> bool {
        ["NotAuthorized", "FailedAuthentication", "InvalidSecurity", "InvalidSecurityToken"]
            .iter()
            .any(|code| self.has(code))
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let code = self.codes.last().map_or("a fault", String::as_str);
        write!(f, "{code}")?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, " ({})", self.reason) }
    }
}

/// What an answer is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    /// What was asked for.
    Said(Element),
    Refused(Refusal),
}

/// What stands in the body of an answer.
///
/// # Errors
/// A sentence, when it is no envelope with one thing in its body.
pub(crate) fn answer(document: &[u8]) -> Result<Answer, String> {
    let mut envelope = parse(document)?;
    if envelope.name != "Envelope" {
        return Err("it is no SOAP envelope".to_owned());
    }
    let body = envelope.children.iter_mut().find(|child| child.name == "Body");
    let said = body.and_then(|body| body.children.first_mut()).map(std::mem::take);
    let said = said.ok_or_else(|| "its SOAP body is empty".to_owned())?;
    Ok(if said.name == "Fault" { Answer::Refused(refusal(&said)) } else { Answer::Said(said) })
}

fn refusal(fault: &Element) -> Refusal {
    let mut codes = Vec::new();
    let mut at = fault.child("Code");
    while let Some(code) = at {
        codes.extend(code.text_at("Value").map(without_prefix));
        at = code.child("Subcode");
    }
    // SOAP 1.1, which some answer in.
    codes.extend(fault.text_at("faultcode").map(without_prefix));
    let reason =
        ["Reason/Text", "faultstring", "Detail/Text"].into_iter().find_map(|path| fault.text_at(path));
    Refusal { codes, reason: short(reason.unwrap_or_default()) }
}

fn without_prefix(name: &str) -> String {
    short(name.rsplit(':').next().unwrap_or(name))
}

/// 200 letters on one line, of what a camera says to people.
pub(crate) fn short(text: &str) -> String {
    // As it goes: of a text of half a MiB nothing more is made.
    let mut line = text.split_whitespace().flat_map(|word| std::iter::once(' ').chain(word.chars()));
    line.next();
    line.filter(|letter| !letter.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_declares_what_requests_are_written_with() {
        let document = envelope("", "<tds:GetHostname><tt:x/></tds:GetHostname>");
        let Ok(Answer::Said(said)) = answer(document.as_bytes()) else { panic!("{document}") };
        assert_eq!((&*said.namespace, said.name.as_str()), (namespace("tds"), "GetHostname"));
        assert_eq!(&*said.children[0].namespace, namespace("tt"));
    }

    #[test]
    fn a_fault_says_its_codes_and_its_reason_in_both_versions() {
        let refused = |fault: &str| match answer(envelope("", fault).as_bytes()) {
            Ok(Answer::Refused(refusal)) => refusal,
            other => panic!("{other:?}"),
        };
        let refusal = refused(
            "<s:Fault><s:Code><s:Value>s:Sender</s:Value><s:Subcode><s:Value>ter:NotAuthorized</s:Value></s:Subcode></s:Code>\
             <s:Reason><s:Text xml:lang=\"en\">Sender not\n  authorized</s:Text></s:Reason></s:Fault>",
        );
        assert_eq!(refusal.codes, ["Sender", "NotAuthorized"]);
        assert!(refusal.is_of_login());
        assert_eq!(refusal.to_string(), "NotAuthorized (Sender not authorized)");
        let old = "<s:Fault><faultcode>SOAP-ENV:Client</faultcode><faultstring>no such method</faultstring></s:Fault>";
        assert_eq!(refused(old).to_string(), "Client (no such method)");
        assert!(!refused(old).is_of_login());
        assert_eq!(refused("<s:Fault/>").to_string(), "a fault");
    }

    #[test]
    fn what_is_no_answer_is_said() {
        for (document, said) in [
            ("<html/>", "no SOAP envelope"),
            ("not at all", "no end"),
            ("<Envelope/>", "body is empty"),
            ("<Envelope><Body/></Envelope>", "body is empty"),
        ] {
            assert!(answer(document.as_bytes()).unwrap_err().contains(said), "{document}");
        }
    }
}
