//! HTTPS in front of the rules: TLS, credentials, permissions, bodies.
//!
//! Nothing of a body is read before its sender is known and allowed. What a client makes the server hold is bounded: by
//! [`Places`] its connections, by [`Quota`] the bytes of bodies and of answers that it does not take, by deadlines the
//! time that it may be silent or not read.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Request, Response};
use http_body::{Body as _, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use kubeapi::{Api, ApiError, Attributes, BODY_MAX, Body, User};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio_rustls::TlsAcceptor;

use crate::access::AccessControl as _;
use crate::authority::Gate;
use crate::impersonate::{self, Refused};
use crate::places::{Entry, Places};
use crate::quota::{Held, Quota};
use crate::rbac;
use crate::stall::Stall;
use crate::store::SqliteStore;

/// 10 s for a TLS handshake and for the head of a request.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// 60 s for the body of a request, with the wait for its room.
const BODY_WITHIN: Duration = Duration::from_secs(60);
/// 30 s for whatever a client takes of what is written to it.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);
/// 64 KiB: the longest head of a request.
const HEAD_MAX: usize = 64 << 10;
/// 250 ms before a credential is refused, so that nobody tries many.
const REFUSED_AFTER: Duration = Duration::from_millis(250);
/// 6 MiB of bodies that a user sends at a time, and 24 MiB of all: two and eight of the longest.
const BODIES: (usize, usize) = (2 * BODY_MAX, 8 * BODY_MAX);
/// 64 MiB of long answers that a user has not taken yet, and 192 MiB of all. A list counts what it looks at from before
/// it begins: whoever lists more than his share does so alone. `system:masters` have as much again for themselves.
const ANSWERS: (usize, usize) = (64 << 20, 192 << 20);
/// 64 KiB: longer answers are counted until they are taken, and are sent in pieces of it.
const PIECE: usize = 64 << 10;

/// What a user hears whose answers are too many.
const UNTAKEN: &str =
    "earlier answers are not ready or have not been taken yet: read them, or list in pages (limit)";

/// What each connection needs.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) api: Api<SqliteStore>,
    pub(crate) gate: Arc<Gate>,
    limits: Arc<Limits>,
}

struct Limits {
    places: Mutex<Places>,
    /// Of `system:masters`, whom nobody else keeps waiting.
    masters: Shares,
    others: Shares,
}

struct Shares {
    bodies: Quota,
    answers: Quota,
}

impl Shares {
    fn new() -> Self {
        Shares { bodies: Quota::new(BODIES.0, BODIES.1), answers: Quota::new(ANSWERS.0, ANSWERS.1) }
    }
}

impl Limits {
    fn of(&self, payer: &User) -> &Shares {
        if payer.is_master() { &self.masters } else { &self.others }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place, until it ends.
struct Seat {
    limits: Arc<Limits>,
    id: u64,
    /// Who showed the first credential.
    user: Mutex<Option<String>>,
}

impl Seat {
    /// Whether the connection may be this user's.
    fn is_of(&self, user: &User) -> bool {
        let mut known = self.user.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_some() {
            return true;
        }
        let taken = self.limits.places().recognize(self.id, &user.name, user.is_master());
        if taken {
            *known = Some(user.name.clone());
        }
        taken
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let user = self.user.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        self.limits.places().leave(self.id, user.as_deref());
    }
}

/// Accepts until `stop` says so.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    desk: Desk,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most often: others have to end first.
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let leave = Arc::new(Notify::new());
        let seat = tokio::select! {
            seat = desk.seat(peer.ip(), &leave) => seat,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let (tls, desk, mut stop) = (tls.clone(), desk.clone(), stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = connection(stream, tls, desk, seat) => {}
                () = leave.notified() => tracing::debug!(%peer, "stranger made room"),
                _ = stop.wait_for(|stop| *stop) => {}
            }
        });
    }
}

async fn connection(stream: TcpStream, tls: TlsAcceptor, desk: Desk, seat: Seat) {
    // Watches send small lines that should not wait for each other.
    let _ = stream.set_nodelay(true);
    let stream = Stall::new(stream, TAKEN_WITHIN);
    let stream = match tokio::time::timeout(HEAD_WITHIN, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake took too long"),
    };
    let seat = Arc::new(seat);
    let service = service_fn(move |request| {
        let (desk, seat) = (desk.clone(), Arc::clone(&seat));
        async move { Ok::<_, Infallible>(desk.answer(request, &seat).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended");
    }
}

pub(crate) type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

impl Desk {
    pub(crate) fn new(api: Api<SqliteStore>, gate: Arc<Gate>) -> Self {
        let limits = Limits { places: Mutex::default(), masters: Shares::new(), others: Shares::new() };
        Desk { api, gate, limits: Arc::new(limits) }
    }

    /// Waits for a place. Who is accepted and waits here keeps the next one waiting, in the listener's queue.
    async fn seat(&self, address: IpAddr, leave: &Arc<Notify>) -> Seat {
        loop {
            let entry = self.limits.places().enter(address, self.gate.clock().now(), leave);
            match entry {
                Entry::In(id) => {
                    return Seat { limits: Arc::clone(&self.limits), id, user: Mutex::default() };
                }
                Entry::Wait(pause) => tokio::time::sleep(pause).await,
            }
        }
    }

    async fn answer(&self, request: Request<Incoming>, seat: &Seat) -> Reply {
        let (parts, body) = request.into_parts();
        let open = matches!(parts.uri.path(), "/healthz" | "/livez" | "/readyz" | "/version");
        let header = parts.headers.get(AUTHORIZATION);
        if header.is_none() && open {
            // Whatever a stranger sends as a body is not read.
            let answer = self.api.handle(Request::from_parts(parts, Bytes::new()), &nobody()).await;
            return closing(reply(answer));
        }
        let credential = header.and_then(|value| value.to_str().ok()).and_then(|value| value.split_once(' '));
        let token = match credential {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim().to_owned(),
            _ => String::new(),
        };
        let user = self.gate.authenticate(&token).await;
        let Some(user) = user else {
            tokio::time::sleep(REFUSED_AFTER).await;
            let mut reply = closing(reply(ApiError::unauthorized().to_response()));
            reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return reply;
        };
        if !seat.is_of(&user) {
            return closing(busy("the user has too many connections"));
        }
        // Whose share it is: not whom he acts as.
        let payer = user.clone();
        let user = match impersonate::acting(&self.gate, &parts.headers, &user).await {
            Ok(other) => other.unwrap_or(user),
            Err(Refused::Missing(right)) => {
                return closing(reply(ApiError::forbidden(rbac::refusal(&user, &right)).to_response()));
            }
            Err(Refused::Headers(what)) => {
                return closing(reply(ApiError::bad_request(format!("impersonation: {what}")).to_response()));
            }
        };
        let wanted = Attributes::of(&parts);
        if !open && !self.gate.authorize(&user, &wanted).await {
            return reply(ApiError::forbidden(rbac::refusal(&user, &wanted)).to_response());
        }
        let (body, _room) = match self.body(body, &payer).await {
            Ok(body) => body,
            Err(refusal) => return closing(refusal),
        };
        // Before anything is read or built for it.
        let weight = self.api.reader().weight(&wanted, parts.uri.query());
        let held =
            match (weight > PIECE).then(|| self.limits.of(&payer).answers.try_hold(&payer.name, weight)) {
                Some(None) => return closing(busy(UNTAKEN)),
                Some(held) => held,
                None => None,
            };
        let answer = self.api.handle(Request::from_parts(parts, body), &user).await;
        match answer.into_parts() {
            (parts, Body::Stream(lines)) => {
                let ends = Arc::clone(&self.gate).withdrawn(token, user, wanted);
                reply(Response::from_parts(parts, Body::Stream(lines.take_until(ends).boxed())))
            }
            (parts, body) => self.counted(Response::from_parts(parts, body), &payer, held),
        }
    }

    /// The whole body, and its room, which is held until the answer is there.
    async fn body(&self, body: Incoming, payer: &User) -> Result<(Bytes, Option<Held>), Reply> {
        let declared = body.size_hint().upper().and_then(|bytes| usize::try_from(bytes).ok());
        if declared == Some(0) {
            return Ok((Bytes::new(), None));
        }
        let bytes = declared.map_or(BODY_MAX, |bytes| bytes.min(BODY_MAX));
        let read = async {
            let room = self.limits.of(payer).bodies.hold(&payer.name, bytes).await;
            (room, Limited::new(body, BODY_MAX).collect().await)
        };
        match tokio::time::timeout(BODY_WITHIN, read).await {
            Ok((room, Ok(body))) => Ok((body.to_bytes(), room)),
            // One byte more than is taken, so that the rules refuse it in their own words.
            Ok((room, Err(error))) if error.is::<LengthLimitError>() => {
                Ok((Bytes::from(vec![0; BODY_MAX + 1]), room))
            }
            // Half a body must not be taken for a whole one: a delete without its preconditions, say.
            Ok((_, Err(_))) | Err(_) => {
                Err(reply(ApiError::bad_request("the request's body did not arrive").to_response()))
            }
        }
    }

    /// A long answer counts as the user's until it is taken. `held` is what a list has already for what it looked at.
    fn counted(&self, answer: Response<Body>, payer: &User, held: Option<Held>) -> Reply {
        let length = match answer.body() {
            Body::Whole(bytes) if bytes.len() > PIECE => bytes.len(),
            Body::Whole(_) | Body::Stream(_) => return reply(answer),
        };
        let held = match held {
            Some(mut held) => {
                held.keep(length);
                Some(held)
            }
            None => self.limits.of(payer).answers.try_hold(&payer.name, length),
        };
        let Some(room) = held else { return closing(busy(UNTAKEN)) };
        let (mut parts, body) = answer.into_parts();
        let Body::Whole(bytes) = body else { return reply(Response::from_parts(parts, body)) };
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        let pieces = futures::stream::unfold((bytes, room), |(mut rest, room)| async move {
            if rest.is_empty() {
                return None;
            }
            let piece = rest.split_to(rest.len().min(PIECE));
            // A copy: the last piece must not keep the whole in memory after it has stopped to count.
            Some((Ok(Frame::data(Bytes::copy_from_slice(&piece))), (rest, room)))
        });
        Response::from_parts(parts, UnsyncBoxBody::new(StreamBody::new(pieces)))
    }
}

fn nobody() -> User {
    let groups = vec!["system:unauthenticated".to_owned()];
    User { name: "system:anonymous".to_owned(), groups, uid: String::new() }
}

/// 429: it works again when something else has ended.
fn busy(what: &str) -> Reply {
    let mut reply = reply(ApiError::too_many_requests(what, 1).to_response());
    reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    reply
}

/// The connection ends with this answer: what else was sent on it is not read.
fn closing(mut reply: Reply) -> Reply {
    reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    reply
}

pub(crate) fn reply(response: Response<Body>) -> Reply {
    response.map(|body| match body {
        Body::Whole(bytes) => UnsyncBoxBody::new(Full::new(bytes)),
        Body::Stream(lines) => UnsyncBoxBody::new(StreamBody::new(lines.map(|line| Ok(Frame::data(line))))),
    })
}
