//! Answers browsers and scripts at the port, on the server's thread.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use beehive::{Address, Clock, Env, Metrics};
use contract::edgepage::{EdgePageMsg, PageForm};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use https::{Answer, Handler, Http1, Limits, Peer, Port, Server, body};
use hyper::body::Incoming;

use crate::plan::{self, COOKIE, Refused, RequestHead, Route};
use crate::sessions::{SESSION_LIVES, Secret, Session, Sessions};
use crate::{events, pages};

/// 128 connections that have shown nothing yet: as many may come while a person's browser is about to.
const STRANGERS: usize = 128;
/// 16 connections of browsers that are in: one has up to six.
const VIEWERS: usize = 16;
/// 5 s until a connection has shown its cookie: browsers open some ahead. The way is none, or a tunnel.
const COOKIE_WITHIN: Duration = Duration::from_secs(5);
/// 10 s for an answer, for its head, and for the browser to take anything of it.
const WITHIN: Duration = Duration::from_secs(10);
/// 6 s for the page to be made: those who are asked have 2 s.
const MADE_WITHIN: Duration = Duration::from_secs(6);
/// The page is asked for again after 10 s.
const RENEWED_EVERY: HeaderValue = HeaderValue::from_static("10");
/// Again after 5 s where there was none.
const AGAIN: HeaderValue = HeaderValue::from_static("5");

/// What the port's handler and the actor share.
pub(crate) type SharedSessions = Arc<Mutex<Sessions>>;

/// Takes the lock; a panic beside it leaves sessions that are whole.
pub(crate) fn lock(sessions: &SharedSessions) -> MutexGuard<'_, Sessions> {
    sessions.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The door.
pub(crate) struct Door {
    pub(crate) page: Address<EdgePageMsg>,
    pub(crate) sessions: SharedSessions,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
    /// Where secrets come from.
    pub(crate) random: Box<dyn Fn() -> [u8; 16] + Send + Sync>,
}

impl Door {
    /// Serves at the port.
    pub(crate) fn at_port(self, port: &Port, env: &Env) -> io::Result<Server> {
        let limits = Limits {
            strangers: STRANGERS,
            // All of them come from loopback.
            strangers_per_address: STRANGERS,
            users: VIEWERS,
            connections_per_user: VIEWERS,
            credential_within: Some(COOKIE_WITHIN),
            head_within: WITHIN,
            answer_within: Some(WITHIN),
            taken_within: WITHIN,
            ..Limits::default()
        };
        Server::start("page", port, None, limits, env.clock(), |_| {}, move || Http1::new(self))
    }

    fn enter(&self, ticket: &str) -> Answer {
        let fresh = || Secret::of((self.random)(), (self.random)());
        let session = Session { path: fresh(), cookie: fresh() };
        let (path, seconds) = (format!("/s/{}/", session.path.text()), SESSION_LIVES.as_secs());
        let cookie = format!(
            "{COOKIE}={}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Strict",
            session.cookie.text()
        );
        if !lock(&self.sessions).enter(ticket, session, self.clock.now()) {
            return self.denied();
        }
        events::entered(&self.metrics);
        // The page itself leads on: a browser that came from elsewhere would not show the cookie along a redirection.
        let mut answer = html(StatusCode::OK, pages::come_in());
        let onward = HeaderValue::from_str(&format!("0; url={path}"));
        if let (Ok(cookie), Ok(onward)) = (HeaderValue::from_str(&cookie), onward) {
            answer.headers_mut().insert(header::SET_COOKIE, cookie);
            answer.headers_mut().insert(header::REFRESH, onward);
        }
        pages::guarded(answer, false)
    }

    fn denied(&self) -> Answer {
        events::denied(&self.metrics);
        pages::guarded(html(StatusCode::UNAUTHORIZED, pages::how_to_come_in()), false)
    }

    fn refused(&self, refused: Refused) -> Answer {
        let (status, why) = match refused {
            Refused::Host => (StatusCode::FORBIDDEN, "this page is 127.0.0.1's: ask for it by that name"),
            Refused::Method => {
                (StatusCode::METHOD_NOT_ALLOWED, "this page is read, with GET, and nothing else")
            }
            Refused::OtherPage => {
                (StatusCode::FORBIDDEN, "another page asks for this one: open it by itself")
            }
        };
        events::refused(&self.metrics, why);
        let mut answer = html(status, pages::sentence("Not like this", why));
        if refused == Refused::Method {
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        pages::guarded(answer, false)
    }

    async fn page(&self, form: PageForm) -> Answer {
        let asked = self.page.ask(MADE_WITHIN, |reply| EdgePageMsg::View { form, reply }).await;
        let why = match asked {
            Ok(Ok(made)) => {
                let content_type = match form {
                    PageForm::Html => "text/html; charset=utf-8",
                    PageForm::Json => "application/json",
                };
                let mut answer = body::answer(StatusCode::OK, content_type, made);
                if form == PageForm::Html {
                    answer.headers_mut().insert(header::REFRESH, RENEWED_EVERY);
                }
                return answer;
            }
            Ok(Err(reason)) => reason.to_string(),
            Err(error) => format!("the page was not made: {error}"),
        };
        let sentence = pages::sentence("Not now", &format!("{why}. It is tried again in 5 s."));
        let mut answer = html(StatusCode::SERVICE_UNAVAILABLE, sentence);
        answer.headers_mut().insert(header::REFRESH, AGAIN);
        answer.headers_mut().insert(header::RETRY_AFTER, AGAIN);
        answer
    }
}

impl Handler for Door {
    async fn handle(&self, request: Request<Incoming>, peer: &Peer) -> Answer {
        let head = RequestHead {
            method: request.method().as_str(),
            path: request.uri().path(),
            authority: request.uri().authority().map(|authority| authority.as_str()),
            host: only(request.headers(), "host"),
            // Several say as little as one that nobody knows: what stands in the second may be true.
            fetch_site: request
                .headers()
                .contains_key("sec-fetch-site")
                .then(|| only(request.headers(), "sec-fetch-site").unwrap_or_default()),
        };
        let (path, form) = match plan::route(&head) {
            Err(refused) => return self.refused(refused),
            Ok(Route::Enter(ticket)) => return self.enter(ticket),
            Ok(Route::Elsewhere) => return self.denied(),
            Ok(Route::Page { path, form }) => (path, form),
        };
        let shown = request.headers().get_all(header::COOKIE);
        let shown: Vec<&str> =
            shown.iter().filter_map(|value| value.to_str().ok()).flat_map(plan::cookies).collect();
        let is_in = lock(&self.sessions).is_in(path, &shown, self.clock.now());
        if !is_in {
            return self.denied();
        }
        if peer.identify("viewer", false).is_err() {
            let text = "As many browsers look as may. It is tried again in 5 s.";
            let mut busy = html(StatusCode::SERVICE_UNAVAILABLE, pages::sentence("Not now", text));
            busy.headers_mut().insert(header::REFRESH, AGAIN);
            return pages::guarded(busy, false);
        }
        pages::guarded(self.page(form).await, true)
    }
}

fn html(status: StatusCode, text: String) -> Answer {
    body::answer(status, "text/html; charset=utf-8", text)
}

/// A header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    if values.next().is_some() { None } else { first.to_str().ok() }
}
