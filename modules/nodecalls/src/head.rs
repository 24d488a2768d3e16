//! Heads of HTTP as heads of a stream, and back. Pure.

use contract::stream::{
    BEARER_PROTOCOL, REQUEST_HEADERS, RESPONSE_HEADERS, StreamHeadError, StreamRequest, StreamResponse,
    USER_MAX, passes,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

/// Headers that are about the connection: they pass when it is upgraded, and are this connection's own business else.
const HOP_BY_HOP: [&str; 2] = ["connection", "upgrade"];

/// Headers of an answer that the caller's client obeys: a captured node would lead it elsewhere, or make it wait.
const OBEYED: [&str; 2] = ["location", "retry-after"];

/// Whether a request asks for an upgraded connection.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    let tokens = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let mut tokens = tokens.flat_map(|value| value.split(','));
    headers.contains_key(header::UPGRADE) && tokens.any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

/// What the node is asked.
///
/// # Errors
/// When it is more than a head holds.
pub(crate) fn request(
    method: &Method,
    headers: &HeaderMap,
    target: String,
    user: &str,
) -> Result<StreamRequest, StreamHeadError> {
    let upgrades = is_upgrade(headers);
    let mut passed = Vec::new();
    for (name, value) in headers {
        let (name, Ok(value)) = (name.as_str(), value.to_str()) else { continue };
        let value = if name == "sec-websocket-protocol" { without_bearer(value) } else { value.to_owned() };
        if passes(REQUEST_HEADERS, name, &value) && (upgrades || !HOP_BY_HOP.contains(&name)) {
            passed.push((name.to_owned(), value));
        }
    }
    let user = user[..user.floor_char_boundary(USER_MAX)].to_owned();
    let request = StreamRequest { method: method.as_str().to_owned(), target, headers: passed, user };
    request.check()?;
    Ok(request)
}

/// The protocols that are none but a browser's token.
fn without_bearer(value: &str) -> String {
    let protocols = value.split(',').map(str::trim).filter(|one| !one.starts_with(BEARER_PROTOCOL));
    protocols.collect::<Vec<_>>().join(", ")
}

/// Status and headers of the answer. Where the caller is to go next is not the node's to say, nor how long he is to wait.
pub(crate) fn response(response: &StreamResponse) -> Option<(StatusCode, HeaderMap)> {
    let status = StatusCode::from_u16(response.status).ok()?;
    let upgraded = status == StatusCode::SWITCHING_PROTOCOLS;
    let mut headers = HeaderMap::new();
    for (name, value) in &response.headers {
        let obeyed = OBEYED.contains(&name.as_str());
        if !obeyed
            && passes(RESPONSE_HEADERS, name, value)
            && (upgraded || !HOP_BY_HOP.contains(&name.as_str()))
        {
            headers.append(HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?);
        }
    }
    Some((status, headers))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        all.iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn asked(all: &[(&'static str, &'static str)]) -> Vec<(String, String)> {
        request(&Method::GET, &headers(all), "/pods".to_owned(), "u").unwrap().headers
    }

    #[test]
    fn no_credential_reaches_a_node() {
        let passed = asked(&[
            ("authorization", "Bearer secret"),
            ("cookie", "secret"),
            ("x-remote-user", "secret"),
            ("proxy-authorization", "secret"),
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-protocol", "base64url.bearer.authorization.k8s.io.secret, v4.channel.k8s.io"),
        ]);
        assert!(!format!("{passed:?}").contains("secret"), "{passed:?}");
        assert!(passed.contains(&("sec-websocket-protocol".to_owned(), "v4.channel.k8s.io".to_owned())));
    }

    #[test]
    fn an_upgrade_needs_both_of_its_headers() {
        let upgrades = |all: &[(&'static str, &'static str)]| is_upgrade(&headers(all));
        assert!(upgrades(&[("connection", "keep-alive, upgrade"), ("upgrade", "SPDY/3.1")]));
        assert!(!upgrades(&[("connection", "keep-alive"), ("upgrade", "SPDY/3.1")]));
        assert!(!upgrades(&[("connection", "upgrade")]));
        assert_eq!(asked(&[("connection", "keep-alive"), ("upgrade", "h2c")]), []);
        assert_eq!(asked(&[("connection", "upgrade"), ("upgrade", "SPDY/3.1")]).len(), 2);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_a_long_name_is_cut() {
        let of = |target: String, user: &str| request(&Method::GET, &HeaderMap::new(), target, user);
        assert_eq!(of("/".repeat(8193), "u"), Err(StreamHeadError::Target));
        assert_eq!(of("/a".to_owned(), &"é".repeat(1000)).unwrap().user.len(), 1024);
        let mut many = HeaderMap::new();
        for _ in 0..65 {
            many.append("accept", HeaderValue::from_static("*/*"));
        }
        assert_eq!(request(&Method::GET, &many, "/a".to_owned(), "u"), Err(StreamHeadError::Headers));
    }

    #[test]
    fn of_a_nodes_headers_those_that_are_known_pass() {
        let of = |status, headers: &[(&str, &str)]| {
            let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            response(&StreamResponse { status, headers: headers.iter().map(owned).collect() })
        };
        let (status, headers) = of(
            200,
            &[
                ("content-type", "a"),
                ("connection", "close"),
                ("set-cookie", "x"),
                ("location", "http://a"),
                ("retry-after", "9"),
            ],
        )
        .unwrap();
        assert_eq!(
            (status, headers.len(), &headers["content-type"]),
            (StatusCode::OK, 1, &HeaderValue::from_static("a"))
        );
        let (_, headers) = of(101, &[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")]).unwrap();
        assert_eq!(headers.len(), 2);
    }
}
