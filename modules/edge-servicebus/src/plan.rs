//! What applications ask for and are answered, in KubeEdge's form. Pure.

use bytes::Bytes;
use contract::rule_call::{PAYLOAD_MAX, RuleAnswer, RuleCall};
use serde::Deserialize;
use serde_json::json;

/// What an application sends: of `payload` nothing is looked at.
#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    method: String,
    #[serde(default, rename = "targetURL")]
    target_url: String,
}

/// The call that a body asks for. The rule's target gets the body as it came, `method`, `targetURL` and `payload` included (KubeEdge).
/// `is_allowed` says whether a rule of this node has the URL.
///
/// # Errors
/// What the application is answered.
pub fn call(body: Bytes, is_allowed: impl Fn(&str) -> bool) -> Result<RuleCall, RuleAnswer> {
    // A list would be read as the fields in their order.
    let is_object = body.trim_ascii_start().starts_with(b"{");
    let asked = is_object.then(|| serde_json::from_slice(&body).ok()).flatten();
    let asked: Asked = asked.ok_or_else(|| RuleAnswer::failed(400, "invalid params"))?;
    let Asked { method, target_url } = asked;
    if !is_allowed(&target_url) {
        let shown: String = target_url.chars().take(256).flat_map(char::escape_default).collect();
        let words = format!("url {shown} is not allowed and please make a rule for this url in the cloud");
        return Err(RuleAnswer::failed(400, words));
    }
    let method = if method.is_empty() { "POST".to_owned() } else { method };
    let call = RuleCall { method, target_url, payload: body };
    call.check().map_err(|error| RuleAnswer::failed(400, error.to_string()))?;
    Ok(call)
}

/// What a body that was not read is answered.
pub fn unread(is_too_long: bool) -> RuleAnswer {
    match is_too_long {
        true => RuleAnswer::failed(
            400,
            format!("can't read data from body of the http's request: it has more than {PAYLOAD_MAX} bytes"),
        ),
        false => RuleAnswer::failed(400, "can't read data from body of the http's request"),
    }
}

/// KubeEdge's words for a target that has answered.
const RECEIVED: &str = "receive response from cloud successfully";

/// The answer to an application: `{"code","msg","body"}`, where what the target said is text.
pub fn answer(answer: &RuleAnswer) -> Vec<u8> {
    let RuleAnswer { code, message, body } = answer;
    let message = if message.is_empty() && *code == 200 { RECEIVED } else { message };
    let body = String::from_utf8_lossy(body);
    json!({"code": code, "msg": message, "body": body}).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn asked(text: &str) -> Result<RuleCall, RuleAnswer> {
        call(Bytes::copy_from_slice(text.as_bytes()), |url| url == "http://a/b")
    }

    #[test]
    fn the_target_gets_the_body_as_it_came() {
        let text = r#"{"method": "GET", "targetURL": "http://a/b", "payload": {"x": 1}}"#;
        let call = asked(text).unwrap();
        assert_eq!((call.method.as_str(), &call.payload[..]), ("GET", text.as_bytes()));
        assert_eq!(asked(r#"{"targetURL": "http://a/b"}"#).unwrap().method, "POST");
    }

    #[test]
    fn what_no_rule_names_and_what_is_no_call_is_refused_in_kubeedges_words() {
        for text in ["", "null", "[]", "{", r#"{"targetURL": 1}"#] {
            let refused = asked(text).unwrap_err();
            assert_eq!((refused.code, refused.message.as_str()), (400, "invalid params"), "{text}");
        }
        for text in ["{}", r#"{"targetURL": "http://c"}"#] {
            assert!(
                asked(text).unwrap_err().message.contains("is not allowed and please make a rule"),
                "{text}"
            );
        }
        let method = asked(r#"{"method": "a b", "targetURL": "http://a/b"}"#).unwrap_err();
        assert!(method.message.contains("`method`"));
    }

    #[test]
    fn an_answer_has_code_msg_and_body() {
        let read = |given: &RuleAnswer| serde_json::from_slice::<Value>(&answer(given)).unwrap();
        let good = RuleAnswer { code: 200, message: String::new(), body: Bytes::from_static(b"{\"a\":1}") };
        assert_eq!(read(&good), json!({"code": 200, "msg": RECEIVED, "body": "{\"a\":1}"}));
        let bad = RuleAnswer::failed(503, "away");
        assert_eq!(read(&bad), json!({"code": 503, "msg": "away", "body": ""}));
        let bytes = RuleAnswer { code: 200, message: String::new(), body: Bytes::from_static(b"\xff") };
        assert_eq!(read(&bytes)["body"], "\u{fffd}");
    }
}
