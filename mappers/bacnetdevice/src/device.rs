//! A device, and what is known of it: one question at a time, since many have room for no more (5.4).

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex as SyncMutex, MutexGuard, PoisonError, Weak};

use framework::Fault;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::apdu::{self, APDU_MAX, Answer, Refusal};
use crate::code;
use crate::link::{Link, Listening, Timing};
use crate::network::{self, Peer};
use crate::target::ObjectId;

/// 22 bytes: what a value takes in an answer, with its property, and now and then its object.
const BYTES_EACH: u32 = 22;
/// 480 bytes: the APDU of a device that does not say how long its is.
pub(crate) const APDU_UNKNOWN: u32 = 480;
/// Values that are asked for at once.
const AT_ONCE_MAX: usize = 64;

type InUse = BTreeMap<(u16, Peer), Weak<Device>>;

/// The devices that are in use, by our own ports and where they are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Devices(Arc<SyncMutex<InUse>>);

impl Devices {
    /// The one there, by the socket at our port: all Devices that mean it share what is known of it, and its turn.
    pub(crate) fn at(&self, link: &Arc<Link>, port: u16, peer: Peer) -> Arc<Device> {
        let mut devices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        devices.retain(|_, device| device.strong_count() > 0);
        let key = (port, peer);
        if let Some(device) = devices.get(&key).and_then(Weak::upgrade) {
            return device;
        }
        let device = Arc::new(Device::new(Arc::clone(link), key.1.clone()));
        devices.insert(key, Arc::downgrade(&device));
        device
    }
}

/// What is known of a device since it was last connected to.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Whether it answers several properties at once. None: it was not asked yet.
    pub(crate) has_multiple: Option<bool>,
    /// How many at once, at most.
    pub(crate) at_once: usize,
    /// Objects that have no status flags.
    pub(crate) without_flags: BTreeSet<ObjectId>,
    /// Objects that have no priorities.
    pub(crate) without_priorities: BTreeSet<ObjectId>,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum NotDone {
    /// The device will not.
    Refused(Refusal),
    /// It has answered something else, or what is no answer.
    Wrong(String),
    /// It has not answered.
    Silent(String),
    /// Nothing was sent.
    Unsent(String),
    /// It cannot be sent.
    Unfit(String),
}

impl From<NotDone> for Fault {
    fn from(why: NotDone) -> Self {
        match why {
            NotDone::Refused(refusal) => Fault::Device(code::of(refusal)),
            NotDone::Wrong(reason) => Fault::Device(reason),
            NotDone::Silent(reason) => Fault::Silent(reason),
            NotDone::Unsent(reason) => Fault::NotSent(reason),
            NotDone::Unfit(reason) => Fault::Unfit(reason),
        }
    }
}

/// A device at its place.
#[derive(Debug)]
pub(crate) struct Device {
    link: Arc<Link>,
    peer: Peer,
    /// The number of the last request. Whoever has it may ask.
    turn: Mutex<u8>,
    known: SyncMutex<Known>,
}

impl Device {
    fn new(link: Arc<Link>, peer: Peer) -> Self {
        // A device may still remember the first numbers of the mapper before this one.
        let first = RandomState::new().hash_one(peer.at) & 0xFF;
        let turn = Mutex::new(u8::try_from(first).unwrap_or_default());
        Device { link, peer, turn, known: SyncMutex::default() }
    }

    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    pub(crate) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new beginning with a device whose APDUs have so many bytes: it may be another one.
    pub(crate) fn begins(&self, apdu: u32) {
        let fitting = usize::try_from(apdu / BYTES_EACH).unwrap_or(AT_ONCE_MAX);
        *self.known() = Known { at_once: fitting.clamp(1, AT_ONCE_MAX), ..Known::default() };
    }

    /// Listens for what it tells by itself.
    pub(crate) fn listen(&self) -> Listening {
        self.link.listen(&self.peer)
    }

    /// Asks, and asks again under the same number while there is no answer.
    pub(crate) async fn ask(&self, service: u8, body: &[u8], timing: Timing) -> Result<Vec<u8>, NotDone> {
        let mut last = self.turn.lock().await;
        *last = last.wrapping_add(1);
        let invoke = *last;
        let request = apdu::request(invoke, service, body);
        if request.len() > APDU_MAX {
            let sentence = format!("it has {} bytes as a request, and {APDU_MAX} have room", request.len());
            return Err(NotDone::Unfit(sentence));
        }
        let bytes = network::unicast(&self.peer, true, &request);
        let mut expecting = self.link.expect(&self.peer, invoke);
        for _ in 0..timing.tries {
            self.link.send(&bytes, self.peer.at).await.map_err(NotDone::Unsent)?;
            return match timeout(timing.answer, &mut expecting.answer).await {
                Err(_) => continue,
                Ok(Ok(Ok(Answer::Done { service: of, body }))) if of == service => Ok(body),
                Ok(Ok(Ok(Answer::Done { service: of, .. }))) => {
                    Err(NotDone::Wrong(format!("it has answered service {of} instead of {service}")))
                }
                Ok(Ok(Ok(Answer::Refused(refusal)))) => Err(NotDone::Refused(refusal)),
                Ok(Ok(Err(reason))) => Err(NotDone::Silent(reason)),
                Ok(Err(_)) => Err(NotDone::Silent("the socket has ended".to_owned())),
            };
        }
        let (millis, peer) = (timing.answer.as_millis(), &self.peer);
        let times = if timing.tries == 1 { String::new() } else { format!(", {} times", timing.tries) };
        Err(NotDone::Silent(format!("{peer} has not answered within {millis} ms{times}")))
    }
}
