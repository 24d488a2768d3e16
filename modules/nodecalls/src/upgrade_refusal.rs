//! How an upgrade is refused.

use http::{HeaderValue, header};
use http_body_util::BodyExt as _;
use https::{Answer, body};

/// An answer that refuses an upgrade, so that client-go can read it ([`apimachinery::upgrade_refused`]).
pub async fn upgrade_refusal(answer: Answer) -> Answer {
    let (mut parts, said) = answer.into_parts();
    // A sentence, which is there already.
    let said = said.collect().await.map(|said| said.to_bytes()).unwrap_or_default();
    let (content_type, said) =
        apimachinery::upgrade_refused(parts.status.as_u16(), &String::from_utf8_lossy(&said));
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    Answer::from_parts(parts, body::whole(said))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use http::StatusCode;

    #[test]
    fn a_sentence_with_a_colon_is_a_message() {
        let mut answer = body::sentence(StatusCode::TOO_MANY_REQUESTS, "node `a` is full: wait\n");
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        let answer = upgrade_refusal(answer).now_or_never().unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["retry-after"]),
            (429, &"1".parse().unwrap())
        );
        assert_eq!(answer.headers()["content-type"], "application/json");
        let said = answer.into_body().collect().now_or_never().unwrap().unwrap().to_bytes();
        let said: serde_json::Value = serde_json::from_slice(&said).unwrap();
        assert_eq!(said["message"], "node `a` is full: wait");
        assert_eq!(
            (&said["kind"], &said["reason"], &said["code"]),
            (&"Status".into(), &"TooManyRequests".into(), &429.into())
        );
    }

    #[test]
    fn a_plain_sentence_is_a_kubelets() {
        let answer = body::sentence(StatusCode::INTERNAL_SERVER_ERROR, "container not found (\"c\")\n");
        let answer = upgrade_refusal(answer).now_or_never().unwrap();
        assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
        let said = answer.into_body().collect().now_or_never().unwrap().unwrap().to_bytes();
        assert_eq!(said, "container not found (\"c\")");
    }
}
