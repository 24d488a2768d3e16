//! A session at a server: how it is kept, and known to have ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use framework::Fault;
use futures::TryStreamExt as _;
use opcua_client::{Session, SessionActivity, SessionEventLoop, SessionPollResult, SubscriptionActivity};
use opcua_types::{
    Error, NamespaceMap, NodeId, ReadValueId, StatusCode, TimestampsToReturn, VariableId, Variant,
};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::chunk_sizes::Breach;
use crate::connector::Dialler;
use crate::dropped_sessions::Dropped;
use crate::status;

/// 3 signs of life without an answer.
const SILENT_MAX: u32 = 3;
/// 500 nodes in one request, of servers that name no limit.
const NODES_MAX: usize = 500;

/// A session at a server, which several Devices may share.
pub(crate) struct Connection {
    session: Arc<Session>,
    /// Why it has ended.
    ended: watch::Receiver<Option<String>>,
    end: watch::Sender<Option<String>>,
    namespaces: NamespaceMap,
    /// How many nodes it takes in one request.
    pub(crate) reads_max: usize,
    pub(crate) items_max: usize,
    /// How many subscriptions there are that the server is to know.
    subscriptions: Arc<AtomicUsize>,
    /// How often the answer to a Publish did not come to us, with all that it was to bring.
    lost_publishes: watch::Receiver<u64>,
    /// There is a session to take leave of.
    is_open: bool,
    /// What is known of the server's ends.
    pub(crate) dropped: Arc<Dropped>,
    /// This one's end is among them.
    is_noted: AtomicBool,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("ended", &*self.ended.borrow()).finish_non_exhaustive()
    }
}

impl Drop for Connection {
    /// The loop that [`drive`]s it takes leave and ends, or ends at once where it still tries.
    fn drop(&mut self) {
        if self.is_open {
            drop(self.session.close_on_drop());
        } else {
            self.end.send_replace(Some("nobody waits for it any more".to_owned()));
        }
    }
}

impl Connection {
    /// Of a session whose events nobody has heard yet, at a server of which `breach` tells the worst.
    pub(crate) fn begin(
        session: Arc<Session>,
        events: SessionEventLoop<Dialler>,
        breach: Breach,
    ) -> Connection {
        let (end, ended) = watch::channel(None);
        let subscriptions = Arc::new(AtomicUsize::new(0));
        let driven = Ending(end.clone());
        let (losses, lost_publishes) = watch::channel(0);
        tokio::spawn(drive(events, driven, breach, Arc::clone(&subscriptions), losses));
        Connection {
            session,
            ended,
            end,
            namespaces: NamespaceMap::new(),
            reads_max: NODES_MAX,
            items_max: NODES_MAX,
            subscriptions,
            lost_publishes,
            is_open: false,
            dropped: Arc::default(),
            is_noted: AtomicBool::new(false),
        }
    }

    /// Waits until there is a session; the reason, when there will be none.
    pub(crate) async fn until_connected(&self) -> Result<(), String> {
        let mut ended = self.ended.clone();
        tokio::select! {
            _ = self.session.wait_for_connection() => Ok(()),
            reason = ended.wait_for(Option::is_some) => {
                Err(reason.ok().and_then(|reason| reason.clone()).unwrap_or_default())
            }
        }
    }

    /// Reads the namespaces, and how much the server takes at once. A server that hides either can still be asked.
    pub(crate) async fn look_around(mut self) -> Result<Connection, Fault> {
        self.is_open = true;
        let ids = [
            VariableId::Server_NamespaceArray,
            VariableId::Server_ServerCapabilities_OperationLimits_MaxNodesPerRead,
            VariableId::Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall,
        ];
        let ids: Vec<ReadValueId> = ids.into_iter().map(|id| ReadValueId::from(NodeId::from(id))).collect();
        let found = match self.session.read(&ids, TimestampsToReturn::Neither, 0.0).await {
            Ok(found) => found,
            Err(error) => match status::of_request(&error) {
                Fault::Device(_) | Fault::Unfit(_) | Fault::NoValue(_) | Fault::Doubtful(..) => Vec::new(),
                fault => return Err(fault),
            },
        };
        let value = |at: usize| found.get(at).and_then(|data| data.value.as_ref());
        if let Some(Variant::Array(names)) = value(0)
            && let Ok(namespaces) = NamespaceMap::new_from_variant_array(&names.values)
        {
            self.namespaces = namespaces;
        }
        // 0, or none: no limit.
        let limit = |at: usize| match value(at) {
            Some(Variant::UInt32(limit @ 1..)) => usize::try_from(*limit).unwrap_or(NODES_MAX).min(NODES_MAX),
            _ => NODES_MAX,
        };
        (self.reads_max, self.items_max) = (limit(1), limit(2));
        Ok(self)
    }

    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    pub(crate) fn shared_session(&self) -> Arc<Session> {
        Arc::clone(&self.session)
    }

    pub(crate) fn namespaces(&self) -> &NamespaceMap {
        &self.namespaces
    }

    /// Why it has ended, once it has.
    pub(crate) fn ended(&self) -> watch::Receiver<Option<String>> {
        self.ended.clone()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// The server has lost what it was asked for: all begins anew.
    pub(crate) fn end(&self) -> watch::Sender<Option<String>> {
        self.end.clone()
    }

    /// It has ended for what the server was to send by itself.
    pub(crate) fn was_dropped(&self) {
        if !self.is_noted.swap(true, Ordering::Relaxed) {
            self.dropped.note(Instant::now());
        }
    }

    /// How often the answer to a Publish did not come to us; whose notifications it had nobody knows.
    pub(crate) fn lost_publishes(&self) -> watch::Receiver<u64> {
        self.lost_publishes.clone()
    }

    /// How many subscriptions there are.
    pub(crate) fn subscriptions(&self) -> &Arc<AtomicUsize> {
        &self.subscriptions
    }

    /// Closes the session, so that the server has room for another.
    pub(crate) async fn close(&self) {
        if let Err(error) = self.session.disconnect().await {
            tracing::debug!(%error, "the session was not closed in order");
        }
    }
}

/// Tells why a connection has ended, also when what drove it has panicked.
struct Ending(watch::Sender<Option<String>>);

impl Ending {
    fn tell(&self, reason: &str) {
        self.0.send_modify(|ended| {
            if ended.is_none() {
                *ended = Some(reason.to_owned());
            }
        });
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.tell("the connection has failed");
    }
}

/// Lets a session live until it ends.
async fn drive(
    events: SessionEventLoop<Dialler>,
    ending: Ending,
    breach: Breach,
    subscriptions: Arc<AtomicUsize>,
    losses: watch::Sender<u64>,
) {
    let mut ended = ending.0.subscribe();
    let mut silent = 0;
    let events = events.enter();
    tokio::pin!(events);
    let reason = loop {
        let event = tokio::select! {
            event = events.try_next() => event,
            _ = ended.wait_for(Option::is_some) => return,
        };
        match event {
            Ok(Some(SessionPollResult::ConnectionLost(code))) | Err(code) => break status::named(code),
            Ok(None) => break "the session was closed".to_owned(),
            Ok(Some(SessionPollResult::SessionActivity(SessionActivity::KeepAliveSucceeded))) => silent = 0,
            Ok(Some(SessionPollResult::SessionActivity(SessionActivity::KeepAliveFailed(code)))) => {
                silent += 1;
                let is_over =
                    matches!(status::of_request(&Error::new(code, "")), Fault::NotSent(_) | Fault::Link(_));
                if silent >= SILENT_MAX || is_over {
                    break status::named(code);
                }
            }
            Ok(Some(SessionPollResult::Subscription(SubscriptionActivity::PublishFailed(code))))
                if is_lost(code) && subscriptions.load(Ordering::Relaxed) > 0 =>
            {
                break status::named(code);
            }
            Ok(Some(SessionPollResult::Subscription(SubscriptionActivity::PublishFailed(code))))
                if status::loses_notifications(code) =>
            {
                losses.send_modify(|count| *count = count.wrapping_add(1));
            }
            Ok(Some(_)) => {}
        }
    };
    ending.tell(breach.words().unwrap_or(&reason));
}

/// The server knows nothing of a subscription that we have, or has not said anything of it for long.
fn is_lost(code: StatusCode) -> bool {
    let lost = [StatusCode::BadNoSubscription, StatusCode::BadSubscriptionIdInvalid, StatusCode::BadTimeout];
    lost.iter().any(|one| one.sub_code() == code.sub_code())
}
