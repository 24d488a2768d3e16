//! One session: a child of the hub that owns the node's link. The link ends with it, whatever ends it.

use std::time::Duration;

use beehive::link::Link;
use beehive::{Actor, Address, Capacity, Context, Fault, Message, Policy};
use contract::NodeName;
use contract::cloudhub::CloudHubMsg;

/// The kind of the hub's children: one session each.
pub const SESSION: &str = "session";
/// 2 s for a session to end: it has nothing to do but close its link.
pub(crate) const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// Messages to a session: from itself.
#[derive(Debug)]
pub(crate) enum SessionMsg {
    /// The link has ended.
    LinkEnded(String),
}

impl Message for SessionMsg {
    fn name(&self) -> &'static str {
        match self {
            SessionMsg::LinkEnded(_) => "LinkEnded",
        }
    }
}

/// See the module.
pub(crate) struct Session {
    node: NodeName,
    session: u64,
    /// A second incarnation has none: a link is of one incarnation.
    link: Option<Link>,
    hub: Address<CloudHubMsg>,
}

impl Session {
    /// The name of the child among the hub's.
    pub(crate) fn name(node: &NodeName, session: u64) -> (&'static str, String) {
        (SESSION, format!("{node}/{session}"))
    }

    /// A session that has failed is not made up: its second incarnation finds no link, and says so.
    pub(crate) fn policy() -> Policy {
        let capacity = Capacity::new(1, "the link ends once");
        Policy { budget: 1, backoff_min: Duration::from_millis(1), capacity, ..Policy::default() }
    }

    /// Makes the session of `link`.
    pub(crate) fn factory(
        node: NodeName,
        session: u64,
        link: Link,
        hub: Address<CloudHubMsg>,
    ) -> impl FnMut() -> Session + 'static {
        let mut link = Some(link);
        move || Session { node: node.clone(), session, link: link.take(), hub: hub.clone() }
    }
}

impl Actor for Session {
    type Message = SessionMsg;

    async fn started(&mut self, cx: &mut Context<SessionMsg>) -> Result<(), Fault> {
        let ended = self.link.as_ref().map(Link::ended);
        let myself = cx.myself();
        cx.spawn(async move {
            let reason = match ended {
                Some(ended) => ended.await.to_string(),
                None => "the session failed".to_owned(),
            };
            let _ = myself.tell(SessionMsg::LinkEnded(reason)).await;
        });
        Ok(())
    }

    async fn handle(&mut self, message: SessionMsg, cx: &mut Context<SessionMsg>) -> Result<(), Fault> {
        let SessionMsg::LinkEnded(reason) = message;
        let (node, session) = (self.node.clone(), self.session);
        // The hub may be full of others that end.
        self.hub
            .tell_with_retry(cx.env(), || CloudHubMsg::Closed {
                node: node.clone(),
                session,
                reason: reason.clone(),
            })
            .await;
        cx.stop();
        Ok(())
    }

    async fn stopping(&mut self, _: &mut Context<SessionMsg>) {
        if let Some(link) = &self.link {
            link.close();
        }
    }

    fn snapshot(&self) -> serde_json::Value {
        let traffic = self.link.as_ref().map(Link::traffic);
        let bytes = |of: fn(&beehive::link::Traffic) -> u64| traffic.as_deref().map(of);
        serde_json::json!({
            "node": self.node.as_str(), "session": self.session,
            "bytesIn": bytes(beehive::link::Traffic::received), "bytesOut": bytes(beehive::link::Traffic::sent),
        })
    }
}
