//! Being a foreign device at a BBMD (J.5): it broadcasts for us, and sends us what is broadcast there.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::code;
use crate::link::Link;
use crate::network;

/// 3 s for a BBMD's answer.
const ANSWER: Duration = Duration::from_secs(3);
/// 10 s until a BBMD is asked again that has refused.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);
/// What a BBMD answers that has registered us.
const DONE: u16 = 0;

/// A BBMD, for how many seconds, and our own port.
type Key = (SocketAddrV4, u16, u16);

/// The registrations that are held.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registrations(Arc<Mutex<BTreeMap<Key, Weak<Registration>>>>);

/// A registration at a BBMD, which is renewed as long as somebody holds this.
#[derive(Debug)]
pub(crate) struct Registration {
    bbmd: SocketAddrV4,
    state: watch::Receiver<State>,
    renewing: JoinHandle<()>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Nothing is known yet.
    Asked,
    Registered,
    /// It has refused, or is silent, in words.
    Failed(String),
}

impl Registrations {
    /// The one there for so many seconds, from the socket at our port.
    pub(crate) fn at(&self, bbmd: SocketAddrV4, ttl: u16, port: u16, link: &Arc<Link>) -> Arc<Registration> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, registration| registration.strong_count() > 0);
        if let Some(registration) = held.get(&(bbmd, ttl, port)).and_then(Weak::upgrade) {
            return registration;
        }
        let (said, state) = watch::channel(State::Asked);
        let renewing = tokio::spawn(renew(Arc::clone(link), bbmd, ttl, said));
        let registration = Arc::new(Registration { bbmd, state, renewing });
        held.insert((bbmd, ttl, port), Arc::downgrade(&registration));
        registration
    }
}

impl Registration {
    /// Waits until it is known whether we are registered.
    ///
    /// # Errors
    /// A sentence, when we are not.
    pub(crate) async fn is_made(&self) -> Result<(), String> {
        let mut state = self.state.clone();
        let known = timeout(ANSWER * 2, state.wait_for(|state| *state != State::Asked)).await;
        let reason = match known {
            Ok(Ok(state)) => match &*state {
                State::Failed(reason) => reason.clone(),
                State::Registered | State::Asked => return Ok(()),
            },
            Ok(Err(_)) | Err(_) => "it has not answered".to_owned(),
        };
        Err(format!("no foreign device of the BBMD {}: {reason}", self.bbmd))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

async fn renew(link: Arc<Link>, bbmd: SocketAddrV4, ttl: u16, said: watch::Sender<State>) {
    let mut results = link.results_of(bbmd);
    loop {
        results.mark_unchanged();
        let sent = link.send(&network::register(ttl), bbmd).await;
        let answered = match sent {
            Ok(()) => timeout(ANSWER, results.changed()).await.is_ok_and(|changed| changed.is_ok()),
            Err(_) => false,
        };
        let result = answered.then(|| *results.borrow_and_update()).flatten();
        let (state, pause) = match (result, sent) {
            (Some(DONE), _) => (State::Registered, Duration::from_secs(ttl.into()) / 2),
            (Some(result), _) => (State::Failed(code::of_result(result)), REFUSED_PAUSE),
            (None, Ok(())) => (State::Failed("it has not answered".to_owned()), ANSWER),
            (None, Err(reason)) => (State::Failed(reason), ANSWER),
        };
        if *said.borrow() != state {
            if let State::Failed(reason) = &state {
                tracing::warn!(%bbmd, reason, "not registered at the BBMD");
            }
            said.send_replace(state);
        }
        // A BBMD that has forgotten us says so at the next broadcast.
        tokio::select! {
            () = sleep(pause) => {}
            Ok(()) = results.changed() => {}
        }
    }
}
