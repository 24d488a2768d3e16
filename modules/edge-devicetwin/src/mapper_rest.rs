//! A mapper's REST interface, KubeEdge's: there a method of a device is called, a property at a time
//! (`GET /api/v1/devicemethod/<namespace>/<name>/<method>/<property>/<value>`).
//!
//! DMI has no call for methods, and says nothing of the port: it is the one of the node's settings, at loopback, and whoever listens
//! there must be of the mapper's user.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use beehive::Env;
use bytes::Bytes;
use contract::ids::DeviceName;
use contract::{CallOutcome, CallState};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::header::{CONNECTION, HOST};
use hyper::{Method, Request};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::net::TcpStream;

use crate::calls::outcome;
use crate::listeners;

/// 64 KiB of an answer.
const ANSWER_MAX: usize = 64 << 10;
/// 256 characters of a mapper's words.
const WORDS_MAX: usize = 256;
/// Echoed by KubeEdge's mappers: the call's id.
const CORRELATION: &str = "x-correlation-id";
/// What stands in a segment of a path as it is (RFC 3986, unreserved).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where a mapper's interface is, and whose it has to be.
#[derive(Debug, Clone)]
pub(crate) struct MapperRest {
    /// The mapper's name.
    pub(crate) mapper: String,
    /// At 127.0.0.1.
    pub(crate) port: u16,
    /// The user of the process that registered.
    pub(crate) uid: u32,
}

/// Why one property was not written.
#[derive(Debug, Clone, PartialEq, Eq)]
enum NotWritten {
    /// Nothing went to the mapper.
    NotReached(String),
    /// The mapper says that it is not.
    Refused(String),
    /// Nobody knows.
    Unknown(String),
}

/// One call: what is written, and for how long the mapper may be at it.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) device: DeviceName,
    pub(crate) id: String,
    pub(crate) method: String,
    pub(crate) writes: Vec<(String, String)>,
    pub(crate) within: Duration,
}

impl MapperRest {
    /// Has the mapper write one property after the other, and stops at the first that is not written.
    pub(crate) async fn call(&self, order: &Order, env: &Env) -> CallOutcome {
        let (began, mut written) = (env.now(), Vec::new());
        for (property, value) in &order.writes {
            let left = order.within.saturating_sub(env.now().since(began));
            let wrote = env.timeout(left, self.write(order, property, value, env)).await;
            let late =
                || format!("mapper `{}` gave no answer within {} ms", self.mapper, order.within.as_millis());
            match wrote.unwrap_or_else(|| Err(NotWritten::Unknown(late()))) {
                Ok(()) => written.push(format!("`{property}`")),
                Err(not) => return ended(not, property, &written),
            }
        }
        outcome(CallState::Done, 200, "")
    }

    async fn write(&self, order: &Order, property: &str, value: &str, env: &Env) -> Result<(), NotWritten> {
        let stream = self.connect(env).await.map_err(NotWritten::NotReached)?;
        let unknown = |error: httpclient::Error| {
            NotWritten::Unknown(format!("the connection to mapper `{}` broke off: {error}", self.mapper))
        };
        let (mut sender, connection) = httpclient::handshake(stream).await.map_err(unknown)?;
        let request = request(order, property, value, self.port).map_err(NotWritten::NotReached)?;
        let exchange = async {
            let answer = sender.send_request(request).await.map_err(unknown)?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
            if status.is_success() {
                return Ok(());
            }
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            Err(NotWritten::Refused(format!(
                "mapper `{}` says {}: {}",
                self.mapper,
                status.as_u16(),
                words(&body)
            )))
        };
        tokio::pin!(exchange);
        tokio::select! {
            answered = &mut exchange => answered,
            // It ends with the answer at the latest.
            _ = connection => exchange.await,
        }
    }

    /// A connection to the mapper's own user.
    async fn connect(&self, env: &Env) -> Result<TcpStream, String> {
        let MapperRest { mapper, port, uid } = self;
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
        // Before and after: nobody else has taken the port in between.
        let before = self.owners(env).await?;
        let stream = TcpStream::connect(at).await.map_err(|error| {
            format!(
                "mapper `{mapper}` serves no REST interface at {at} ({error}): methods are called there; set common.http_port of the mapper, and modules.deviceTwin.mapperPorts of edgecore.yaml if it is not {port}"
            )
        })?;
        let own = BTreeSet::from([*uid]);
        if before != own || self.owners(env).await? != own {
            return Err(format!(
                "at {at} listens another user than that of mapper `{mapper}`, which is {uid}: nothing was sent"
            ));
        }
        Ok(stream)
    }

    async fn owners(&self, env: &Env) -> Result<BTreeSet<u32>, String> {
        let port = self.port;
        let found = env.blocking(move || listeners::owners(port)).await.map_err(|fault| fault.reason)?;
        found.map_err(|error| format!("who listens at port {port} is not known: {error}"))
    }
}

fn request(order: &Order, property: &str, value: &str, port: u16) -> Result<Request<Empty<Bytes>>, String> {
    let Order { device, id, method, .. } = order;
    let segments = [&*device.namespace, &*device.name, method, property, value];
    let path: String = segments.iter().map(|text| format!("/{}", segment(text))).collect();
    Request::builder()
        .method(Method::GET)
        .uri(format!("/api/v1/devicemethod{path}"))
        .header(HOST, format!("127.0.0.1:{port}"))
        .header(CONNECTION, "close")
        .header(CORRELATION, id)
        .body(Empty::new())
        .map_err(|error| error.to_string())
}

/// A text as a segment of a path. Dots alone would be taken for a step in it.
fn segment(text: &str) -> String {
    match text {
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        text => utf8_percent_encode(text, SEGMENT).to_string(),
    }
}

/// The first line of a mapper's answer.
fn words(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("(nothing)");
    line.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect()
}

fn ended(not: NotWritten, property: &str, written: &[String]) -> CallOutcome {
    let before = match written {
        [] => String::new(),
        written => format!("; {} was written before", written.join(", ")),
    };
    match not {
        NotWritten::NotReached(reason) if written.is_empty() => outcome(CallState::Refused, 503, reason),
        NotWritten::NotReached(reason) => {
            outcome(CallState::Failed, 502, format!("`{property}` was not written: {reason}{before}"))
        }
        NotWritten::Refused(reason) => {
            outcome(CallState::Failed, 502, format!("`{property}` was not written: {reason}{before}"))
        }
        NotWritten::Unknown(reason) => outcome(
            CallState::Unknown,
            504,
            format!(
                "whether `{property}` was written is not known, and it is not repeated: {reason}{before}"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_stands_in_a_call_is_one_segment_of_the_path() {
        let order = Order {
            device: DeviceName::parse("default", "pump-1.a").unwrap(),
            id: "i".to_owned(),
            method: "Set Level/%".to_owned(),
            writes: Vec::new(),
            within: Duration::ZERO,
        };
        let path = |value: &str| request(&order, "a#b", value, 7777).unwrap().uri().to_string();
        assert_eq!(path("21.5"), "/api/v1/devicemethod/default/pump-1.a/Set%20Level%2F%25/a%23b/21.5");
        for (value, end) in [("..", "/%2E%2E"), ("a/b?c", "/a%2Fb%3Fc"), ("ü", "/%C3%BC"), ("-5", "/-5")] {
            assert!(path(value).ends_with(end), "{}", path(value));
        }
    }

    #[test]
    fn what_was_written_before_the_failure_is_said() {
        let (text, before) = (|| "why".to_owned(), ["`a`".to_owned()]);
        let code = |not, before: &[String]| {
            let CallOutcome { state, code, message } = ended(not, "b", before);
            assert_eq!(message.contains("`a` was written before"), !before.is_empty(), "{message}");
            (state, code)
        };
        assert_eq!(code(NotWritten::NotReached(text()), &[]), (CallState::Refused, 503));
        assert_eq!(code(NotWritten::NotReached(text()), &before), (CallState::Failed, 502));
        assert_eq!(code(NotWritten::Refused(text()), &before), (CallState::Failed, 502));
        assert_eq!(code(NotWritten::Unknown(text()), &before), (CallState::Unknown, 504));
        assert_eq!(words(b"\n device is\x1b[2J gone \nmore"), "device is[2J gone");
        assert_eq!(words(b""), "(nothing)");
    }
}
