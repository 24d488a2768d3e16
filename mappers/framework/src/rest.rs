//! The mapper's REST interface, with KubeEdge's paths and answers.
//!
//! It is served where `common.http_port` says so. On loopback it reads and writes; beyond that it does nothing that
//! `common.http_allow` does not name, because whoever reaches the port is served.

mod browser;
mod places;
mod turns;

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use apimachinery::NamespacedName;
use beehive::{Address, AskError, Env};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value as Json, json};
use tokio::net::TcpListener;

use crate::device::{DeviceMsg, ReadAnswer};
use crate::message::MapperMsg;
use crate::panel::name_of;
use crate::rest::browser::Sender;
use crate::rest::places::Places;
use crate::rest::turns::Turns;

/// 10 s for the head of a request, also of the next one on a kept connection.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// 15 s: an exchange with a slow device, and the one before it.
const DEVICE_DEADLINE: Duration = Duration::from_secs(15);
/// 5 s: the mapper has a question in hand for far less.
const MAPPER_DEADLINE: Duration = Duration::from_secs(5);
/// 100 ms until the next try to take a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Echoed, as KubeEdge's mappers do.
const CORRELATION: HeaderName = HeaderName::from_static("x-correlation-id");

/// What may be done over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowed {
    pub(crate) read: bool,
    pub(crate) write: bool,
}

/// Where it is served, and for whom.
#[derive(Clone)]
pub(crate) struct Rest {
    listener: Rc<std::net::TcpListener>,
    allowed: Allowed,
    mapper: Address<MapperMsg>,
}

impl Rest {
    pub(crate) fn at(at: SocketAddr, allowed: Allowed, mapper: Address<MapperMsg>) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(at)?;
        listener.set_nonblocking(true)?;
        Ok(Rest { listener: Rc::new(listener), allowed, mapper })
    }

    /// For a server of it; a later one gets the same port.
    pub(crate) fn parts(&self) -> io::Result<(TcpListener, Allowed, Address<MapperMsg>)> {
        let listener = TcpListener::from_std(self.listener.try_clone()?)?;
        Ok((listener, self.allowed, self.mapper.clone()))
    }
}

/// Serves until its task ends.
pub(crate) async fn serve(listener: TcpListener, allowed: Allowed, mapper: Address<MapperMsg>, env: Env) {
    let (places, turns) = (Places::new(), Rc::new(Turns::new()));
    let mut connections = FuturesUnordered::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(()) = connections.next(), if !connections.is_empty() => continue,
        };
        let (stream, from): (_, SocketAddr) = match accepted {
            Ok(accepted) => accepted,
            // One that was gone before it was taken, or no file left for it: the next one may do.
            Err(error) => {
                tracing::debug!(%error, "a connection was not taken");
                env.sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(place) = places.enter(from.ip(), env.now()) else {
            turns::send_away(stream);
            continue;
        };
        let (mapper, turns, env) = (mapper.clone(), Rc::clone(&turns), env.clone());
        connections.push(async move {
            let (place, turns, env, has_asked) = (&place, &*turns, &env, &Cell::new(false));
            let service = service_fn(|request: Request<Incoming>| {
                let mapper = mapper.clone();
                async move {
                    has_asked.set(true);
                    // From now on, also while it waits: whoever has asked is answered.
                    let _kept = place.keep(env.now());
                    let correlation = request.headers().get(CORRELATION).cloned();
                    let outcome = match turns.take(env).await {
                        Some(_turn) => answer(&request, allowed, &mapper).await,
                        None => Err((StatusCode::SERVICE_UNAVAILABLE, turns::busy())),
                    };
                    Ok::<_, Infallible>(response(outcome, correlation, env.wall()))
                }
            });
            let mut served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_DEADLINE)
                .max_buf_size(16 << 10)
                .serve_connection(TokioIo::new(stream), service);
            let ended = tokio::select! {
                // Before anything else: what has no place any more begins nothing.
                biased;
                () = place.lost() => None,
                ended = &mut served => Some(ended),
            };
            match ended {
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    tracing::debug!(%from, %error, "a connection of the REST interface ended");
                }
                None => {
                    tracing::debug!(%from, "a connection gave way to a newer one");
                    if !has_asked.get() {
                        turns::send_away(served.into_parts().io.into_inner());
                    }
                }
            }
        });
    }
}

async fn answer(request: &Request<Incoming>, allowed: Allowed, mapper: &Address<MapperMsg>) -> Outcome {
    let sender = browser::sender(request.headers());
    let is_meant = browser::is_called_by_its_name(request.headers(), request.uri().authority());
    match (request.method(), request.uri().path().strip_prefix("/api/v1/")) {
        _ if !is_meant => {
            let sentence = "it is not called by a domain; write its IP address, or a name without a dot";
            Err((StatusCode::MISDIRECTED_REQUEST, sentence.to_owned()))
        }
        _ if let Err(sentence) = sender.check() => Err((StatusCode::FORBIDDEN, sentence)),
        (&Method::GET, Some(path)) => match decoded(path) {
            Some(parts) => {
                let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
                routed(&parts, allowed, sender, mapper).await
            }
            None => Err((StatusCode::BAD_REQUEST, "the path is not understood".to_owned())),
        },
        (_, Some(_)) => Err((StatusCode::METHOD_NOT_ALLOWED, "only GET is served".to_owned())),
        _ => Err((StatusCode::NOT_FOUND, "paths begin with /api/v1/".to_owned())),
    }
}

fn response(outcome: Outcome, correlation: Option<HeaderValue>, wall: SystemTime) -> Response<Full<Bytes>> {
    let (status, body, kind) = match outcome {
        Ok(body) => (StatusCode::OK, with_base(body, wall).to_string(), "application/json"),
        // KubeEdge answers faults as plain text.
        Err((status, sentence)) => (status, format!("{sentence}\n"), "text/plain; charset=utf-8"),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if let Some(correlation) = correlation {
        response.headers_mut().insert(CORRELATION, correlation);
    }
    response
}

type Outcome = Result<Json, (StatusCode, String)>;

async fn routed(parts: &[&str], allowed: Allowed, sender: Sender, mapper: &Address<MapperMsg>) -> Outcome {
    let may = |is_allowed: bool, what: &str| {
        let sentence =
            || format!("{what} over this interface is not allowed; common.http_allow says what is");
        if is_allowed { Ok(()) } else { Err((StatusCode::FORBIDDEN, sentence())) }
    };
    match parts {
        ["ping"] => Ok(json!({ "Message": "This is v1 API, the server is running normally." })),
        ["device", namespace, name, property] => {
            may(allowed.read, "reading")?;
            read(&name_of(namespace, name), property, mapper).await
        }
        ["devicemethod", namespace, name] => {
            may(allowed.read, "reading")?;
            methods(&name_of(namespace, name), mapper).await
        }
        ["devicemethod", namespace, name, method, property, data] => {
            may(allowed.write, "writing")?;
            sender.check_write().map_err(|sentence| (StatusCode::FORBIDDEN, sentence))?;
            write(&name_of(namespace, name), method, property, data, mapper).await
        }
        ["meta", "model", namespace, name] => {
            may(allowed.read, "reading")?;
            let (_, model) = device(&name_of(namespace, name), mapper).await?;
            Ok(model)
        }
        ["database", ..] => Err((StatusCode::NOT_IMPLEMENTED, "this mapper keeps no database".to_owned())),
        _ => Err((StatusCode::NOT_FOUND, "there is no such path".to_owned())),
    }
}

async fn read(name: &NamespacedName, property: &str, mapper: &Address<MapperMsg>) -> Outcome {
    let asked = property.to_owned();
    let ReadAnswer { value, kind, at } = ask(name, mapper, |reply| DeviceMsg::Read(asked, reply)).await?;
    Ok(json!({ "Data": {
        "DeviceName": name.name, "PropertyName": property, "Namespace": name.namespace,
        "Value": value, "Type": kind, "TimeStamp": at,
    }}))
}

async fn write(
    name: &NamespacedName,
    method: &str,
    property: &str,
    data: &str,
    mapper: &Address<MapperMsg>,
) -> Outcome {
    let (method, property, text) = (method.to_owned(), property.to_owned(), data.to_owned());
    ask(name, mapper, |reply| DeviceMsg::Write { method, property, text, reply }).await?;
    Ok(json!({ "Message": format!("Write data {data} to device {name} successfully.") }))
}

async fn methods(name: &NamespacedName, mapper: &Address<MapperMsg>) -> Outcome {
    let (methods, _) = device(name, mapper).await?;
    Ok(json!({ "Data": { "Methods": methods } }))
}

/// The methods of a device and its model.
async fn device(
    name: &NamespacedName,
    mapper: &Address<MapperMsg>,
) -> Result<(Json, Json), (StatusCode, String)> {
    let found = mapper.ask(MAPPER_DEADLINE, |reply| MapperMsg::DescribeDevice(name.clone(), reply)).await;
    found.map_err(unavailable)?.ok_or_else(|| absent(name))
}

/// Asks a device itself, and not the mapper, which has others to serve.
async fn ask<T: Send + 'static>(
    name: &NamespacedName,
    mapper: &Address<MapperMsg>,
    make: impl FnOnce(beehive::Reply<Result<T, String>>) -> DeviceMsg,
) -> Result<T, (StatusCode, String)> {
    let found = mapper.ask(MAPPER_DEADLINE, |reply| MapperMsg::FindDevice(name.clone(), reply)).await;
    let device = found.map_err(unavailable)?.ok_or_else(|| absent(name))?;
    let answer = device.ask(DEVICE_DEADLINE, make).await.map_err(unavailable)?;
    answer.map_err(|sentence| (StatusCode::INTERNAL_SERVER_ERROR, sentence))
}

fn unavailable(error: AskError) -> (StatusCode, String) {
    let status = match error {
        AskError::Deadline => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, format!("no answer now: {error}"))
}

fn absent(name: &NamespacedName) -> (StatusCode, String) {
    (StatusCode::NOT_FOUND, format!("no device {name}"))
}

fn with_base(mut body: Json, wall: SystemTime) -> Json {
    if let Some(body) = body.as_object_mut() {
        body.insert("apiVersion".to_owned(), json!("v1"));
        body.insert("statusCode".to_owned(), json!(200));
        body.insert("timeStamp".to_owned(), json!(rfc3339(wall)));
    }
    body
}

/// To the second.
fn rfc3339(wall: SystemTime) -> String {
    let at = jiff::Timestamp::try_from(wall).unwrap_or_default();
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The parts of a path, with what is written as `%41`.
fn decoded(path: &str) -> Option<Vec<String>> {
    path.split('/').map(part).collect()
}

fn part(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.bytes());
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_path_are_decoded() {
        let parts = |path| decoded(path).map(|parts| parts.join("|"));
        assert_eq!(parts("device/default/a%20b/%C3%BC").as_deref(), Some("device|default|a b|ü"));
        assert_eq!(parts("a%2Fb/c").as_deref(), Some("a/b|c"), "a slash in a name parts nothing");
        for wrong in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(parts(wrong), None, "{wrong}");
        }
    }
}
