//! What a camera says by itself: a pull point, asked again and again (Core §9.1, §9.2), and kept alive.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use framework::{Fault, Payload, Subscription, Value};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::ask::{Ask, Service};
use crate::exchange::{Camera, Failure, Line, Manner, ONCE};
use crate::services::Target;
use crate::topic::{Said, Topic, messages};
use crate::xml::{Element, escape, to_xml};

/// A minute: how long a camera keeps a pull point of which it hears nothing.
pub(crate) const LIFETIME: Duration = Duration::from_secs(60);
/// 1 to 5 s that a camera waits for something to say, by how often values are told again.
const PULL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// 64 messages of one answer are asked for.
const MESSAGES: u32 = 64;
/// Between two questions: 50 ms, and 500 ms where a camera has said nothing and has not waited either.
const BETWEEN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// 1 s after a camera has refused, doubling up to a minute.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// A pull point that has lived for a minute was none that a camera drops.
const STEADY: Duration = Duration::from_secs(60);
/// 4 KiB of what a camera wants back with each request to its pull point.
const BACK_MAX: usize = 4 << 10;
/// 1 s to take leave.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);

const TO_NOTIFY: &str = "http://docs.oasis-open.org/wsn/bw-2/SubscriptionManager";
const TO_PULL: &str = "http://www.onvif.org/ver10/events/wsdl/PullPointSubscription";

/// A property that the camera says by itself.
#[derive(Debug)]
pub(crate) struct Watched {
    /// Among those of the device.
    pub(crate) place: usize,
    pub(crate) topic: Topic,
    pub(crate) payload: Arc<Payload>,
    pub(crate) told_every: Option<Duration>,
}

/// What was said last of each.
type Heard = Vec<(Watched, Result<Value, Fault>)>;

/// A subscription at a camera.
pub(crate) struct Monitor {
    camera: Arc<Camera>,
    heard: Arc<Mutex<Heard>>,
    /// Where the pull point is, while there is one.
    point: Arc<Mutex<Option<Point>>>,
    task: JoinHandle<()>,
}

/// A pull point.
#[derive(Debug, Clone)]
struct Point {
    target: Target,
    /// As the camera calls it.
    address: String,
    /// What it wants back in the header, as XML.
    back: String,
}

impl Drop for Monitor {
    /// Also a session that has ended gives its pull point back: a camera has few of them, and the next session makes another.
    fn drop(&mut self) {
        self.task.abort();
        if let Some(point) = lock(&self.point).take()
            && let Ok(runtime) = Handle::try_current()
        {
            let line = Line::to(Arc::clone(&self.camera));
            runtime.spawn(async move { point.give_back(line).await });
        }
    }
}

impl Monitor {
    /// Subscribes to these, and takes leave of the one before.
    pub(crate) fn start(
        camera: &Arc<Camera>,
        watched: Vec<Watched>,
        values: Subscription,
        former: Option<Monitor>,
    ) -> Monitor {
        let told_every = watched.iter().filter_map(|one| one.told_every).min();
        let pull = told_every.unwrap_or(PULL.1).clamp(PULL.0, PULL.1);
        let heard: Arc<Mutex<Heard>> =
            Arc::new(Mutex::new(watched.into_iter().map(|one| (one, Err(nothing_yet()))).collect()));
        let point = Arc::new(Mutex::new(None));
        let pulling = Pulling {
            line: Line::to(Arc::clone(camera)),
            heard: Arc::clone(&heard),
            point: Arc::clone(&point),
            values,
            pull,
        };
        let task = tokio::spawn(async move {
            if let Some(former) = former {
                former.leave().await;
            }
            pulling.run().await;
        });
        Monitor { camera: Arc::clone(camera), heard, point, task }
    }

    /// What was said last of a topic.
    pub(crate) fn last(&self, topic: &Topic) -> Result<Value, Fault> {
        let heard = lock(&self.heard);
        let found = heard.iter().find(|(watched, _)| watched.topic == *topic);
        found.map_or_else(|| Err(nothing_yet()), |(_, last)| last.clone())
    }

    /// Gives the pull point back: a camera has few of them.
    pub(crate) async fn leave(self) {
        self.task.abort();
        let point = lock(&self.point).take();
        if let Some(point) = point {
            point.give_back(Line::to(Arc::clone(&self.camera))).await;
        }
    }
}

impl Point {
    /// From the answer that made it.
    fn of(answer: &Element, camera: &Camera) -> Result<Point, Fault> {
        let reference = answer.child("SubscriptionReference");
        let address = reference.and_then(|reference| reference.text_at("Address"));
        let address = address
            .ok_or_else(|| Fault::Device("the camera does not say where its pull point is".to_owned()))?;
        let target = camera
            .dialled
            .target(address)
            .map_err(|why| Fault::Device(format!("the camera's pull point: {why}")))?;
        let parts = reference.and_then(|reference| reference.child("ReferenceParameters"));
        let parts = parts.map(|parts| parts.children.as_slice()).unwrap_or_default();
        let back = to_xml(parts, BACK_MAX).ok_or_else(|| {
            Fault::Device(format!("the camera's pull point wants more than {BACK_MAX} bytes back"))
        })?;
        Ok(Point { target, address: address.to_owned(), back })
    }

    async fn give_back(&self, mut line: Line) {
        let action = (TO_NOTIFY, "UnsubscribeRequest");
        let asked = self.ask(&mut line, "wsnt:Unsubscribe", "", action, Duration::ZERO);
        if !matches!(timeout(LEAVE_WITHIN, asked).await, Ok(Ok(_))) {
            tracing::debug!("a pull point was not given back; it ends by itself");
        }
    }

    async fn ask(
        &self,
        line: &mut Line,
        name: &str,
        inside: &str,
        (to, action): (&str, &str),
        longer: Duration,
    ) -> Result<Element, Failure> {
        let action = format!("{to}/{action}");
        let header = format!("{}{}", addressed(&action, &self.address), self.back);
        let ask = Ask { service: Service::Events, body: format!("<{name}>{inside}</{name}>"), action };
        // A pull that was not answered may have brought something: it is not asked for twice.
        line.soap(&self.target, &ask, Manner { header: &header, longer, ..ONCE }).await
    }
}

/// WS-Addressing, without which some cameras do not know which pull point is meant.
fn addressed(action: &str, to: &str) -> String {
    let id = uuid::Uuid::new_v4();
    format!(
        "<wsa:Action s:mustUnderstand=\"1\">{action}</wsa:Action><wsa:MessageID>urn:uuid:{id}</wsa:MessageID>\
         <wsa:ReplyTo><wsa:Address>http://www.w3.org/2005/08/addressing/anonymous</wsa:Address></wsa:ReplyTo>\
         <wsa:To s:mustUnderstand=\"1\">{}</wsa:To>",
        escape(to)
    )
}

struct Pulling {
    line: Line,
    heard: Arc<Mutex<Heard>>,
    point: Arc<Mutex<Option<Point>>>,
    values: Subscription,
    pull: Duration,
}

impl Pulling {
    /// Until the camera is away.
    async fn run(mut self) {
        let (mut retry, mut dropped) = (RETRY.0, 0_u32);
        self.tell_all(&nothing_yet());
        loop {
            let began = Instant::now();
            let failure = match self.subscribed(&mut retry).await {
                Ok(never) => match never {},
                Err(failure) => failure,
            };
            let former = lock(&self.point).take();
            if failure.fault.is_unanswered() {
                // One that answers other questions has dropped the pull point alone: there are too many of them.
                let mut line = Line::to(Arc::clone(&self.line.camera));
                if let Err(fault) = line.clock().await
                    && fault.is_unanswered()
                {
                    // The session is at its end with it: the camera forgets what it was asked to say.
                    return self.tell_all(&Fault::Link(failure.fault.to_string()));
                }
                if let Some(former) = former {
                    former.give_back(line).await;
                }
                dropped = if began.elapsed() >= STEADY { 1 } else { dropped.saturating_add(1) };
                let pause = if dropped == 1 { RETRY.0 } else { RETRY.1 };
                if dropped == 1 {
                    tracing::warn!(camera = %self.line.camera.dialled.at, reason = %failure.fault, "a camera drops whoever listens to what it says by itself");
                }
                self.tell_all(&Fault::NoValue(format!(
                    "the camera drops whoever listens to what it says by itself, and answers other questions ({}); it may have too many \
                     listeners, and is asked again within {} s",
                    failure.fault,
                    RETRY.1.as_secs()
                )));
                sleep(pause).await;
                continue;
            }
            let was_there = former.is_some();
            let is_gone = failure.refusal.codes.iter().any(|code| code.starts_with("ResourceUnknown"));
            if let Some(former) = former.filter(|_| !is_gone) {
                former.give_back(Line::to(Arc::clone(&self.line.camera))).await;
            }
            if was_there && retry == RETRY.0 {
                tracing::debug!(reason = %failure.fault, "a pull point has ended, and is made anew");
            } else {
                self.tell_all(&Fault::NoValue(format!(
                    "the camera says nothing by itself: {}",
                    failure.fault
                )));
            }
            sleep(retry).await;
            retry = (retry * 2).min(RETRY.1);
        }
    }

    /// Makes a pull point and asks it until something fails.
    async fn subscribed(&mut self, retry: &mut Duration) -> Result<std::convert::Infallible, Failure> {
        let target = self.line.service(Service::Events).await?;
        let action =
            "http://www.onvif.org/ver10/events/wsdl/EventPortType/CreatePullPointSubscriptionRequest";
        // Some cameras fail without a time, and some with a filter.
        let kept = self.line.camera.onvif.lifetime;
        let lifetime = format!("PT{}S", kept.as_secs_f64());
        let body = format!(
            "<tev:CreatePullPointSubscription><tev:InitialTerminationTime>{lifetime}</tev:InitialTerminationTime></tev:CreatePullPointSubscription>"
        );
        let ask = Ask { service: Service::Events, body, action: action.to_owned() };
        let to = format!("http://{}{}", self.line.camera.dialled.authority(target.port), target.path);
        let header = addressed(action, &to);
        let made = self.line.soap(&target, &ask, Manner { header: &header, ..ONCE }).await?;
        let point = Point::of(&made, &self.line.camera)?;
        *lock(&self.point) = Some(point.clone());
        self.synchronize(&point).await?;
        let mut renew_at = Instant::now() + kept / 2;
        loop {
            let began = Instant::now();
            if began >= renew_at {
                self.renew(&point, &lifetime).await?;
                renew_at = Instant::now() + kept / 2;
            }
            let inside = format!(
                "<tev:Timeout>PT{}S</tev:Timeout><tev:MessageLimit>{MESSAGES}</tev:MessageLimit>",
                self.pull.as_secs_f64()
            );
            let asked = point.ask(
                &mut self.line,
                "tev:PullMessages",
                &inside,
                (TO_PULL, "PullMessagesRequest"),
                self.pull,
            );
            let said = asked.await?;
            *retry = RETRY.0;
            let count = self.take(&said);
            let pause = if count == 0 && began.elapsed() < self.pull / 2 { BETWEEN.1 } else { BETWEEN.0 };
            sleep_until(began + pause).await;
        }
    }

    /// Has the camera say what is so now. Those that have no such request say it by themselves, or not at all.
    async fn synchronize(&mut self, point: &Point) -> Result<(), Failure> {
        let action = (TO_PULL, "SetSynchronizationPointRequest");
        match point.ask(&mut self.line, "tev:SetSynchronizationPoint", "", action, Duration::ZERO).await {
            Err(failure) if failure.fault.is_unanswered() => Err(failure),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Each pull keeps the point alive; some cameras want this, too, and some refuse it.
    async fn renew(&mut self, point: &Point, lifetime: &str) -> Result<(), Failure> {
        let inside = format!("<wsnt:TerminationTime>{lifetime}</wsnt:TerminationTime>");
        match point
            .ask(&mut self.line, "wsnt:Renew", &inside, (TO_NOTIFY, "RenewRequest"), Duration::ZERO)
            .await
        {
            Err(failure) if failure.fault.is_unanswered() => Err(failure),
            Err(failure) => {
                tracing::debug!(reason = %failure.fault, "a pull point was not renewed");
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }

    /// Takes what was pulled, and tells it, and tells the rest again: the camera lives.
    fn take(&mut self, said: &Element) -> usize {
        let messages = messages(said);
        let mut heard = lock(&self.heard);
        for (watched, last) in &mut *heard {
            if let Some(said) = messages.iter().filter_map(|message| watched.topic.of(message)).next_back() {
                *last = match said {
                    Said::Value(text) => watched.payload.value(text.as_bytes()),
                    Said::Deleted => Err(Fault::NoValue("the camera says that it is no more".to_owned())),
                    Said::Nothing(reason) => Err(Fault::NoValue(reason)),
                };
            }
            self.values.push(watched.place, last.clone());
        }
        messages.len()
    }

    /// What was said before is no longer known to be so.
    fn tell_all(&self, fault: &Fault) {
        for (watched, last) in &mut *lock(&self.heard) {
            *last = Err(fault.clone());
            self.values.push(watched.place, Err(fault.clone()));
        }
    }
}

fn nothing_yet() -> Fault {
    Fault::NoValue("no message of this `topic` has come".to_owned())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
