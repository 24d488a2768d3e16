//! What is asked over HTTPS: credentials, permissions, bodies, and then the rules.
//!
//! Nothing of a body is read before its sender is known and allowed. What a client makes the server hold is bounded: by
//! the server's limits its connections and how long it may be silent or not read, by [`ByteQuota`] the bytes of bodies and of
//! answers that it does not take.

use std::sync::Arc;
use std::time::Duration;

use beehive::{Metrics, on_a_thread};
use bytes::Bytes;
use futures::StreamExt;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Request, Response};
use http_body::{Body as _, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, LengthLimitError, Limited, StreamBody};
use https::{Answer, Handler, Peer};
use hyper::body::Incoming;
use kubeapi::{Api, ApiError, Attributes, BODY_MAX, Body, User};

use crate::access::AccessControl as _;
use crate::answer::reply;
use crate::authenticator::Authenticator;
use crate::byte_quota::{ByteQuota, BytesPermit};
use crate::events;
use crate::impersonate::{self, ImpersonationError};
use crate::kubelets::{self, Kubelets, Wanted};
use crate::rbac;
use crate::store::SqliteStore;
use crate::turns::Turns;
use crate::untaken::UntakenLines;

/// 60 s for the body of a request, with the wait for its room.
const BODY_WITHIN: Duration = Duration::from_secs(60);
/// 250 ms before a credential is refused, so that nobody tries many.
const REFUSED_AFTER: Duration = Duration::from_millis(250);
/// 6 MiB of bodies that a user sends at a time, and 24 MiB of all: two and eight of the longest.
const BODIES: (usize, usize) = (2 * BODY_MAX, 8 * BODY_MAX);
/// 64 MiB of long answers that a user has not taken yet, and 192 MiB of all. A list counts what it looks at from before
/// it begins: whoever lists more than his share does so alone. `system:masters` have as much again for themselves.
const ANSWERS: (usize, usize) = (64 << 20, 192 << 20);
/// 64 KiB: longer answers are counted until they are taken, and are sent in pieces of it.
const PIECE: usize = 64 << 10;

/// 16 KiB of a body, or of the stored object that a request names: what is larger takes its turn on a thread beside the API's own.
const LARGE: usize = 16 << 10;

/// 10 s: a request that keeps the API's one thread for so long is named.
const KEPT_FOR: Duration = Duration::from_secs(10);
/// 256 characters of its path.
const PATH_SHOWN: usize = 256;

/// What a user hears whose answers are too many.
const UNTAKEN: &str =
    "earlier answers are not ready or have not been taken yet: read them, or list in pages (limit)";

/// Answers requests: authentication, authorization, then the rules.
#[derive(Clone)]
pub(crate) struct ApiHandler {
    api: Api<SqliteStore>,
    authenticator: Arc<Authenticator>,
    quotas: Arc<Quotas>,
    kubelets: Kubelets,
    metrics: Metrics,
}

struct Quotas {
    /// Of `system:masters`, whom nobody else keeps waiting.
    masters: UserQuotas,
    others: UserQuotas,
}

struct UserQuotas {
    bodies: ByteQuota,
    answers: Arc<ByteQuota>,
    untaken: Arc<UntakenLines>,
    turns: Turns,
}

impl UserQuotas {
    fn new() -> Self {
        let answers = Arc::new(ByteQuota::new(ANSWERS.0, ANSWERS.1));
        let untaken = UntakenLines::new(Arc::clone(&answers), PIECE);
        let bodies = ByteQuota::new(BODIES.0, BODIES.1);
        UserQuotas { bodies, answers, untaken, turns: Turns::new() }
    }
}

impl Quotas {
    fn of(&self, payer: &User) -> &UserQuotas {
        if payer.is_master() { &self.masters } else { &self.others }
    }
}

impl Handler for ApiHandler {
    async fn handle(&self, request: Request<Incoming>, peer: &Peer) -> Answer {
        let path: String = request.uri().path().chars().take(PATH_SHOWN).collect();
        let what = format!("{} {}", request.method(), path.escape_debug());
        let clock = self.authenticator.clock();
        let mut answer = std::pin::pin!(self.answer(request, peer));
        // Each look at a request has the thread to itself: one that keeps it keeps all others waiting.
        std::future::poll_fn(|cx| {
            let began = clock.now();
            let polled = answer.as_mut().poll(cx);
            let kept = clock.now().since(began);
            if kept >= KEPT_FOR {
                events::thread_kept(&self.metrics, &what, kept);
            }
            polled
        })
        .await
    }
}

impl ApiHandler {
    pub(crate) fn new(
        api: Api<SqliteStore>,
        authenticator: Arc<Authenticator>,
        kubelets: Kubelets,
        metrics: Metrics,
    ) -> Self {
        let quotas = Quotas { masters: UserQuotas::new(), others: UserQuotas::new() };
        ApiHandler { api, authenticator, quotas: Arc::new(quotas), kubelets, metrics }
    }

    async fn answer(&self, request: Request<Incoming>, peer: &Peer) -> Answer {
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
        let user = self.authenticator.authenticate(&token).await;
        let Some(user) = user else {
            self.authenticator.clock().sleep(REFUSED_AFTER).await;
            let mut reply = closing(reply(ApiError::unauthorized().to_response()));
            reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return reply;
        };
        if peer.identify(&user.name, user.is_master()).is_err() {
            return closing(busy("the user has too many connections"));
        }
        // Whose share it is: not whom he acts as.
        let payer = user.clone();
        let user = match impersonate::acting(&self.authenticator, &parts.headers, &user).await {
            Ok(other) => other.unwrap_or(user),
            Err(ImpersonationError::Missing(right)) => {
                return closing(reply(ApiError::forbidden(rbac::refusal(&user, &right)).to_response()));
            }
            Err(ImpersonationError::Headers(what)) => {
                return closing(reply(ApiError::bad_request(format!("impersonation: {what}")).to_response()));
            }
        };
        let mut wanted = Attributes::of(&parts);
        if let Some(of_node) = Wanted::of(&mut wanted) {
            for right in of_node.rights(&wanted) {
                if !self.authenticator.authorize(&user, &right).await {
                    return reply(ApiError::forbidden(rbac::refusal(&user, &right)).to_response());
                }
            }
            let (of, request) = ((of_node, &wanted), Request::from_parts(parts, body));
            return kubelets::answer((&self.api, &self.kubelets), of, &user, request, peer).await;
        }
        if !open && !self.authenticator.authorize(&user, &wanted).await {
            return reply(ApiError::forbidden(rbac::refusal(&user, &wanted)).to_response());
        }
        let (body, _room) = match self.body(body, &payer).await {
            Ok(body) => body,
            Err(refusal) => return closing(refusal),
        };
        // Before anything is read or built for it.
        let weight = self.api.reader().weight(&wanted, parts.uri.query());
        let held =
            match (weight > PIECE).then(|| self.quotas.of(&payer).answers.try_acquire(&payer.name, weight)) {
                Some(None) => return closing(busy(UNTAKEN)),
                Some(held) => held,
                None => None,
            };
        let is_large = body.len() > LARGE || self.api.reader().stored_bytes(&wanted).await > LARGE;
        let request = Request::from_parts(parts, body);
        let answer = if is_large {
            self.in_turn(request, &user, &payer).await
        } else {
            self.api.handle(request, &user).await
        };
        match answer.into_parts() {
            (parts, Body::Stream(lines)) => {
                let withdrawn = Arc::clone(&self.authenticator).withdrawn(token, user, wanted);
                let stopping = peer.stopping();
                let ends = async move {
                    tokio::select! {
                        () = withdrawn => {}
                        () = stopping => {}
                    }
                };
                let untaken =
                    self.quotas.of(&payer).untaken.lines(&payer.name, lines.take_until(ends).boxed());
                reply(Response::from_parts(parts, Body::Stream(untaken)))
            }
            (parts, body) => self.counted(Response::from_parts(parts, body), &payer, held),
        }
    }

    /// The answer to a request that is large, made beside the API's own thread when it is the payer's turn.
    async fn in_turn(&self, request: Request<Bytes>, user: &User, payer: &User) -> Response<Body> {
        let turn = self.quotas.of(payer).turns.next(&payer.name).await;
        let (api, user, runtime) = (self.api.clone(), user.clone(), tokio::runtime::Handle::current());
        let answer = on_a_thread(move || {
            // Until it is done, also for a client who has gone.
            let _turn = turn;
            runtime.block_on(api.handle(request, &user))
        });
        answer.await.unwrap_or_else(|fault| ApiError::internal(&fault).to_response())
    }

    /// The whole body, and its room, which is held until the answer is there.
    async fn body(&self, body: Incoming, payer: &User) -> Result<(Bytes, Option<BytesPermit>), Answer> {
        let declared = body.size_hint().upper().and_then(|bytes| usize::try_from(bytes).ok());
        if declared == Some(0) {
            return Ok((Bytes::new(), None));
        }
        let bytes = declared.map_or(BODY_MAX, |bytes| bytes.min(BODY_MAX));
        let read = async {
            let room = self.quotas.of(payer).bodies.acquire(&payer.name, bytes).await;
            (room, Limited::new(body, BODY_MAX).collect().await)
        };
        let late = self.authenticator.clock().sleep(BODY_WITHIN);
        let read = tokio::select! {
            read = read => Some(read),
            () = late => None,
        };
        match read {
            Some((room, Ok(body))) => Ok((body.to_bytes(), room)),
            // One byte more than is taken, so that the rules refuse it in their own words.
            Some((room, Err(error))) if error.is::<LengthLimitError>() => {
                Ok((Bytes::from(vec![0; BODY_MAX + 1]), room))
            }
            // Half a body must not be taken for a whole one: a delete without its preconditions, say.
            Some((_, Err(_))) | None => {
                Err(reply(ApiError::bad_request("the request's body did not arrive").to_response()))
            }
        }
    }

    /// A long answer counts as the user's until it is taken. `held` is what a list has already for what it looked at.
    fn counted(&self, answer: Response<Body>, payer: &User, held: Option<BytesPermit>) -> Answer {
        let length = match answer.body() {
            Body::Whole(bytes) if bytes.len() > PIECE => bytes.len(),
            Body::Whole(_) | Body::Stream(_) => return reply(answer),
        };
        let held = match held {
            Some(mut held) => {
                held.keep(length);
                Some(held)
            }
            None => self.quotas.of(payer).answers.try_acquire(&payer.name, length),
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
fn busy(what: &str) -> Answer {
    let mut reply = reply(ApiError::too_many_requests(what, 1).to_response());
    reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    reply
}

/// The connection ends with this answer: what else was sent on it is not read.
fn closing(mut reply: Answer) -> Answer {
    reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    reply
}
