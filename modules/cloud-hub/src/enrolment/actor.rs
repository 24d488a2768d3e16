//! Enrolment's actor: owns the server at its port.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::{Actor, Context, Fault, Message, Metrics};
use https::{Event, Http, Limits, Port, Server, Tls};

use super::EnrolmentSettings;
use super::handler::EnrolmentHandler;

/// One request to a connection. 256 strangers, 64 of an address, of whom the oldest goes first: a fleet that joins retries. 512 who have shown a good
/// token or certificate, 256 with one token: a site that joins as a whole.
const LIMITS: Limits = Limits {
    strangers: 256,
    strangers_per_address: 64,
    yields_after: Duration::ZERO,
    users: 512,
    connections_per_user: 256,
    reserved: 0,
    handshakes: None,
    // Four round trips of the worst link that is used (600 ms), and its losses.
    handshake_within: Duration::from_secs(5),
    credential_within: None,
    head_within: Duration::from_secs(10),
    // The body has 10 s and the register the rest: what is begun there is not broken off because a client is slow.
    answer_within: Some(Duration::from_secs(40)),
    taken_within: Duration::from_secs(30),
    // The longest token has 4 KiB; keadm sends four fields.
    head_bytes: 16 << 10,
    header_fields: 32,
    keep_alive: false,
    // HTTP/1.1 alone is spoken.
    streams_per_connection: 1,
};
/// 2 s for requests in hand when it stops; a client that is broken off tries again.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Messages to enrolment: from itself.
#[derive(Debug)]
pub enum EnrolmentMsg {
    /// Its server has ended by itself.
    ServerEnded,
}

impl Message for EnrolmentMsg {
    fn name(&self) -> &'static str {
        match self {
            EnrolmentMsg::ServerEnded => "ServerEnded",
        }
    }
}

/// See the module.
pub struct Enrolment {
    port: Rc<Port>,
    tls: Tls,
    settings: Arc<EnrolmentSettings>,
    server: Option<Server>,
}

impl Enrolment {
    /// Enrolment at `port`.
    pub fn new(port: Rc<Port>, tls: Tls, settings: Arc<EnrolmentSettings>) -> Self {
        Enrolment { port, tls, settings, server: None }
    }
}

impl Actor for Enrolment {
    type Message = EnrolmentMsg;

    async fn started(&mut self, cx: &mut Context<EnrolmentMsg>) -> Result<(), Fault> {
        let (clock, serials) = (cx.env().clock(), cx.env().id_source());
        let handler =
            EnrolmentHandler::new(Arc::clone(&self.settings), clock, serials, cx.env().metrics().clone());
        let metrics = cx.env().metrics().clone();
        let server = Server::start(
            "enrolment",
            &self.port,
            Some(self.tls.clone()),
            LIMITS,
            cx.env().clock(),
            move |event| count(&metrics, event),
            move || Http::new(handler),
        );
        let server = server.map_err(|error| Fault::from_error(&error))?;
        server.tell_end(cx, EnrolmentMsg::ServerEnded);
        tracing::info!(address = %self.port.address(), "enrolment listens");
        self.server = Some(server);
        Ok(())
    }

    async fn handle(&mut self, message: EnrolmentMsg, _: &mut Context<EnrolmentMsg>) -> Result<(), Fault> {
        match message {
            EnrolmentMsg::ServerEnded => Err(Fault::new("enrolment's server has ended by itself")),
        }
    }

    async fn stopping(&mut self, _: &mut Context<EnrolmentMsg>) {
        if let Some(server) = self.server.take() {
            server.stop(STOP_GRACE).await;
        }
    }

    fn snapshot(&self) -> serde_json::Value {
        let counts = self.server.as_ref().map(Server::counts);
        serde_json::json!({ "address": self.port.address().to_string(), "connections": counts })
    }
}

fn count(metrics: &Metrics, event: Event) {
    let name = match event {
        Event::Refused => "cloudhub_enrolment_connections_refused",
        Event::Displaced => "cloudhub_enrolment_connections_displaced",
        Event::HandshakeFailed => "cloudhub_enrolment_handshakes_failed",
        Event::AnswerLate => "cloudhub_enrolment_answers_late",
        Event::Panicked => "cloudhub_enrolment_handlers_panicked",
        Event::AcceptFailed => "cloudhub_enrolment_accepts_failed",
    };
    metrics.add(name, 1);
}
