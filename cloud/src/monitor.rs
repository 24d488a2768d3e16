//! The admin endpoint: health, readiness, and the state of every actor. It asks for no credential and so listens on loopback; health
//! alone may be asked for from elsewhere, too.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::{
    Actor, ActorState, Address, Clock, Context, Fault, HiveReport, Inspector, Liveness, Message, Metrics,
};
use cloud_hub::ClockDoubt;
use cloud_stream::Checks;
use http::{Method, Request, StatusCode};
use https::{Answer, Event, Handler, Http, Limits, Peer, Port, Server, body};
use hyper::body::Incoming;
use kubewatch::Interruptions;
use thiserror::Error;
use tokio::sync::oneshot;

use crate::request_counts::RequestCounts;
use crate::{metrics, process_metrics};

/// 2 s: an actor that is busy for longer shows no snapshot.
const PATIENCE: Duration = Duration::from_secs(2);
/// 1 s for answers in hand when it stops.
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(1);

/// 30 s: a watch that has broken off for so long is named. A shorter break heals by itself all the time.
const BROKEN_FOR: Duration = Duration::from_secs(30);
/// 5 min: a CloudCore that has not seen what the API server holds for so long is not ready. Others may be: it takes no new node by a
/// Service meanwhile. An API server that is exchanged is away for less.
const UNREADY_AFTER: Duration = Duration::from_secs(300);
/// What there is.
const PATHS: &str = "/healthz: whether CloudCore works\n/livez: whether a new start would mend nothing\n/readyz: whether it sees what the API server holds, too\n/metrics: Prometheus' text format\n/state: every actor, as JSON\n";

/// 64 connections at once of the whole endpoint: scrapers and people are few.
pub(crate) const LIMITS: Limits = Limits {
    strangers: 64,
    strangers_per_address: 64,
    yields_after: Duration::ZERO,
    users: 0,
    connections_per_user: 0,
    reserved: 0,
    handshakes: None,
    handshake_within: Duration::from_secs(5),
    credential_within: None,
    head_within: Duration::from_secs(30),
    answer_within: Some(Duration::from_secs(10)),
    taken_within: Duration::from_secs(30),
    head_bytes: 16 << 10,
    header_fields: 64,
    keep_alive: true,
    // HTTP/1.1 alone is spoken.
    streams_per_connection: 1,
};
/// 64 probes at once, 32 of one address, each of which has 5 s to ask and asks once.
pub(crate) const PROBES: Limits =
    Limits { strangers_per_address: 32, head_within: Duration::from_secs(5), keep_alive: false, ..LIMITS };

/// Why the endpoint is not there.
#[derive(Debug, Error)]
#[error("cannot listen at {address}: free the port, or change commonConfig.monitorServer.{key}")]
pub struct MonitorError {
    address: SocketAddr,
    key: &'static str,
    #[source]
    source: std::io::Error,
}

impl MonitorError {
    pub(crate) fn of(address: SocketAddr, key: &'static str, source: std::io::Error) -> Self {
        MonitorError { address, key, source }
    }
}

/// The ports of the endpoint, which outlive its incarnations.
#[derive(Clone)]
pub struct MonitorPorts {
    all: Rc<Port>,
    healthz: Option<Rc<Port>>,
}

impl MonitorPorts {
    /// Binds the port of everything, and the one of health alone.
    ///
    /// # Errors
    /// When a port is taken.
    pub fn bind(address: SocketAddr, healthz: Option<SocketAddr>) -> Result<Self, MonitorError> {
        let bind = |address, key| {
            Port::bind(address).map(Rc::new).map_err(|source| MonitorError { address, key, source })
        };
        let all = bind(address, "bindAddress")?;
        let healthz = healthz.map(|address| bind(address, "healthzBindAddress")).transpose()?;
        Ok(MonitorPorts { all, healthz })
    }

    /// Each port, with its setting and the one of these that is of its kind: of everything, or of health alone.
    pub(crate) fn each<T>(&self, all: T, health: T) -> impl Iterator<Item = (&Port, &'static str, T)> {
        let healthz = self.healthz.as_deref().map(|port| (port, "healthzBindAddress", health));
        [(&*self.all, "bindAddress", all)].into_iter().chain(healthz)
    }

    /// Where everything is answered.
    pub fn address(&self) -> SocketAddr {
        self.all.address()
    }

    /// Where health alone is answered, if it is.
    pub fn healthz(&self) -> Option<SocketAddr> {
        self.healthz.as_ref().map(|port| port.address())
    }
}

/// Messages to the endpoint: from its own servers.
#[derive(Debug)]
pub enum MonitorMsg {
    /// Somebody wants the state of every actor.
    Report(oneshot::Sender<HiveReport>),
    /// A server has ended by itself.
    ServerEnded,
}

impl Message for MonitorMsg {
    fn name(&self) -> &'static str {
        match self {
            MonitorMsg::Report(_) => "Report",
            MonitorMsg::ServerEnded => "ServerEnded",
        }
    }
}

/// What is said beside the state of the actors.
#[derive(Clone, Default)]
pub struct Watched {
    /// Which watches have broken off.
    pub interruptions: Interruptions,
    /// What of this CloudCore's settings and of the kubelet endpoints is found wrong.
    pub checks: Checks,
    /// Whether this machine's clock and the API server's are apart.
    pub clock_doubt: ClockDoubt,
    /// How requests to the API server have ended.
    pub requests: RequestCounts,
}

/// Serves `/healthz`, `/livez`, `/readyz`, `/state` and `/metrics` at one port, and the first three alone at the other.
pub struct Monitor {
    ports: MonitorPorts,
    inspector: Inspector,
    watched: Watched,
    servers: Vec<Server>,
}

impl Monitor {
    /// An endpoint at `ports` that shows what `inspector` reads, and what is `watched` beside the actors.
    pub fn new(ports: MonitorPorts, inspector: Inspector, watched: Watched) -> Self {
        Monitor { ports, inspector, watched, servers: Vec::new() }
    }

    fn serve(
        &mut self,
        name: &'static str,
        port: &Port,
        shows: PageSet,
        cx: &Context<MonitorMsg>,
    ) -> Result<(), Fault> {
        let limits = if shows == PageSet::Everything { LIMITS } else { PROBES };
        let (metrics, monitor) = (cx.env().metrics().clone(), cx.myself());
        let liveness = self.inspector.liveness();
        let on_event = move |event| count(&metrics, event);
        let (watched, clock) = (self.watched.clone(), cx.env().clock());
        let pages = move || Http::new(Pages { shows, monitor, liveness, watched, clock });
        let server = Server::start(name, port, None, limits, cx.env().clock(), on_event, pages);
        let server = server.map_err(|error| Fault::from_error(&error))?;
        server.tell_end(cx, MonitorMsg::ServerEnded);
        self.servers.push(server);
        Ok(())
    }
}

impl Actor for Monitor {
    type Message = MonitorMsg;

    async fn started(&mut self, cx: &mut Context<MonitorMsg>) -> Result<(), Fault> {
        let MonitorPorts { all, healthz } = self.ports.clone();
        self.serve("monitor", &all, PageSet::Everything, cx)?;
        if let Some(port) = healthz {
            self.serve("healthz", &port, PageSet::HealthAlone, cx)?;
        }
        tracing::info!(address = %self.ports.address(), "admin endpoint listens");
        Ok(())
    }

    async fn handle(&mut self, message: MonitorMsg, cx: &mut Context<MonitorMsg>) -> Result<(), Fault> {
        match message {
            MonitorMsg::Report(answer) => {
                let inspector = self.inspector.clone();
                // Beside: the inspector looks at this actor, too.
                cx.spawn(async move { drop(answer.send(inspector.report(PATIENCE).await)) });
                Ok(())
            }
            MonitorMsg::ServerEnded => Err(Fault::new("a server of the admin endpoint has ended by itself")),
        }
    }

    async fn stopping(&mut self, _: &mut Context<MonitorMsg>) {
        futures::future::join_all(self.servers.iter().map(|server| server.stop(STOP_GRACE))).await;
    }

    fn snapshot(&self) -> serde_json::Value {
        let counts: Vec<_> = self.servers.iter().map(Server::counts).collect();
        serde_json::json!({ "address": self.ports.address().to_string(), "connections": counts })
    }
}

fn count(metrics: &Metrics, event: Event) {
    let name = match event {
        Event::Refused => "monitor_connections_refused",
        Event::Displaced => "monitor_connections_displaced",
        Event::HandshakeFailed => "monitor_handshakes_failed",
        Event::AnswerLate => "monitor_answers_late",
        Event::Panicked => "monitor_handlers_panicked",
        Event::AcceptFailed => "monitor_accepts_failed",
    };
    metrics.add(name, 1);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PageSet {
    Everything,
    HealthAlone,
}

/// The pages, on a server's thread.
struct Pages {
    shows: PageSet,
    monitor: Address<MonitorMsg>,
    /// What is known of the hive's thread without it.
    liveness: Liveness,
    watched: Watched,
    clock: Arc<dyn Clock>,
}

impl Handler for Pages {
    async fn handle(&self, request: Request<Incoming>, _: &Peer) -> Answer {
        let page: fn(&Self, &HiveReport) -> Answer = match (request.uri().path(), self.shows) {
            ("/healthz", _) => Pages::health,
            ("/livez", _) => {
                |_, report| sick(report).unwrap_or_else(|| body::sentence(StatusCode::OK, "ok\n"))
            }
            ("/readyz", _) => Pages::readiness,
            ("/state", PageSet::Everything) => |_, report| state(report),
            ("/metrics", PageSet::Everything) => Pages::metrics,
            ("/", PageSet::Everything) => return body::sentence(StatusCode::OK, PATHS),
            _ => return body::sentence(StatusCode::NOT_FOUND, "there is nothing here\n"),
        };
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return body::sentence(StatusCode::METHOD_NOT_ALLOWED, "GET alone\n");
        }
        if let Some(blocked) = self.liveness.blocked() {
            return body::sentence(StatusCode::SERVICE_UNAVAILABLE, format!("{blocked}\n"));
        }
        match self.report().await {
            Some(report) => page(self, &report),
            None => body::sentence(StatusCode::SERVICE_UNAVAILABLE, "no answer from the actors\n"),
        }
    }
}

impl Pages {
    /// 503 for what a new start may mend: an actor that does not run. A watch that has broken off is said and no reason to start
    /// anew: nodes that are linked stay so meanwhile, and a new CloudCore would find the same API server. So is a check that failed.
    fn health(&self, report: &HiveReport) -> Answer {
        sick(report).unwrap_or_else(|| {
            let checks = self.watched.checks.said().into_iter().map(|check| format!("{check}\n"));
            let clock = self.watched.clock_doubt.says(&*self.clock).map(|words| format!("Clock: {words}\n"));
            let said: String = self.broken_for(BROKEN_FOR).chain(checks).chain(clock).collect();
            body::sentence(StatusCode::OK, format!("ok\n{said}"))
        })
    }

    /// 503, too, for a watch that has been broken for long: whoever may choose takes another CloudCore.
    fn readiness(&self, report: &HiveReport) -> Answer {
        sick(report).unwrap_or_else(|| {
            let broken: String = self.broken_for(UNREADY_AFTER).collect();
            match broken.as_str() {
                "" => self.health(report),
                _ => body::sentence(StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{broken}")),
            }
        })
    }

    /// A line for each resource whose watch broke off so long ago and has not listed since.
    fn broken_for(&self, least: Duration) -> impl Iterator<Item = String> {
        let now = self.clock.now();
        let broken = self.watched.interruptions.list().into_iter();
        broken.map(move |(resource, since)| (resource, now.since(since))).filter(move |(_, of)| *of >= least).map(
            |(resource, of)| {
                let seconds = of.as_secs();
                format!("the watch of {resource} broke off {seconds} s ago and has not listed again: see the log\n")
            },
        )
    }

    fn metrics(&self, report: &HiveReport) -> Answer {
        let text = metrics::text(report) + &self.watched.requests.text() + &process_metrics::text();
        body::answer(StatusCode::OK, "text/plain; version=0.0.4", text)
    }

    /// `None`: too many ask, or the hive has ended.
    async fn report(&self) -> Option<HiveReport> {
        let (answer, report) = oneshot::channel();
        self.monitor.try_tell(MonitorMsg::Report(answer)).ok()?;
        report.await.ok()
    }
}

/// 503 if there is an actor that does not run.
fn sick(report: &HiveReport) -> Option<Answer> {
    let sick = report.actors.iter().filter(|actor| actor.state != ActorState::Running);
    let sick: Vec<&str> = sick.map(|actor| actor.name.as_str()).collect();
    let said = format!("not running: {}\n", sick.join(", "));
    (!sick.is_empty()).then(|| body::sentence(StatusCode::SERVICE_UNAVAILABLE, said))
}

fn state(report: &HiveReport) -> Answer {
    match serde_json::to_vec(report) {
        Ok(json) => body::answer(StatusCode::OK, "application/json", json),
        Err(error) => body::sentence(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use beehive::{Capacity, Env, Flow, Hive, Policy};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const LONG: Duration = Duration::from_secs(20);

    /// The whole of an answer.
    async fn get(at: SocketAddr, path: &str) -> String {
        let Ok(mut stream) = tokio::net::TcpStream::connect(at).await else { return String::new() };
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let mut answer = String::new();
        let _ = stream.write_all(request.as_bytes()).await;
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    struct Faulty;

    #[derive(Debug)]
    struct Fail;

    impl Message for Fail {
        fn name(&self) -> &'static str {
            "Fail"
        }
    }

    impl Actor for Faulty {
        type Message = Fail;

        async fn handle(&mut self, _: Fail, _: &mut Context<Fail>) -> Result<(), Fault> {
            panic!("on purpose")
        }
    }

    struct Fixture {
        env: Env,
        hive: Hive,
        ports: MonitorPorts,
        monitor: Address<MonitorMsg>,
        fail: Address<Fail>,
    }

    fn run(test: impl AsyncFnOnce(Fixture)) {
        run_with(Env::real(), Watched::default(), test);
    }

    fn run_with(env: Env, watched: Watched, test: impl AsyncFnOnce(Fixture)) {
        actix_rt::System::new().block_on(async {
            let mut hive = Hive::new("cloudcore", env.clone());
            let any = "127.0.0.1:0".parse().unwrap();
            let ports = MonitorPorts::bind(any, Some(any)).unwrap();
            let faulty = hive.mailbox::<Fail>("faulty", Capacity::new(4, "a test's choice"));
            let mailbox = hive.mailbox("monitor", Capacity::new(16, "a test's choice"));
            let fail = hive.grant("a test", &faulty, Flow::Tell);
            let monitor = hive.grant("a test", &mailbox, Flow::Tell);
            hive.supervise(
                faulty,
                Policy { backoff_min: LONG, backoff_max: LONG, ..Policy::default() },
                || Faulty,
            );
            let (kept, inspector) = (ports.clone(), hive.inspector());
            hive.supervise(mailbox, Policy::default(), move || {
                Monitor::new(kept.clone(), inspector.clone(), watched.clone())
            });
            hive.open().unwrap();
            test(Fixture { env, hive, ports, monitor, fail }).await;
        });
    }

    #[test]
    fn the_port_of_health_tells_nothing_else() {
        run(async |fixture| {
            let (all, health) = (fixture.ports.address(), fixture.ports.healthz().unwrap());
            assert!(get(health, "/healthz").await.starts_with("HTTP/1.1 200 OK"));
            for path in ["/state", "/metrics", "/", "/healthz/../state"] {
                assert!(get(health, path).await.starts_with("HTTP/1.1 404 Not Found"), "{path}");
            }
            let metrics = get(all, "/metrics").await;
            assert!(metrics.starts_with("HTTP/1.1 200 OK"), "{metrics}");
            assert!(metrics.contains("kubehive_actor_restarts_total{actor=\"monitor\"} 0"), "{metrics}");
            assert!(metrics.contains("\nprocess_resident_memory_bytes "), "{metrics}");
            assert!(get(all, "/state").await.contains("\"daemon\":\"cloudcore\""));
            let paths = get(all, "/").await;
            assert!(paths.starts_with("HTTP/1.1 200 OK") && paths.contains("/metrics"), "{paths}");
        });
    }

    /// Ten minutes after it was made, and still going.
    struct Later(Arc<dyn Clock>);

    impl Clock for Later {
        fn now(&self) -> beehive::Moment {
            self.0.now() + Duration::from_secs(600)
        }

        fn wall(&self) -> std::time::SystemTime {
            self.0.wall()
        }

        fn sleep(&self, pause: Duration) -> futures::future::BoxFuture<'static, ()> {
            self.0.sleep(pause)
        }
    }

    #[test]
    fn a_watch_that_is_broken_for_long_makes_it_unready_by_name_and_a_short_break_does_not() {
        let env = Env::real().with_clock(Arc::new(Later(Env::real().clock())));
        let watched = Watched::default();
        let short = watched.interruptions.begin("services", env.now());
        let interruptions = watched.interruptions.clone();
        run_with(env, watched, async move |fixture| {
            let (all, health) = (fixture.ports.address(), fixture.ports.healthz().unwrap());
            assert!(get(all, "/readyz").await.starts_with("HTTP/1.1 200 OK"));
            let long = interruptions.begin("pods", beehive::Moment(Duration::from_secs(290)));
            for at in [all, health] {
                let ready = get(at, "/readyz").await;
                assert!(ready.starts_with("HTTP/1.1 503 "), "{ready}");
                assert!(ready.contains("the watch of pods") && !ready.contains("services"), "{ready}");
                // A new start would mend neither.
                for path in ["/healthz", "/livez"] {
                    assert!(get(at, path).await.starts_with("HTTP/1.1 200 OK"), "{path}");
                }
            }
            drop(long);
            assert!(get(all, "/readyz").await.starts_with("HTTP/1.1 200 OK"));
            drop(short);
        });
    }

    #[test]
    fn an_actor_that_does_not_run_is_named() {
        run(async |fixture| {
            fixture.fail.tell(Fail).await.unwrap();
            let named = async {
                while !get(fixture.ports.address(), "/healthz").await.ends_with("not running: faulty\n") {
                    fixture.env.sleep(Duration::from_millis(10)).await;
                }
            };
            fixture.env.timeout(LONG, named).await.expect("it is not named");
            for path in ["/livez", "/readyz"] {
                assert!(get(fixture.ports.address(), path).await.starts_with("HTTP/1.1 503 "), "{path}");
            }
        });
    }

    #[test]
    fn after_a_fault_both_ports_are_served_again_and_at_the_end_none_is() {
        run(async |fixture| {
            let (all, health) = (fixture.ports.address(), fixture.ports.healthz().unwrap());
            fixture.monitor.tell(MonitorMsg::ServerEnded).await.unwrap();
            let restarted = async {
                loop {
                    let report = fixture.hive.inspector().report(PATIENCE).await;
                    let monitor = report.actor("monitor").unwrap();
                    if monitor.restarts == 1 && monitor.state == ActorState::Running {
                        return;
                    }
                    fixture.env.sleep(Duration::from_millis(10)).await;
                }
            };
            fixture.env.timeout(LONG, restarted).await.expect("it is not restarted");
            for at in [all, health] {
                assert!(get(at, "/healthz").await.starts_with("HTTP/1.1 200 OK"));
            }
            let Fixture { hive, ports, .. } = fixture;
            assert_eq!(hive.shutdown(LONG).await, beehive::Ended::InOrder);
            drop(ports);
            for at in [all, health] {
                let refused = async {
                    while tokio::net::TcpStream::connect(at).await.is_ok() {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                };
                tokio::time::timeout(LONG, refused).await.expect("somebody listens");
            }
        });
    }
}
