//! The API server's actor: owns the HTTPS server at its port.

use std::rc::Rc;
use std::time::Duration;

use beehive::{Actor, Context, Fault, Message};
use https::{Http, Limits, Port, Server, Tls};

use crate::certificate::{RENEWED_AFTER, ServerCertificate};
use crate::events;
use crate::handler::ApiHandler;

/// 256 strangers, whatever their address: `kubectl`s behind one gateway are many. The oldest one yields to the next, so that idle
/// ones shut nobody out; a handshake and the head of a request need a few milliseconds, in which an attacker does not open 256.
/// 1,024 connections of users, 256 of one, and a watch is one; 128 more for administrators, so that users cannot shut them out.
const LIMITS: Limits = Limits {
    strangers: 256,
    strangers_per_address: 256,
    yields_after: Duration::ZERO,
    users: 1024,
    connections_per_user: 256,
    reserved: 128,
    handshakes: None,
    handshake_within: Duration::from_secs(10),
    credential_within: None,
    head_within: Duration::from_secs(10),
    // A watch has no end, and a large list takes its time; a body has its own bound.
    answer_within: None,
    taken_within: Duration::from_secs(30),
    // Service account tokens and label selectors are long.
    head_bytes: 64 << 10,
    header_fields: 100,
    keep_alive: true,
    // HTTP/1.1 alone is spoken.
    streams_per_connection: 1,
};
/// 2 s for requests in hand when it stops; watches are told at once.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Messages to the API server's actor: from itself.
#[derive(Debug)]
pub enum ApiServerMsg {
    /// Its server has ended by itself.
    ServerEnded,
    /// Time to show a new certificate.
    RenewCertificate,
}

impl Message for ApiServerMsg {
    fn name(&self) -> &'static str {
        match self {
            ApiServerMsg::ServerEnded => "ServerEnded",
            ApiServerMsg::RenewCertificate => "RenewCertificate",
        }
    }
}

/// Serves HTTPS on a thread of its own: a large list does not hold up the hive, and with it the links of the nodes.
pub(crate) struct ApiServer {
    port: Rc<Port>,
    tls: Tls,
    certificate: Rc<ServerCertificate>,
    handler: ApiHandler,
    server: Option<Server>,
}

impl ApiServer {
    /// One that shows `tls`, and what `certificate` makes from time to time.
    pub(crate) fn new(
        port: Rc<Port>,
        tls: Tls,
        certificate: Rc<ServerCertificate>,
        handler: ApiHandler,
    ) -> Self {
        ApiServer { port, tls, certificate, handler, server: None }
    }
}

impl Actor for ApiServer {
    type Message = ApiServerMsg;

    async fn started(&mut self, cx: &mut Context<ApiServerMsg>) -> Result<(), Fault> {
        let (handler, metrics) = (self.handler.clone(), cx.env().metrics().clone());
        let server = Server::start(
            "apiserver",
            &self.port,
            Some(self.tls.clone()),
            LIMITS,
            cx.env().clock(),
            move |event| events::connection(&metrics, event),
            move || Http::new(handler),
        );
        let server = server.map_err(|error| Fault::from_error(&error))?;
        server.tell_end(cx, ApiServerMsg::ServerEnded);
        self.server = Some(server);
        cx.after(RENEWED_AFTER, ApiServerMsg::RenewCertificate);
        Ok(())
    }

    async fn handle(&mut self, message: ApiServerMsg, cx: &mut Context<ApiServerMsg>) -> Result<(), Fault> {
        match message {
            ApiServerMsg::ServerEnded => Err(Fault::new("the API's server has ended by itself")),
            ApiServerMsg::RenewCertificate => {
                let made = self.certificate.issue(cx.env()).map_err(|error| Fault::from_error(&error))?;
                // Handshakes that begin from now on see it; no connection ends for it.
                self.tls.replace(&made);
                cx.after(RENEWED_AFTER, ApiServerMsg::RenewCertificate);
                Ok(())
            }
        }
    }

    async fn stopping(&mut self, _: &mut Context<ApiServerMsg>) {
        if let Some(server) = self.server.take() {
            server.stop(STOP_GRACE).await;
        }
    }

    fn snapshot(&self) -> serde_json::Value {
        let counts = self.server.as_ref().map(Server::counts);
        serde_json::json!({ "address": self.port.address().to_string(), "connections": counts })
    }
}
