//! One attempt at one server: dial after dial until somebody takes a connection, and then the hello.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use beehive::link::{Connection, DialError, Dialer, Hello, Link, LinkError, PeerName, Routes};
use beehive::{Address, Env, Fault, Moment};
use contract::devicetwin::{DeviceDown, TwinMsg};
use contract::downlink::HubDown;
use contract::edgehub::EdgeHubMsg;
use contract::metamanager::{MetaDown, MetaMsg};
use futures::StreamExt;
use futures::future::{Either, select};
use futures::stream::FuturesUnordered;

use crate::dial_schedule::{DialSchedule, DialStep};
use crate::endpoints::Server;
use crate::plan::{ATTEMPT_LIMIT, Carrier};
use crate::stream_handler::StreamHandler;

/// 3 s: whoever has answered a dial and says no more for so long is silent again.
const ANSWER_LASTS: Duration = Duration::from_secs(3);

/// Why an attempt came to nothing, or its link to an end.
#[derive(Debug)]
pub(crate) struct AttemptFailure {
    pub(crate) reason: String,
    /// What the cloud asked to wait.
    pub(crate) wait: Option<Duration>,
    /// The cloud itself answered: no other way leads to another answer.
    pub(crate) answered: bool,
    /// It was there, and ended the connection or fell silent before it answered the hello, as a CloudCore does that goes.
    pub(crate) is_gone: bool,
}

impl AttemptFailure {
    /// The cloud's own word.
    pub(crate) fn answered(reason: String, wait: Option<Duration>) -> Self {
        AttemptFailure { reason, wait, answered: true, is_gone: false }
    }

    fn silent(reason: impl Into<String>) -> Self {
        AttemptFailure { reason: with_cure(reason.into()), wait: None, answered: false, is_gone: false }
    }
}

/// TLS has one word for a certificate that has ended, and no room for what helps.
const ENDED: &str = "CertificateExpired";

/// `reason`, with what helps where it is that one: a server lets in whose certificate has ended, to have it renewed, until the grace for
/// that is over.
fn with_cure(reason: String) -> String {
    if !reason.contains(ENDED) {
        return reason;
    }
    format!(
        "{reason}: this node's certificate ended more than `edgeCertGraceDuration` ago by the server's clock; if that is right, run `keadm \
         reset --force` here and join again with a token for this name (`keadm gettoken --edgenode-name=NAME`)"
    )
}

impl From<DialError> for AttemptFailure {
    fn from(error: DialError) -> Self {
        let reason = Fault::from_error(&error).reason;
        match error {
            DialError::Busy { wait, .. } => AttemptFailure::answered(reason, Some(wait)),
            DialError::Resolve(_) | DialError::Connect { .. } | DialError::Unanswered { .. } => {
                AttemptFailure::silent(reason)
            }
        }
    }
}

/// A dial that has come to its end.
struct DialResult {
    carrier: Carrier,
    began: Moment,
    connection: Result<Box<dyn Connection>, AttemptFailure>,
}

type PendingDials<'a> = FuturesUnordered<Pin<Box<dyn Future<Output = DialResult> + 'a>>>;

/// What every attempt needs.
#[derive(Clone)]
pub(crate) struct AttemptContext {
    pub(crate) env: Env,
    pub(crate) greeting: Hello,
    pub(crate) meta: Address<MetaMsg>,
    /// Who takes calls of devices' methods, if anybody does.
    pub(crate) twin: Option<Address<TwinMsg>>,
    /// Who takes the byte streams that the cloud opens, if anybody does.
    pub(crate) streams: Option<Arc<StreamHandler>>,
    /// The hub itself, where it keeps the node's certificates.
    pub(crate) hub: Option<Address<EdgeHubMsg>>,
}

impl AttemptContext {
    /// A link to `server` over whichever dial is answered first. Only that one says hello: the cloud takes the newest
    /// hello of an edge for its link, so two at once would end each other.
    pub(crate) async fn link(
        &self,
        server: &Server,
        mut schedule: DialSchedule,
    ) -> Result<(Link, Carrier), AttemptFailure> {
        let (quic, websocket) = (server.dialer(Carrier::Quic), server.dialer(Carrier::WebSocket));
        let mut dials: PendingDials<'_> = FuturesUnordered::new();
        let (mut heard, mut heard_at) = (quic.as_ref().map_or(0, |dialer| dialer.heard()), None);
        let mut last = AttemptFailure::silent(format!("nothing came back from `{}`", server.name));
        loop {
            let now = self.env.now();
            let count = quic.as_ref().map_or(0, |dialer| dialer.heard());
            if count != std::mem::replace(&mut heard, count) {
                heard_at = Some(now);
            }
            let answered = heard_at.is_some_and(|at| now.since(at) < ANSWER_LASTS);
            let pause = match schedule.step(now, answered, |pause| self.env.jitter(pause)) {
                DialStep::Over => return Err(last),
                DialStep::Wait(pause) => pause,
                DialStep::Dial(carrier) => {
                    let dialer = match carrier {
                        Carrier::Quic => &quic,
                        Carrier::WebSocket => &websocket,
                    };
                    if let Some(dialer) = dialer {
                        dials.push(Box::pin(self.begin(carrier, now, &**dialer)));
                    }
                    continue;
                }
            };
            let Some(dialled) = self.first_of(&mut dials, pause).await else { continue };
            let DialResult { carrier, began, connection } = dialled;
            let failed = match connection {
                Err(end) => end,
                Ok(connection) => {
                    dials.clear();
                    schedule.taken();
                    let dialer = if carrier == Carrier::Quic { quic.as_deref() } else { None };
                    match self.greet_heard(connection, dialer).await {
                        Ok(link) => return Ok((link, carrier)),
                        Err(end) => end,
                    }
                }
            };
            if failed.answered {
                return Err(failed);
            }
            schedule.failed(carrier, began, self.env.now());
            if failed.is_gone {
                schedule.gone(self.env.now());
            }
            last = failed;
        }
    }

    /// The next dial that comes to its end within `pause`.
    async fn first_of(&self, dials: &mut PendingDials<'_>, pause: Duration) -> Option<DialResult> {
        if dials.is_empty() {
            self.env.sleep(pause).await;
            return None;
        }
        self.env.timeout(pause, dials.next()).await.flatten()
    }

    /// A link over one dial of QUIC, if `may_go_on` says so of the connection that came about.
    pub(crate) async fn over_quic(
        &self,
        dialer: &dyn Dialer,
        may_go_on: impl Future<Output = Result<(), AttemptFailure>>,
    ) -> Result<Link, AttemptFailure> {
        let dialled = self.begin(Carrier::Quic, self.env.now(), dialer).await;
        let connection = dialled.connection?;
        if let Err(failure) = may_go_on.await {
            connection.close();
            return Err(failure);
        }
        self.greet(connection).await
    }

    async fn begin(&self, carrier: Carrier, began: Moment, dialer: &dyn Dialer) -> DialResult {
        let connection = match self.env.timeout(ATTEMPT_LIMIT, dialer.dial()).await {
            Some(dialled) => dialled.map_err(AttemptFailure::from),
            None => {
                Err(AttemptFailure::silent(format!("no connection within {} s", ATTEMPT_LIMIT.as_secs())))
            }
        };
        DialResult { carrier, began, connection }
    }

    /// The same as [`Self::greet`], unless nothing at all comes from there any more: whoever lives says at once that the hello has arrived, however
    /// long the answer takes.
    async fn greet_heard(
        &self,
        connection: Box<dyn Connection>,
        dialer: Option<&dyn Dialer>,
    ) -> Result<Link, AttemptFailure> {
        let heard = || dialer.map_or(0, Dialer::heard);
        let before = heard();
        let greeting = std::pin::pin!(self.greet(connection));
        match select(greeting, self.env.sleep(ANSWER_LASTS)).await {
            Either::Left((greeted, _)) => greeted,
            // Where packets cannot be counted there are none.
            Either::Right(_) if before > 0 && heard() == before => {
                let reason = format!(
                    "the connection came about, and nothing has come over it for {} s",
                    ANSWER_LASTS.as_secs()
                );
                Err(AttemptFailure { is_gone: true, ..AttemptFailure::silent(reason) })
            }
            Either::Right((_, greeting)) => greeting.await,
        }
    }

    async fn greet(&self, connection: Box<dyn Connection>) -> Result<Link, AttemptFailure> {
        // What the cloud says is checked by its certificate alone; it may reach MetaManager, DeviceTwin, the hub itself and the byte
        // streams, and nothing else.
        let meta = self.meta.clone();
        let routes = Routes::new().accept(meta, |message: MetaDown, _: &PeerName| MetaMsg::Down(message));
        let routes = match self.twin.clone() {
            Some(twin) => routes.accept(twin, |message: DeviceDown, _: &PeerName| TwinMsg::Down(message)),
            None => routes,
        };
        let routes = match self.hub.clone() {
            Some(hub) => routes.accept(hub, |message: HubDown, _: &PeerName| EdgeHubMsg::Down(message)),
            None => routes,
        };
        let routes = match &self.streams {
            Some(streams) => routes.byte_streams(Arc::<StreamHandler>::clone(streams)),
            None => routes,
        };
        Link::connect(&self.env, connection, &self.greeting, routes).await.map_err(|error| {
            let reason = Fault::from_error(&error).reason;
            match error {
                LinkError::Refused(refused) => AttemptFailure::answered(reason, refused.wait),
                LinkError::Broke(_) => AttemptFailure { is_gone: true, ..AttemptFailure::silent(reason) },
                LinkError::Silent
                | LinkError::Late
                | LinkError::Unexpected { .. }
                | LinkError::Impostor { .. }
                | LinkError::Versions { .. } => AttemptFailure::silent(reason),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_ended_for_good_is_said_with_what_helps() {
        let refused = DialError::Connect {
            target: "wss://cloud:10000".to_owned(),
            reason: "IO error: received fatal alert: CertificateExpired".to_owned(),
        };
        let told = AttemptFailure::from(refused).reason;
        assert!(told.contains("keadm reset --force") && told.contains("wss://cloud:10000"), "{told}");
        let other = AttemptFailure::silent("received fatal alert: UnknownCA").reason;
        assert_eq!(other, "received fatal alert: UnknownCA");
    }
}
