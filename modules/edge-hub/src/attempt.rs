//! One attempt: over QUIC, and over WebSocket where QUIC is not answered.

use std::pin::Pin;
use std::time::Duration;

use beehive::link::{DialError, Dialer, Greeting, Link, LinkError, PeerName, Routes};
use beehive::{Address, Env, Fault};
use contract::metamanager::{MetaDown, MetaMsg};
use futures::future::{Either, select};

use crate::plan::{ATTEMPT_LIMIT, Carrier, SILENT_PAUSE};
use crate::ways::Server;

/// Why an attempt came to nothing, or its link to an end.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) reason: String,
    /// What the cloud asked to wait.
    pub(crate) wait: Option<Duration>,
    /// The cloud itself answered: no other way leads to another answer.
    pub(crate) answered: bool,
}

impl End {
    fn silent(reason: impl Into<String>) -> Self {
        End { reason: reason.into(), wait: None, answered: false }
    }
}

type Dialling<'a> = Pin<Box<dyn Future<Output = Result<Link, End>> + 'a>>;

/// What every attempt needs.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) env: Env,
    pub(crate) greeting: Greeting,
    pub(crate) meta: Address<MetaMsg>,
}

impl Caller {
    /// A link to `server` over whichever way is answered first. QUIC is alone for `head_start`.
    pub(crate) async fn link(&self, server: &Server, head_start: Duration) -> Result<(Link, Carrier), End> {
        let (quic, websocket) = (server.dialer(Carrier::Quic), server.dialer(Carrier::WebSocket));
        match (quic, websocket) {
            (Some(quic), Some(websocket)) => self.either(&*quic, &*websocket, head_start).await,
            (Some(only), None) => Ok((self.over(&*only).await?, Carrier::Quic)),
            (None, Some(only)) => Ok((self.over(&*only).await?, Carrier::WebSocket)),
            (None, None) => Err(End::silent(format!("no way leads to `{}`", server.name))),
        }
    }

    async fn either(
        &self,
        quic: &dyn Dialer,
        websocket: &dyn Dialer,
        head_start: Duration,
    ) -> Result<(Link, Carrier), End> {
        let mut first: Dialling<'_> = Box::pin(self.over(quic));
        let early = self.env.timeout(head_start, &mut first).await;
        let again = match early {
            Some(Ok(link)) => return Ok((link, Carrier::Quic)),
            Some(Err(end)) if end.answered => return Err(end),
            Some(Err(_)) => None,
            None => Some(first),
        };
        // Neither holds up the other: the way that is answered first is taken.
        let quic = Box::pin(self.until_answered(quic, again));
        match select(quic, Box::pin(self.over(websocket))).await {
            Either::Left((link, _)) => link.map(|link| (link, Carrier::Quic)),
            Either::Right((link, _)) => link.map(|link| (link, Carrier::WebSocket)),
        }
    }

    /// Dials until there is an answer of any kind. Whoever waits sets the limit.
    async fn until_answered<'a>(
        &'a self,
        dialer: &'a dyn Dialer,
        mut attempt: Option<Dialling<'a>>,
    ) -> Result<Link, End> {
        loop {
            match attempt.take() {
                Some(attempt) => match attempt.await {
                    Err(end) if !end.answered => self.env.sleep(self.env.jitter(SILENT_PAUSE)).await,
                    answer => return answer,
                },
                None => self.env.sleep(self.env.jitter(SILENT_PAUSE)).await,
            }
            attempt = Some(Box::pin(self.over(dialer)));
        }
    }

    /// A link over one carrier.
    pub(crate) async fn over(&self, dialer: &dyn Dialer) -> Result<Link, End> {
        let limit = self.env.timeout(ATTEMPT_LIMIT, self.connect(dialer)).await;
        limit.unwrap_or_else(|| Err(End::silent(format!("no answer within {} s", ATTEMPT_LIMIT.as_secs()))))
    }

    async fn connect(&self, dialer: &dyn Dialer) -> Result<Link, End> {
        let connection = dialer.dial().await.map_err(|error| {
            let reason = Fault::from_error(&error).reason;
            match error {
                DialError::Busy { wait, .. } => End { reason, wait: Some(wait), answered: true },
                DialError::Resolve(_) | DialError::Connect { .. } | DialError::Unanswered { .. } => {
                    End::silent(reason)
                }
            }
        })?;
        // What the cloud says is checked by its certificate alone; it may reach MetaManager and nothing else.
        let meta = self.meta.clone();
        let routes = Routes::new().accept(meta, |message: MetaDown, _: &PeerName| MetaMsg::Down(message));
        Link::greet(&self.env, connection, &self.greeting, routes).await.map_err(|error| {
            let reason = Fault::from_error(&error).reason;
            match error {
                LinkError::Refused(refused) => End { reason, wait: refused.wait, answered: true },
                LinkError::Silent
                | LinkError::Broke(_)
                | LinkError::Unexpected { .. }
                | LinkError::Impostor { .. }
                | LinkError::Versions { .. } => End::silent(reason),
            }
        })
    }
}
