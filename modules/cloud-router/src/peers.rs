//! The other CloudCores: which of them has a node, and what is passed on to it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use beehive::{Address, Clock, Metrics};
use contract::NodeName;
use contract::nodelease::NodeLeaseMsg;
use http::HeaderValue;
use https::Answer;

use crate::events;
use crate::peer_client::{self, PassedCall};
use crate::peer_plan::{self, KnownPeers, LOOKUP_WITHIN, MOVED, OUTCOME, PassError, Peer, Place, WITHIN};
use crate::peer_settings::PeerSettings;

/// What is known of the others, in all incarnations of an actor's servers. Its clones are one.
#[derive(Clone, Default)]
pub(crate) struct SharedPeers(Arc<Mutex<KnownPeers>>);

impl SharedPeers {
    pub(crate) fn lock(&self) -> MutexGuard<'_, KnownPeers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way to other CloudCores, for a call of a node that has no link here.
#[derive(Clone)]
pub(crate) struct Peers {
    pub(crate) lease: Address<NodeLeaseMsg>,
    pub(crate) settings: PeerSettings,
    pub(crate) known: SharedPeers,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
}

/// What another CloudCore has answered.
pub(crate) enum Passed {
    /// What the node, or its service, has answered.
    Answer(Answer),
    /// It refuses the call, and says why.
    Refused(Answer),
    /// It has the node no more, and says so.
    Moved(Answer),
}

impl Peers {
    /// Where the node is. What was heard a while ago is better than nothing: whoever has it no more says so.
    ///
    /// # Errors
    /// Nobody can say now, and why.
    pub(crate) async fn place(&self, node: &NodeName) -> Result<Place, String> {
        if let Some(place) = self.known.lock().place(node, self.clock.now()) {
            return Ok(place);
        }
        let asked = self.lease.ask(LOOKUP_WITHIN, |reply| NodeLeaseMsg::Holder { node: node.clone(), reply });
        let why = match asked.await {
            Ok(Ok(holder)) => {
                let place = peer_plan::place(holder);
                self.known.lock().found(node, place.clone(), self.clock.now());
                return Ok(place);
            }
            Ok(Err(why)) => why,
            Err(error) => error.to_string(),
        };
        events::holder_not_found(&self.metrics, node, &why);
        self.known.lock().last(node).ok_or(why)
    }

    /// Passes the call on to the CloudCore that has the node; it has `within`, from now on.
    ///
    /// # Errors
    /// See [`PassError`].
    pub(crate) async fn pass(
        &self,
        (node, peer): (&NodeName, &Peer),
        mut call: PassedCall,
        within: Duration,
    ) -> Result<Passed, PassError> {
        let began = self.clock.now();
        let connected = peer_client::connect(peer, &self.settings, &*self.clock).await;
        let connection = match connected {
            Ok(connection) => connection,
            Err(error) => {
                // The node may have gone on to another one meanwhile.
                self.known.lock().forget(node);
                let times = self.known.lock().not_reached(&peer.identity);
                events::peer_unreached(&self.metrics, peer, &error.answer().1, times);
                return Err(error);
            }
        };
        if self.known.lock().reached(&peer.identity) {
            events::peer_reached(&self.metrics, peer);
        }
        let late = || PassError::Late { peer: peer.clone(), within };
        let left = peer_plan::left(within, began, self.clock.now()).ok_or_else(late)?;
        call.headers.insert(&WITHIN, HeaderValue::from(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)));
        events::passed_on(&self.metrics, node, peer);
        let answered = connection.call(call, left, &*self.clock).await;
        let mut answer = answered.inspect_err(|error| {
            if matches!(error, PassError::Lost { .. }) {
                events::passed_call_lost(&self.metrics, node, peer, &error.answer().1);
            }
        })?;
        let outcome = answer.headers_mut().remove(&OUTCOME);
        Ok(match outcome.as_ref().and_then(|outcome| outcome.to_str().ok()) {
            None => Passed::Answer(answer),
            Some(MOVED) => {
                self.known.lock().forget(node);
                events::passed_call_moved(&self.metrics, node, peer);
                Passed::Moved(answer)
            }
            Some(_) => Passed::Refused(answer),
        })
    }
}

#[cfg(test)]
mod tests;
