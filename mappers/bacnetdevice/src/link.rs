//! The socket, which all Devices share: who waits for which answer, who is looked for, and who listens for changes.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::apdu::{self, Answer, Apdu};
use crate::code;
use crate::network::{self, DATAGRAM_MAX, Datagram, Peer};
use crate::service::{self, IAm, Notification};

/// 300 ms after a device has answered for its instance: another one that does so as well is found.
const TWINS_WITHIN: Duration = Duration::from_millis(300);
/// 100 ms until the socket is tried again that has an error.
const SOCKET_PAUSE: Duration = Duration::from_millis(100);
/// Devices that answer for one instance.
const FOUND_MAX: usize = 8;
/// Changes that wait for one Device. Beyond that they are not confirmed, and come again.
const TOLD_MAX: usize = 256;
/// A tag that is no tag (20.1.8.4).
const INVALID_TAG: u8 = 4;

/// How long a question is waited for, and how often it is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    pub(crate) answer: Duration,
    /// At least 1.
    pub(crate) tries: u32,
}

/// The sockets that are in use, by their ports.
#[derive(Debug, Clone, Default)]
pub(crate) struct Links(Arc<Mutex<BTreeMap<u16, Weak<Link>>>>);

impl Links {
    /// The socket at this port; 0 is one at any.
    ///
    /// # Errors
    /// A sentence, when there is none to be had.
    pub(crate) fn at(&self, port: u16) -> Result<Arc<Link>, String> {
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|_, link| link.strong_count() > 0);
        if let Some(link) = links.get(&port).and_then(Weak::upgrade) {
            return Ok(link);
        }
        let link = Arc::new(Link::open(port).map_err(|error| words(&error, port))?);
        links.insert(port, Arc::downgrade(&link));
        Ok(link)
    }
}

fn words(error: &io::Error, port: u16) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "UDP port {port} of this machine has another program: end that, or set `localPort` to 0, with which no device is found whose I-Am is a broadcast"
        ),
        _ => format!("UDP port {port} of this machine cannot be opened: {error}"),
    }
}

/// What is told to whoever listens.
#[derive(Debug)]
pub(crate) enum Event {
    /// An object has changed.
    Changed(Notification),
    /// The device says that it is there; it may have forgotten what it was asked for.
    IsThere,
}

/// A socket, and what comes in there.
#[derive(Debug)]
pub(crate) struct Link {
    shared: Arc<Shared>,
    receiving: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    socket: UdpSocket,
    inside: Mutex<Inside>,
}

type Expected = oneshot::Sender<Result<Answer, String>>;

#[derive(Debug, Default)]
struct Inside {
    /// Who waits for the answer to the request of this number.
    asked: BTreeMap<(Peer, u8), Expected>,
    /// Who looks for which instance.
    sought: BTreeMap<u64, (u32, mpsc::Sender<(Peer, IAm)>)>,
    /// Who listens for changes, by the process that the device was told.
    listeners: BTreeMap<u32, (Peer, mpsc::Sender<Event>)>,
    /// What BBMDs answer.
    results: BTreeMap<SocketAddrV4, watch::Sender<Option<u16>>>,
    last: u64,
}

impl Link {
    fn open(port: u16) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
        socket.set_nonblocking(true)?;
        socket.set_broadcast(true)?;
        let shared = Arc::new(Shared { socket: UdpSocket::from_std(socket)?, inside: Mutex::default() });
        let receiving = tokio::spawn(receive(Arc::clone(&shared)));
        Ok(Link { shared, receiving })
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.shared.inside()
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// A sentence, when it has not left.
    pub(crate) async fn send(&self, bytes: &[u8], to: SocketAddrV4) -> Result<(), String> {
        let sent = self.shared.socket.send_to(bytes, to).await;
        sent.map(drop).map_err(|error| format!("nothing can be sent to {to}: {error}"))
    }

    /// From now on the answer to this request is waited for.
    pub(crate) fn expect(&self, peer: &Peer, invoke: u8) -> Expecting<'_> {
        let (sender, answer) = oneshot::channel();
        self.inside().asked.insert((peer.clone(), invoke), sender);
        Expecting { link: self, key: (peer.clone(), invoke), answer }
    }

    /// From now on what this device tells is listened for, and the number of the process that it is told for that.
    pub(crate) fn listen(self: &Arc<Self>, peer: &Peer) -> Listening {
        let (sender, events) = mpsc::channel(TOLD_MAX);
        let mut inside = self.inside();
        inside.last += 1;
        // 22 bits: some devices have no room for more.
        let process = u32::try_from(inside.last & 0x3F_FFFF).unwrap_or_default();
        inside.listeners.insert(process, (peer.clone(), sender));
        Listening { link: Arc::clone(self), process, events }
    }

    /// What this BBMD answers from now on.
    pub(crate) fn results_of(&self, bbmd: SocketAddrV4) -> watch::Receiver<Option<u16>> {
        let mut inside = self.inside();
        inside.results.retain(|_, results| !results.is_closed());
        inside.results.entry(bbmd).or_insert_with(|| watch::channel(None).0).subscribe()
    }

    /// Where the device of this instance is, which everybody there is asked for.
    ///
    /// # Errors
    /// A sentence, when it is nowhere, or at two places.
    pub(crate) async fn find(
        &self,
        instance: u32,
        (everybody, is_foreign): (&[SocketAddrV4], bool),
        timing: Timing,
    ) -> Result<(Peer, IAm), String> {
        let mut seeking = self.seek(instance);
        let who_is = network::broadcast(is_foreign, &service::who_is(instance));
        for _ in 0..timing.tries {
            let (mut sent, mut refusal) = (false, None);
            for at in everybody {
                match self.send(&who_is, *at).await {
                    Ok(()) => sent = true,
                    Err(reason) => refusal = Some(reason),
                }
            }
            // Without a way to anywhere there is one to the machine's own networks.
            if let Some(reason) = refusal.filter(|_| !sent) {
                return Err(reason);
            }
            let Ok(Some((peer, i_am))) = timeout(timing.answer, seeking.found.recv()).await else { continue };
            let until = Instant::now() + TWINS_WITHIN.min(timing.answer);
            while let Ok(Some((other, _))) = timeout_at(until, seeking.found.recv()).await {
                if other != peer {
                    return Err(format!(
                        "two devices say that they are {instance}: at {peer} and at {other}; give one of them another number, or write `ip`"
                    ));
                }
            }
            return Ok((peer, i_am));
        }
        let by = if is_foreign { "the BBMD" } else { "broadcasts to" };
        let everybody: Vec<String> = everybody.iter().map(ToString::to_string).collect();
        Err(format!(
            "no device says that it is {instance}, asked for by {by} {} {} times within {} ms each; check `deviceInstance`, or write `ip`",
            everybody.join(", "),
            timing.tries,
            timing.answer.as_millis()
        ))
    }

    fn seek(&self, instance: u32) -> Seeking<'_> {
        let (sender, found) = mpsc::channel(FOUND_MAX);
        let mut inside = self.inside();
        inside.last += 1;
        let key = inside.last;
        inside.sought.insert(key, (instance, sender));
        Seeking { link: self, key, found }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.receiving.abort();
    }
}

/// Somebody waits for an answer.
pub(crate) struct Expecting<'a> {
    link: &'a Link,
    key: (Peer, u8),
    pub(crate) answer: oneshot::Receiver<Result<Answer, String>>,
}

impl Drop for Expecting<'_> {
    fn drop(&mut self) {
        self.link.inside().asked.remove(&self.key);
    }
}

/// Somebody looks for a device.
struct Seeking<'a> {
    link: &'a Link,
    key: u64,
    found: mpsc::Receiver<(Peer, IAm)>,
}

impl Drop for Seeking<'_> {
    fn drop(&mut self) {
        self.link.inside().sought.remove(&self.key);
    }
}

/// Somebody listens for changes.
#[derive(Debug)]
pub(crate) struct Listening {
    link: Arc<Link>,
    pub(crate) process: u32,
    pub(crate) events: mpsc::Receiver<Event>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.link.inside().listeners.remove(&self.process);
    }
}

async fn receive(shared: Arc<Shared>) {
    // One byte more than there may be: what is longer does not have the length that it says.
    let mut buffer = [0; DATAGRAM_MAX + 1];
    loop {
        match shared.socket.recv_from(&mut buffer).await {
            Ok((count, SocketAddr::V4(from))) => {
                let Some(datagram) = buffer.get(..count) else { continue };
                if let Some((bytes, to)) = shared.take(datagram, from) {
                    // Where nothing can be sent now, the device asks again.
                    drop(shared.socket.try_send_to(&bytes, to.into()));
                }
            }
            Ok((_, SocketAddr::V6(_))) => {}
            Err(error) => {
                tracing::debug!(%error, "nothing is received");
                sleep(SOCKET_PAUSE).await;
            }
        }
    }
}

impl Shared {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives what came to whom it is for. What is to be said to that, and to whom.
    fn take(&self, datagram: &[u8], source: SocketAddrV4) -> Option<(Vec<u8>, SocketAddrV4)> {
        let mut inside = self.inside();
        let (from, is_direct, apdu) = match network::understood(datagram, source)? {
            Datagram::Apdu { from, is_direct, apdu } => (from, is_direct, apdu),
            Datagram::Result(result) => {
                inside.results.get(&source)?.send_replace(Some(result));
                return None;
            }
            Datagram::Unreachable { network, reason } => {
                inside.unreachable(source, network, reason);
                return None;
            }
        };
        match apdu::understood(apdu)? {
            // Answers are for one, and never forwarded.
            Apdu::Answer { invoke, answer } if is_direct => {
                drop(inside.asked.remove(&(from, invoke))?.send(Ok(answer)));
                None
            }
            Apdu::Request { invoke, service, body } if is_direct => {
                let answer = inside.asked_by(&from, invoke, service, body)?;
                Some((network::unicast(&from, false, &answer), from.at))
            }
            Apdu::Told { service: apdu::I_AM, body } => {
                inside.is_there(&from, service::i_am(body)?);
                None
            }
            Apdu::Told { service: apdu::UNCONFIRMED_COV, body } => {
                if let Ok(notification) = service::notification(body) {
                    inside.changed(&from, notification);
                }
                None
            }
            Apdu::Answer { .. } | Apdu::Request { .. } | Apdu::Told { .. } => None,
        }
    }
}

/// What becomes of a notification.
enum Taken {
    Yes,
    /// Nobody listens for it.
    Unknown,
    /// There are too many.
    NotNow,
}

impl Inside {
    fn unreachable(&mut self, router: SocketAddrV4, network: u16, reason: u8) {
        let is_behind =
            |peer: &Peer| peer.at == router && peer.remote.as_ref().is_some_and(|at| at.network == network);
        let lost: Vec<(Peer, u8)> = self.asked.keys().filter(|(peer, _)| is_behind(peer)).cloned().collect();
        for key in lost {
            if let Some(asked) = self.asked.remove(&key) {
                drop(asked.send(Err(code::of_unreachable(network, reason))));
            }
        }
    }

    fn is_there(&mut self, from: &Peer, i_am: IAm) {
        for (_, found) in self.sought.values().filter(|(instance, _)| *instance == i_am.instance) {
            drop(found.try_send((from.clone(), i_am)));
        }
        for (_, events) in self.listeners.values().filter(|(peer, _)| peer == from) {
            // Whoever says it all the time takes no room from changes.
            if events.capacity() > TOLD_MAX / 2 {
                drop(events.try_send(Event::IsThere));
            }
        }
    }

    fn changed(&mut self, from: &Peer, notification: Notification) -> Taken {
        // A number of another device's, or of the mapper before this one, is nobody's.
        let listener = self.listeners.get(&notification.process).filter(|(peer, _)| peer == from);
        let Some((_, events)) = listener else { return Taken::Unknown };
        match events.try_send(Event::Changed(notification)) {
            Ok(()) => Taken::Yes,
            Err(_) => Taken::NotNow,
        }
    }

    /// What a device is answered that asks us.
    fn asked_by(&mut self, from: &Peer, invoke: u8, service: u8, body: &[u8]) -> Option<Vec<u8>> {
        if service != apdu::CONFIRMED_COV {
            return Some(apdu::reject(invoke, apdu::UNRECOGNIZED_SERVICE));
        }
        let Ok(notification) = service::notification(body) else {
            return Some(apdu::reject(invoke, INVALID_TAG));
        };
        match self.changed(from, notification) {
            Taken::Yes => Some(apdu::simple_ack(invoke, service)),
            Taken::Unknown => Some(apdu::error(invoke, service, code::SERVICES, code::UNKNOWN_SUBSCRIPTION)),
            Taken::NotNow => None,
        }
    }
}
