//! EdgeHub's actor.

mod describe;
mod keeping;
mod moving;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::link::{CloseReason, Hello, Link};
use beehive::{Actor, Address, Context, Fault, Moment};
use contract::capability;
use contract::devicetwin::TwinMsg;
use contract::downlink::HubDown;
use contract::edgehub::{EdgeHubMsg, LinkEnd};
use contract::edgestream::EdgeStreamMsg;
use contract::metamanager::MetaMsg;
use futures::future::{AbortHandle, Either, select};

use crate::attempt::{AttemptContext, AttemptFailure};
use crate::certificates::NodeCertificates;
use crate::dial_schedule::DialSchedule;
use crate::endpoints::{Endpoints, NamedServers};
use crate::events;
use crate::history::LinkHistory;
use crate::network::Network;
use crate::plan::{Carrier, NextStep, Outage, Plan};
use crate::stream_handler::StreamHandler;
use keeping::{Keeping, renew_alone};

/// 1 s between looks at the node's network.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Keeps one link to the cloud.
pub struct EdgeHub {
    endpoints: Endpoints,
    greeting: Hello,
    meta: Address<MetaMsg>,
    twin: Option<Address<TwinMsg>>,
    network: Option<Rc<dyn Network>>,
    streams: Option<Address<EdgeStreamMsg>>,
    plan: Plan,
    last_attempt: u64,
    /// The attempt that is under way: at most one.
    trying: Option<CurrentAttempt>,
    /// The attempt whose link is in use.
    up: Option<ActiveLink>,
    links: Links,
    last_end: Option<String>,
    outage: Outage,
    history: LinkHistory,
    probes: u64,
    /// The next look whether QUIC passes: there is one at a time.
    next_probe: Option<AbortHandle>,
    keeping: Option<Keeping>,
}

/// Links of attempts that came to something, shared with their tasks.
type Links = Rc<RefCell<BTreeMap<u64, (Link, Carrier)>>>;

struct CurrentAttempt {
    attempt: u64,
    server: usize,
    /// It is made beside a link that is up: its failure changes nothing.
    beside: bool,
    /// It is made because that link is silent: there is no need of it when the link is heard again.
    for_silence: bool,
    /// It is made over QUIC alone, to take the place of a link over WebSocket.
    for_quic: bool,
    /// QUIC passes, and calls keep that link in use.
    is_held: bool,
    /// How the link ended whose place it was to take: the cloud ended it, as it does when it has the next one.
    gave_way: Option<String>,
    streams: Option<Arc<StreamHandler>>,
    task: AbortHandle,
}

struct ActiveLink {
    attempt: u64,
    server: usize,
    carrier: Carrier,
    streams: Option<Arc<StreamHandler>>,
    _in_use: events::InUse,
}

impl EdgeHub {
    /// A hub that dials `endpoints` (or one dialer) and says that it is `name`: the common name of the node's certificate.
    pub fn new(endpoints: impl Into<Endpoints>, name: &str, meta: Address<MetaMsg>) -> Self {
        let endpoints = endpoints.into();
        EdgeHub {
            plan: Plan::new(endpoints.0.len()),
            endpoints,
            greeting: Hello::of(name),
            meta,
            twin: None,
            network: None,
            streams: None,
            last_attempt: 0,
            trying: None,
            up: None,
            links: Rc::default(),
            last_end: None,
            outage: Outage::default(),
            history: LinkHistory::new(Moment::default()),
            probes: 0,
            next_probe: None,
            keeping: None,
        }
    }

    /// With the node's certificates, which are renewed and changed over the link, and with how servers are reached that the cloud names.
    #[must_use]
    pub fn keeping(mut self, certificates: Rc<NodeCertificates>, named: NamedServers) -> Self {
        self.keeping = Some(Keeping::new(certificates, named));
        self
    }

    /// With an eye on the node's network: a change of it is not waited out.
    #[must_use]
    pub fn watching(mut self, network: Rc<dyn Network>) -> Self {
        self.network = Some(network);
        self
    }

    /// With DeviceTwin for the calls of devices' methods that the cloud makes; without it the hello says that none are taken.
    #[must_use]
    pub fn calling_devices_of(mut self, twin: Address<TwinMsg>) -> Self {
        self.twin = Some(twin);
        self
    }

    /// With EdgeStream for the byte streams that the cloud opens; without it the hello says that there are none.
    #[must_use]
    pub fn streaming_to(mut self, streams: Address<EdgeStreamMsg>) -> Self {
        self.streams = Some(streams);
        self
    }
}

impl Actor for EdgeHub {
    type Message = EdgeHubMsg;

    async fn started(&mut self, cx: &mut Context<EdgeHubMsg>) -> Result<(), Fault> {
        self.history = LinkHistory::new(cx.now());
        // An earlier incarnation's link ended with it.
        let _ = self.meta.tell(MetaMsg::LinkDown).await;
        self.watch(cx);
        self.begin_keeping(cx);
        self.dial(cx);
        Ok(())
    }

    async fn handle(&mut self, message: EdgeHubMsg, cx: &mut Context<EdgeHubMsg>) -> Result<(), Fault> {
        match message {
            EdgeHubMsg::Dial => self.dial(cx),
            EdgeHubMsg::Probe { attempt } => self.probe(attempt, cx),
            EdgeHubMsg::QuicPasses { attempt, reply } => reply.send(self.quic_passes(attempt, cx)),
            EdgeHubMsg::NetworkChanged => self.network_changed(cx),
            EdgeHubMsg::LinkUp { attempt } => self.link_up(attempt, cx).await,
            EdgeHubMsg::LinkSilent { attempt } => self.link_silent(attempt, cx),
            EdgeHubMsg::LinkHeard { attempt } => self.link_heard(attempt),
            EdgeHubMsg::LinkEnded { attempt, reason, wait_ms, end } => {
                let wait = wait_ms.map(Duration::from_millis);
                self.link_ended(attempt, reason, wait, end, cx).await;
            }
            EdgeHubMsg::MetaBegan => self.meta_began(),
            EdgeHubMsg::Down(HubDown::Trust { trust, reply }) => self.trust(trust, reply, cx),
            EdgeHubMsg::LookAtCertificate => self.look_at_certificate(cx),
            EdgeHubMsg::RenewalEnded { renewed, wait_ms } => {
                self.renewal_ended(renewed, wait_ms.map(Duration::from_millis), cx);
            }
            EdgeHubMsg::ServersChanged { servers } => self.add_servers(&servers),
            EdgeHubMsg::CertificateSuperseded => self.certificate_superseded(cx),
            EdgeHubMsg::Describe { bounds, reply } => reply.send(self.describe(bounds, cx.now())),
        }
        Ok(())
    }

    async fn stopping(&mut self, _: &mut Context<EdgeHubMsg>) {
        self.links.borrow_mut().clear();
    }

    fn snapshot(&self) -> serde_json::Value {
        let links = self.links.borrow();
        let link = self.up.as_ref().and_then(|up| links.get(&up.attempt)).map(|(link, _)| link);
        let traffic = link.map(Link::traffic);
        let server =
            self.up.as_ref().and_then(|up| self.endpoints.0.get(up.server)).map(|server| &server.name);
        serde_json::json!({
            "up": self.up.is_some(),
            "carrier": self.up.as_ref().map(|up| up.carrier.name()),
            "fellBack": self.up.as_ref().is_some_and(|up| self.fell_back(up.server, up.carrier)),
            "wireVersion": link.map(|link| link.version().number()),
            "cloudCapabilities": link.map(|link| link.capabilities().names().collect::<Vec<_>>()),
            "server": server,
            "servers": self.endpoints.0.iter().map(|server| server.name.as_str()).collect::<Vec<_>>(),
            "attempts": self.last_attempt,
            "probes": self.probes,
            "waitsForCalls": self.plan.is_held(),
            "bytesIn": traffic.as_ref().map(|traffic| traffic.received()),
            "bytesOut": traffic.as_ref().map(|traffic| traffic.sent()),
            "lastEnd": self.last_end,
            "certificate": self.keeping.as_ref().map(Keeping::snapshot),
        })
    }
}

/// Tells the hub each time that the cloud is silent on a link, and each time that it is heard again.
fn tell_silence(
    link: &Link,
    attempt: u64,
    hub: &Address<EdgeHubMsg>,
) -> impl Future<Output = Infallible> + use<> {
    let (silence, hub) = (link.silence(), hub.clone());
    async move {
        loop {
            silence.until(true).await;
            let _ = hub.tell(EdgeHubMsg::LinkSilent { attempt }).await;
            silence.until(false).await;
            let _ = hub.tell(EdgeHubMsg::LinkHeard { attempt }).await;
        }
    }
}

/// The cloud's mailboxes over a link.
fn link_up(link: &Link) -> MetaMsg {
    let peer = link.capabilities().clone();
    MetaMsg::LinkUp {
        edge: link.remote(),
        device: link.remote(),
        router: link.remote(),
        tasks: link.remote(),
        peer,
    }
}

impl EdgeHub {
    /// Looks at the network every second, beside the actor.
    fn watch(&self, cx: &Context<EdgeHubMsg>) {
        let Some(network) = self.network.clone() else { return };
        let (env, myself) = (cx.env().clone(), cx.myself());
        cx.spawn(async move {
            let mut known = network.route();
            loop {
                env.sleep(LOOK_EVERY).await;
                let seen = network.route();
                let changed = seen != known;
                known.clone_from(&seen);
                // A way that is gone leads nowhere: there is nothing to dial until there is one again.
                if changed && seen.is_some() && myself.tell(EdgeHubMsg::NetworkChanged).await.is_err() {
                    return;
                }
            }
        });
    }

    /// The next attempt if there is no link, or its time.
    fn dial(&mut self, cx: &Context<EdgeHubMsg>) {
        if self.up.is_some() || self.trying.is_some() {
            return;
        }
        match self.plan.next(cx.env().now(), |pause| cx.env().jitter(pause)) {
            NextStep::Dial { server, head_start } => self.attempt(server, Some(head_start), cx),
            NextStep::Wait(pause) => {
                cx.after(pause, EdgeHubMsg::Dial);
            }
        }
    }

    /// One attempt, and the life of its link, beside the actor. Without a head start it is over QUIC alone.
    fn attempt(&mut self, server: usize, head_start: Option<Duration>, cx: &Context<EdgeHubMsg>) {
        let Some(target) = self.endpoints.0.get(server).cloned() else { return };
        self.last_attempt += 1;
        let attempt = self.last_attempt;
        let (env, greeting, meta) = (cx.env().clone(), self.greeting.clone(), self.meta.clone());
        let streams = self.streams.clone().map(|streams| Arc::new(StreamHandler::new(streams)));
        let (twin, of_link) = (self.twin.clone(), streams.clone());
        let hub = self.keeping.is_some().then(|| cx.myself());
        let caller = AttemptContext { env, greeting, meta, twin, streams, hub };
        let certificates = self.keeping.as_ref().map(|keeping| Rc::clone(&keeping.certificates));
        let (links, myself) = (Rc::clone(&self.links), cx.myself());
        let patience = self.plan.patience();
        let task = cx.spawn(async move {
            let made = match (head_start, &target.quic) {
                (Some(head_start), _) => {
                    let schedule =
                        DialSchedule::new(caller.env.now(), head_start, &target.carriers(), patience);
                    caller.link(&target, schedule).await
                }
                (None, Some(quic)) => {
                    let may_go_on = moving::may_go_on(attempt, myself.clone());
                    caller.over_quic(&**quic, may_go_on).await.map(|link| (link, Carrier::Quic))
                }
                (None, None) => return,
            };
            let mut end = LinkEnd::Other;
            let failure = match made {
                Err(end) => end,
                Ok((link, _)) if link.capabilities().has(capability::RENEWAL_ONLY) => {
                    renew_alone(&caller.env, &link, certificates, &myself).await
                }
                Ok((link, carrier)) => {
                    let silence = tell_silence(&link, attempt, &myself);
                    let ended = link.ended();
                    links.borrow_mut().insert(attempt, (link, carrier));
                    let _ = myself.tell(EdgeHubMsg::LinkUp { attempt }).await;
                    let (ended, silence) = (std::pin::pin!(ended), std::pin::pin!(silence));
                    let reason = match select(ended, silence).await {
                        Either::Left((reason, _)) => reason,
                        Either::Right((never, _)) => match never {},
                    };
                    end = match reason {
                        CloseReason::Remote => LinkEnd::ClosedByCloud,
                        CloseReason::IdleTimeout => LinkEnd::Silent,
                        CloseReason::Local | CloseReason::Broken(_) => LinkEnd::Other,
                    };
                    AttemptFailure::answered(reason.to_string(), None)
                }
            };
            let wait_ms = failure.wait.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
            let reason = failure.reason;
            let _ = myself.tell(EdgeHubMsg::LinkEnded { attempt, reason, wait_ms, end }).await;
        });
        let beside = self.up.is_some();
        self.trying = Some(CurrentAttempt {
            attempt,
            server,
            beside,
            for_silence: false,
            for_quic: head_start.is_none(),
            is_held: false,
            gave_way: None,
            streams: of_link,
            task,
        });
    }

    /// Make before break: the link that was in use goes only when the new one is there.
    async fn link_up(&mut self, attempt: u64, cx: &Context<EdgeHubMsg>) {
        let Some(trying) = self.trying.take_if(|trying| trying.attempt == attempt) else {
            // Of an attempt that was given up.
            self.links.borrow_mut().remove(&attempt);
            return;
        };
        let of_cloud = |(link, carrier): &(Link, Carrier)| (link_up(link), *carrier);
        let Some((up, carrier)) = self.links.borrow().get(&attempt).map(of_cloud) else { return };
        let Some(in_use) = self.say_linked(attempt, trying.server, carrier, cx) else { return };
        let streams = trying.streams.clone();
        let next = ActiveLink { attempt, server: trying.server, carrier, streams, _in_use: in_use };
        let before = self.up.replace(next);
        self.plan.linked(trying.server, carrier);
        self.outage = Outage::default();
        let name = self.endpoints.0.get(trying.server).map_or("", |server| &server.name);
        self.history.linked(name, carrier.name(), cx.now(), cx.wall());
        if trying.for_quic {
            events::moved(cx.env(), attempt, name);
        }
        if before.is_some() {
            let _ = self.meta.tell(MetaMsg::LinkDown).await;
        }
        let _ = self.meta.tell(up).await;
        if let Some(before) = before {
            events::link_replaced(before.attempt);
            self.links.borrow_mut().remove(&before.attempt);
        }
        self.probe_later(cx);
        self.look_soon(cx);
    }

    fn say_linked(
        &self,
        attempt: u64,
        server: usize,
        carrier: Carrier,
        cx: &Context<EdgeHubMsg>,
    ) -> Option<events::InUse> {
        let name = self.endpoints.0.get(server).map_or("", |server| &server.name);
        let in_use = {
            let links = self.links.borrow();
            let (link, _) = links.get(&attempt)?;
            events::linked(cx.env(), attempt, name, link)
        };
        if self.fell_back(server, carrier) {
            events::fell_back(cx.env(), name);
        }
        Some(in_use)
    }

    /// Whether the link is over WebSocket, although the server is reached over QUIC, too.
    fn fell_back(&self, server: usize, carrier: Carrier) -> bool {
        let has_quic = self.endpoints.0.get(server).is_some_and(|server| server.quic.is_some());
        carrier == Carrier::WebSocket && has_quic
    }

    async fn link_ended(
        &mut self,
        attempt: u64,
        reason: String,
        wait: Option<Duration>,
        end: LinkEnd,
        cx: &Context<EdgeHubMsg>,
    ) {
        self.links.borrow_mut().remove(&attempt);
        if self.up.take_if(|up| up.attempt == attempt).is_some() {
            self.plan.ended(end);
            let _ = self.meta.tell(MetaMsg::LinkDown).await;
            // An attempt beside it was made to take its place, and may just have done so at the other end.
            match &mut self.trying {
                Some(trying) if end == LinkEnd::ClosedByCloud => {
                    events::link_gives_way(attempt, &reason);
                    (trying.beside, trying.gave_way) = (false, Some(reason));
                }
                trying => {
                    events::link_ended(attempt, &reason);
                    self.history.ended(&reason, cx.now(), cx.wall());
                    self.last_end = Some(reason);
                    if let Some(trying) = trying {
                        trying.beside = false;
                    }
                }
            }
            self.dial(cx);
            return;
        }
        let Some(trying) = self.trying.take_if(|trying| trying.attempt == attempt) else { return };
        if trying.beside {
            tracing::debug!(attempt, %reason, "the other dial failed; the link stays as it is");
            self.stays();
            if trying.for_silence {
                self.dial_beside(cx);
            } else {
                if !trying.is_held {
                    self.plan.quic_failed();
                }
                self.probe_later(cx);
            }
            return;
        }
        if let Some(reason) = trying.gave_way {
            self.history.ended(&reason, cx.now(), cx.wall());
        }
        events::dial_failed(cx.env(), attempt, &reason, self.outage.dial_failed(cx.env().now()));
        self.history.dial_failed(&reason, cx.now(), cx.wall());
        self.last_end = Some(reason);
        self.plan.failed(trying.server, wait, cx.env().now(), |pause| cx.env().jitter(pause));
        self.dial(cx);
    }

    /// The CloudCore of that link may be gone: it is not waited for until the link is dead, others are asked at once.
    fn link_silent(&mut self, attempt: u64, cx: &Context<EdgeHubMsg>) {
        if self.up.as_ref().is_none_or(|up| up.attempt != attempt) {
            return;
        }
        self.plan.silence_begins();
        self.dial_beside(cx);
    }

    /// The next server beside the link that is silent; each has one turn.
    fn dial_beside(&mut self, cx: &Context<EdgeHubMsg>) {
        let Some(up) = self.up.as_ref().filter(|_| self.trying.is_none()) else { return };
        let (attempt, silent) = (up.attempt, up.server);
        let Some(server) = self.plan.beside(silent, cx.env().now()) else { return };
        let name = self.endpoints.0.get(server).map_or("", |server| &server.name);
        events::link_silent(cx.env(), attempt, name);
        self.attempt(server, Some(self.plan.head_start()), cx);
        if let Some(trying) = &mut self.trying {
            trying.for_silence = true;
        }
    }

    /// It was slow, and the other end is there.
    fn link_heard(&mut self, attempt: u64) {
        if self.up.as_ref().is_none_or(|up| up.attempt != attempt) {
            return;
        }
        self.plan.silence_ends();
        if let Some(trying) = self.trying.take_if(|trying| trying.for_silence) {
            trying.task.abort();
            self.links.borrow_mut().remove(&trying.attempt);
        }
    }

    /// A link that is up may be of an address that is gone: another is made beside it. While there is none, the pause ends.
    fn network_changed(&mut self, cx: &Context<EdgeHubMsg>) {
        events::network_changed(cx.env());
        self.plan.network_changed();
        // What is under way began on the old way.
        if let Some(trying) = self.trying.take() {
            trying.task.abort();
            self.links.borrow_mut().remove(&trying.attempt);
            self.stays();
        }
        match &self.up {
            Some(up) => self.attempt(up.server, Some(crate::plan::HEAD_START), cx),
            None => self.dial(cx),
        }
    }

    /// Ending the link is enough: its task tells the end, and the next attempt follows at once.
    fn meta_began(&self) {
        let links = self.links.borrow();
        if let Some((link, _)) = self.up.as_ref().and_then(|up| links.get(&up.attempt)) {
            link.close();
        }
    }
}
