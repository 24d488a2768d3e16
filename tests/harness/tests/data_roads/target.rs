//! An HTTP endpoint that rules lead to, and that answers as a test has it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use beehive::Env;
use http::{Request, Response, StatusCode};
use https::{Answer, Handler, Http1, Limits, Peer, Port, Server, body};
use hyper::body::Incoming;

const LONG: Duration = Duration::from_secs(20);

/// What has come: path and query, headers, and body.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: String,
    /// What it was answered.
    pub(crate) status: u16,
}

#[derive(Default)]
struct State {
    arrived: Vec<Arrived>,
    status: u16,
    hangs: bool,
}

/// See the module.
pub(crate) struct Target {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
    _server: Server,
}

struct Pages {
    state: Arc<Mutex<State>>,
    env_clock: Arc<dyn beehive::Clock>,
}

impl Handler for Pages {
    async fn handle(&self, request: Request<Incoming>, _: &Peer) -> Answer {
        let (parts, mut sent) = request.into_parts();
        let body = body::read(&mut sent, 16 << 20, LONG, &*self.env_clock).await.unwrap();
        let (status, hangs) = {
            let mut state = self.state.lock().unwrap();
            let status = if state.status == 0 { 200 } else { state.status };
            state.arrived.push(Arrived {
                method: parts.method.to_string(),
                path: parts.uri.path_and_query().unwrap().to_string(),
                headers: parts.headers,
                body: String::from_utf8_lossy(&body).into_owned(),
                status,
            });
            (status, state.hangs)
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        let mut answer = Response::new(body::whole(format!("answer to {} bytes", body.len())));
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        answer.headers_mut().insert("x-of-target", "yes".parse().unwrap());
        answer.headers_mut().insert("connection", "x-hop".parse().unwrap());
        answer.headers_mut().insert("x-hop", "of this connection".parse().unwrap());
        answer
    }
}

impl Target {
    pub(crate) fn start(env: &Env) -> Target {
        let port = Port::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let state = Arc::<Mutex<State>>::default();
        let pages = Pages { state: Arc::clone(&state), env_clock: env.clock() };
        let limits = Limits { credential_within: None, answer_within: None, ..Limits::default() };
        let server =
            Server::start("target", &port, None, limits, env.clock(), |_| {}, move || Http1::new(pages));
        Target { state, address: port.address(), _server: server.unwrap() }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What it answers from now on.
    pub(crate) fn answers(&self, status: u16) {
        self.state.lock().unwrap().status = status;
    }

    /// Whether it answers at all.
    pub(crate) fn hangs(&self, hangs: bool) {
        self.state.lock().unwrap().hangs = hangs;
    }

    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        self.state.lock().unwrap().arrived.clone()
    }

    /// The bodies that it has taken.
    pub(crate) fn taken(&self) -> Vec<String> {
        let arrived = self.arrived().into_iter().filter(|arrived| arrived.status == 200);
        arrived.map(|arrived| arrived.body).collect()
    }
}
