//! How the connections to an external broker fare, and what is said of that.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use contract::eventbus::BrokerReport;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::ExternalSettings;
use super::fault::LinkFault;
use crate::session::{CloseReason, ConnectionHandle};

/// One of the two connections: what it does there.
pub(super) type Role = &'static str;

/// How one fares.
#[derive(Debug, Clone, PartialEq, Eq)]
enum LinkState {
    Up,
    /// It is there, and the broker does not let it read these.
    Denied(Vec<String>),
    Down {
        reason: &'static str,
        message: String,
    },
}

/// Where the connections say how they fare.
pub(super) struct LinkStates {
    /// The broker, with the user that `edgecore` is there.
    name: String,
    states: RefCell<BTreeMap<Role, LinkState>>,
    handles: RefCell<BTreeMap<Role, Rc<ConnectionHandle>>>,
    news: Rc<Notify>,
    is_ending: Cell<bool>,
    left: Notify,
}

/// How many connections there are.
const LINKS: usize = 2;

impl LinkStates {
    pub(super) fn new(settings: &ExternalSettings, news: Rc<Notify>) -> Rc<Self> {
        let user =
            if settings.user.is_empty() { String::new() } else { format!(" (user `{}`)", settings.user) };
        Rc::new(LinkStates {
            name: format!("external MQTT broker {}{user}", settings.server),
            states: RefCell::default(),
            handles: RefCell::default(),
            news,
            is_ending: Cell::new(false),
            left: Notify::new(),
        })
    }

    /// A connection is there. What it is refused comes with [`LinkStates::denied`].
    pub(super) fn up(&self, role: Role, handle: &Rc<ConnectionHandle>) {
        self.handles.borrow_mut().insert(role, Rc::clone(handle));
        if self.set(role, LinkState::Up) {
            tracing::info!(broker = self.name, role, "connected");
        }
        if self.is_ending.get() {
            handle.close(CloseReason::Ending);
        }
    }

    /// The broker does not let it read these.
    pub(super) fn denied(&self, role: Role, filters: Vec<String>) {
        tracing::error!(
            broker = self.name,
            role,
            ?filters,
            "broker refuses subscriptions: what is published there is not heard"
        );
        self.set(role, LinkState::Denied(filters));
    }

    /// A connection does not come about, or is gone.
    pub(super) fn down(&self, role: Role, fault: &LinkFault) {
        self.handles.borrow_mut().remove(role);
        self.left.notify_one();
        if matches!(fault, LinkFault::Ending) {
            return;
        }
        let (reason, message) = (fault.reason(), fault.to_string());
        if self.set(role, LinkState::Down { reason, message: message.clone() }) {
            tracing::error!(broker = self.name, role, reason, message, "broker cannot be used; tried again");
        } else {
            tracing::debug!(broker = self.name, role, reason, message, "broker cannot be used");
        }
    }

    /// Says whether that is news.
    fn set(&self, role: Role, state: LinkState) -> bool {
        let before = self.states.borrow_mut().insert(role, state.clone());
        let is_news = before.as_ref() != Some(&state);
        if is_news {
            self.news.notify_one();
        }
        is_news
    }

    /// Ends the connections, and waits until they have said so to the broker.
    pub(super) async fn end(&self) {
        self.is_ending.set(true);
        let open: Vec<Rc<ConnectionHandle>> = self.handles.borrow().values().cloned().collect();
        for handle in &open {
            handle.close(CloseReason::Ending);
        }
        while !self.handles.borrow().is_empty() {
            self.left.notified().await;
        }
    }

    pub(super) fn is_ending(&self) -> bool {
        self.is_ending.get()
    }

    /// `None` until each connection was tried.
    pub(super) fn report(&self) -> Option<BrokerReport> {
        let states = self.states.borrow();
        if states.len() < LINKS {
            return None;
        }
        let report = |is_usable, reason, what: String| BrokerReport {
            is_usable,
            is_external: true,
            reason,
            message: format!("the {} {what}", self.name),
        };
        let down = states.values().find_map(|state| match state {
            LinkState::Down { reason, message } => Some(report(false, *reason, message.clone())),
            _ => None,
        });
        let denied = states.values().find_map(|state| match state {
            LinkState::Denied(filters) => {
                let what = format!("does not let edgecore subscribe to {}", filters.join(", "));
                Some(report(false, "SubscriptionRefused", what))
            }
            _ => None,
        });
        Some(down.or(denied).unwrap_or_else(|| report(true, "Usable", "is connected".to_owned())))
    }

    /// For the state of the actor.
    pub(super) fn shown(&self, role: Role) -> Value {
        match self.states.borrow().get(role) {
            None => json!("connecting"),
            Some(LinkState::Up) => json!("connected"),
            Some(LinkState::Denied(filters)) => json!({ "connected": true, "refused": filters }),
            Some(LinkState::Down { reason, message }) => json!({ "reason": reason, "message": message }),
        }
    }
}
