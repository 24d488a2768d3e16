//! The admin endpoint before CloudCore has started: what it waits for.

use std::sync::{Arc, Mutex, PoisonError};

use beehive::Env;
use http::{Method, Request, StatusCode};
use https::{Answer, Handler, Http, Peer, Server, body};
use hyper::body::Incoming;

use crate::monitor::{LIMITS, MonitorError, MonitorPorts, PROBES, STOP_GRACE};

/// Answers at the ports of the admin endpoint until the actor takes them. Nothing is served while nothing is waited for.
pub(crate) struct StartPages {
    ports: MonitorPorts,
    said: Arc<Mutex<String>>,
    servers: Vec<Server>,
}

impl StartPages {
    /// Pages at these ports.
    pub(crate) fn new(ports: MonitorPorts) -> Self {
        StartPages { ports, said: Arc::default(), servers: Vec::new() }
    }

    /// From now on it is this that is waited for.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub(crate) fn say(&mut self, what: &str, env: &Env) -> Result<(), MonitorError> {
        what.clone_into(&mut self.said.lock().unwrap_or_else(PoisonError::into_inner));
        if !self.servers.is_empty() {
            return Ok(());
        }
        for (port, key, limits) in self.ports.each(LIMITS, PROBES) {
            let said = Arc::clone(&self.said);
            let pages = move || Http::new(Pages { said });
            let server = Server::start("start", port, None, limits, env.clock(), |_| (), pages);
            let failed = |source| MonitorError::of(port.address(), key, source);
            self.servers.push(server.map_err(failed)?);
        }
        Ok(())
    }

    /// Lets the ports go.
    pub(crate) async fn end(self) {
        futures::future::join_all(self.servers.iter().map(|server| server.stop(STOP_GRACE))).await;
    }
}

/// The pages, on a server's thread.
struct Pages {
    said: Arc<Mutex<String>>,
}

impl Handler for Pages {
    async fn handle(&self, request: Request<Incoming>, _: &Peer) -> Answer {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return body::sentence(StatusCode::METHOD_NOT_ALLOWED, "GET alone\n");
        }
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match request.uri().path() {
            // A new start would wait for the same.
            "/livez" => body::sentence(StatusCode::OK, format!("ok\nnot started yet: {said}\n")),
            _ => body::sentence(StatusCode::SERVICE_UNAVAILABLE, format!("not started yet: {said}\n")),
        }
    }
}
