//! EdgeHub's actor.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use beehive::link::{Dialer, Greeting, Link, LinkError, PeerName, Routes};
use beehive::{Actor, Address, Context, Env, Fault};
use contract::edgehub::EdgeHubMsg;
use contract::metamanager::{MetaDown, MetaMsg};

use crate::plan::{ATTEMPT_LIMIT, Pause, Redial};

/// Keeps one link to the cloud.
pub struct EdgeHub {
    dialer: Rc<dyn Dialer>,
    greeting: Greeting,
    meta: Address<MetaMsg>,
    redial: Redial,
    attempt: u64,
    link: Rc<RefCell<Option<Link>>>,
    up: bool,
    last_end: Option<String>,
}

/// Why an attempt came to nothing, or its link to an end.
struct End {
    reason: String,
    wait: Option<Duration>,
}

impl EdgeHub {
    /// A hub that dials with `dialer` and says that it is `name`: the common name of the node's certificate.
    pub fn new(dialer: Rc<dyn Dialer>, name: &str, meta: Address<MetaMsg>) -> Self {
        EdgeHub {
            dialer,
            greeting: Greeting::of(name),
            meta,
            redial: Redial::default(),
            attempt: 0,
            link: Rc::default(),
            up: false,
            last_end: None,
        }
    }
}

impl Actor for EdgeHub {
    type Message = EdgeHubMsg;

    async fn started(&mut self, cx: &mut Context<EdgeHubMsg>) -> Result<(), Fault> {
        // An earlier incarnation's link ended with it.
        let _ = self.meta.tell(MetaMsg::LinkDown).await;
        self.dial(cx);
        Ok(())
    }

    async fn handle(&mut self, message: EdgeHubMsg, cx: &mut Context<EdgeHubMsg>) -> Result<(), Fault> {
        match message {
            EdgeHubMsg::Dial => self.dial(cx),
            EdgeHubMsg::LinkUp { attempt } => self.link_up(attempt).await,
            EdgeHubMsg::LinkEnded { attempt, reason, wait_ms } => {
                self.link_ended(attempt, reason, wait_ms.map(Duration::from_millis), cx).await;
            }
            EdgeHubMsg::MetaBegan => self.meta_began(),
        }
        Ok(())
    }

    async fn stopping(&mut self, _: &mut Context<EdgeHubMsg>) {
        self.link.borrow_mut().take();
    }

    fn snapshot(&self) -> serde_json::Value {
        let link = self.link.borrow();
        let traffic = link.as_ref().map(Link::traffic);
        serde_json::json!({
            "up": self.up,
            "attempts": self.attempt,
            "bytesIn": traffic.as_ref().map(|traffic| traffic.received()),
            "bytesOut": traffic.as_ref().map(|traffic| traffic.sent()),
            "lastEnd": self.last_end,
        })
    }
}

impl EdgeHub {
    /// One attempt, and the life of its link, beside the actor.
    fn dial(&mut self, cx: &Context<EdgeHubMsg>) {
        self.attempt += 1;
        let attempt = self.attempt;
        let (dialer, greeting, meta) = (Rc::clone(&self.dialer), self.greeting.clone(), self.meta.clone());
        let (slot, myself, env) = (Rc::clone(&self.link), cx.myself(), cx.env().clone());
        cx.spawn(async move {
            let end = match env.timeout(ATTEMPT_LIMIT, connect(&env, &*dialer, &greeting, meta)).await {
                None => End { reason: "no answer within 12 s".to_owned(), wait: None },
                Some(Err(end)) => end,
                Some(Ok(link)) => {
                    let ended = link.ended();
                    *slot.borrow_mut() = Some(link);
                    let _ = myself.tell(EdgeHubMsg::LinkUp { attempt }).await;
                    End { reason: ended.await.to_string(), wait: None }
                }
            };
            let wait_ms = end.wait.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
            let _ = myself.tell(EdgeHubMsg::LinkEnded { attempt, reason: end.reason, wait_ms }).await;
        });
    }

    async fn link_up(&mut self, attempt: u64) {
        let addresses = self.link.borrow().as_ref().map(|link| (link.remote(), link.remote()));
        let Some((edge, device)) = addresses.filter(|_| attempt == self.attempt) else { return };
        tracing::info!(attempt, "linked to the cloud");
        self.up = true;
        self.redial.linked();
        let _ = self.meta.tell(MetaMsg::LinkUp { edge, device }).await;
    }

    async fn link_ended(
        &mut self,
        attempt: u64,
        reason: String,
        wait: Option<Duration>,
        cx: &Context<EdgeHubMsg>,
    ) {
        if attempt != self.attempt {
            return;
        }
        self.link.borrow_mut().take();
        let was_up = std::mem::take(&mut self.up);
        // The same reason every two seconds for days would fill the log.
        if was_up || self.last_end.as_ref() != Some(&reason) {
            tracing::warn!(attempt, %reason, "no link to the cloud");
        }
        self.last_end = Some(reason);
        if was_up {
            let _ = self.meta.tell(MetaMsg::LinkDown).await;
        }
        match self.redial.ended(was_up, wait) {
            Pause::None => self.dial(cx),
            Pause::Jittered(pause) => {
                cx.after(cx.env().jitter(pause), EdgeHubMsg::Dial);
            }
        }
    }

    /// Ending the link is enough: its task tells the end, and the next attempt follows at once.
    fn meta_began(&self) {
        if self.up
            && let Some(link) = self.link.borrow().as_ref()
        {
            link.close();
        }
    }
}

async fn connect(
    env: &Env,
    dialer: &dyn Dialer,
    greeting: &Greeting,
    meta: Address<MetaMsg>,
) -> Result<Link, End> {
    let connection =
        dialer.dial().await.map_err(|error| End { reason: Fault::from_error(&error).reason, wait: None })?;
    // What the cloud says is checked by its certificate alone; it may reach MetaManager and nothing else.
    let routes = Routes::new().accept(meta, |message: MetaDown, _: &PeerName| MetaMsg::Down(message));
    Link::greet(env, connection, greeting, routes).await.map_err(|error| End {
        reason: Fault::from_error(&error).reason,
        wait: match error {
            LinkError::Refused(refused) => refused.wait,
            LinkError::Silent
            | LinkError::Broke(_)
            | LinkError::Unexpected { .. }
            | LinkError::Impostor { .. }
            | LinkError::Versions { .. } => None,
        },
    })
}
