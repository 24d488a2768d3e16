//! The admin endpoint: health, and the state of every actor. It asks for no credential and so listens on loopback; health
//! alone may be asked for from elsewhere, too.

use std::net::SocketAddr;
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use actix_web::http::KeepAlive;
use actix_web::{App, HttpResponse, HttpServer, web};
use beehive::{ActorState, Env, HiveReport, Inspector, Pulse};
use serde_json::Value;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

/// 2 s: an actor that is busy for longer shows no snapshot.
const PATIENCE: Duration = Duration::from_secs(2);
/// 16 readers at once.
const READERS: usize = 16;

/// 64 connections at once to the port of health alone, each of which has 5 s to ask: probes are few and quick.
const PROBES: usize = 64;
const PROBE_WITHIN: Duration = Duration::from_secs(5);

/// Why the endpoint is not there.
#[derive(Debug, Error)]
#[error("cannot listen at {address}: free the port, or change commonConfig.monitorServer.{key}")]
pub struct MonitorError {
    address: SocketAddr,
    key: &'static str,
    #[source]
    source: std::io::Error,
}

/// The way to the hive's thread, and what is known of that thread without it.
#[derive(Clone)]
struct Ask {
    reports: mpsc::Sender<oneshot::Sender<HiveReport>>,
    pulse: Pulse,
}

/// The running endpoint.
pub struct Monitor {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where health alone is answered, if it is.
    pub healthz: Option<SocketAddr>,
    handles: Vec<ServerHandle>,
}

impl Monitor {
    /// Serves `/healthz`, `/state` and `/metrics` at `address`, and `/healthz` alone at `healthz`.
    ///
    /// # Errors
    /// When a port is taken.
    pub fn start(
        address: SocketAddr,
        healthz: Option<SocketAddr>,
        inspector: Inspector,
        env: &Env,
    ) -> Result<Self, MonitorError> {
        let (reports, mut asked): (mpsc::Sender<oneshot::Sender<HiveReport>>, _) = mpsc::channel(READERS);
        let ask = Ask { reports, pulse: inspector.pulse() };
        // The hive lives on this thread, the endpoint on one of its own.
        env.spawn(async move {
            while let Some(answer) = asked.recv().await {
                let _ = answer.send(inspector.report(PATIENCE).await);
            }
        });
        let all = ask.clone();
        let server = HttpServer::new(move || {
            App::new()
                .app_data(web::Data::new(all.clone()))
                .route("/healthz", web::get().to(health))
                .route("/state", web::get().to(state))
                .route("/metrics", web::get().to(metrics))
        });
        let server = server.workers(1).disable_signals().bind(address);
        let server = server.map_err(|source| MonitorError { address, key: "bindAddress", source })?;
        let mut monitor = Monitor {
            address: server.addrs().first().copied().unwrap_or(address),
            healthz,
            handles: Vec::new(),
        };
        monitor.run(server.run());
        if let Some(at) = healthz {
            let server = HttpServer::new(move || {
                App::new().app_data(web::Data::new(ask.clone())).route("/healthz", web::get().to(health))
            });
            let server = server.workers(1).disable_signals().max_connections(PROBES);
            let server = server.client_request_timeout(PROBE_WITHIN).keep_alive(KeepAlive::Disabled).bind(at);
            let server =
                server.map_err(|source| MonitorError { address: at, key: "healthzBindAddress", source })?;
            monitor.healthz = server.addrs().first().copied();
            monitor.run(server.run());
        }
        Ok(monitor)
    }

    fn run(&mut self, server: Server) {
        self.handles.push(server.handle());
        actix_rt::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "admin endpoint ended");
            }
        });
    }

    /// Stops listening.
    pub async fn stop(self) {
        for handle in self.handles {
            handle.stop(false).await;
        }
    }
}

/// The report, or why there is none.
async fn report(ask: &Ask) -> Result<HiveReport, HttpResponse> {
    if let Some(blocked) = ask.pulse.blocked() {
        return Err(HttpResponse::ServiceUnavailable().body(format!("{blocked}\n")));
    }
    let (answer, report) = oneshot::channel();
    let report = async {
        ask.reports.send(answer).await.ok()?;
        report.await.ok()
    };
    report.await.ok_or_else(|| HttpResponse::ServiceUnavailable().body("the hive has ended\n"))
}

async fn health(ask: web::Data<Ask>) -> HttpResponse {
    let report = match report(&ask).await {
        Ok(report) => report,
        Err(answer) => return answer,
    };
    let sick: Vec<&str> =
        report.actors.iter().filter(|a| a.state != ActorState::Running).map(|a| a.name.as_str()).collect();
    if sick.is_empty() {
        HttpResponse::Ok().body("ok\n")
    } else {
        HttpResponse::ServiceUnavailable().body(format!("not running: {}\n", sick.join(", ")))
    }
}

async fn state(ask: web::Data<Ask>) -> HttpResponse {
    match report(&ask).await {
        Ok(report) => HttpResponse::Ok().json(report),
        Err(answer) => answer,
    }
}

/// `connected_nodes` is KubeEdge's one gauge; the others say of each node whether it holds what it should.
async fn metrics(ask: web::Data<Ask>) -> HttpResponse {
    let report = match report(&ask).await {
        Ok(report) => report,
        Err(answer) => return answer,
    };
    let snapshot = |name| report.actors.iter().find(|actor| actor.name == name).map(|actor| &actor.snapshot);
    let null = Value::Null;
    let hub = snapshot("cloud-hub").unwrap_or(&null);
    let sync = snapshot("cloud-synccontroller").unwrap_or(&null);
    let router = snapshot("cloud-router").unwrap_or(&null);
    let nodes = hub["nodes"].as_object().map_or(0, serde_json::Map::len);
    let mut text = format!(
        "# HELP KubeEdge_CloudCore_connected_nodes Number of nodes that connected to the cloudHub instance\n\
         # TYPE KubeEdge_CloudCore_connected_nodes gauge\nKubeEdge_CloudCore_connected_nodes {nodes}\n"
    );
    node_metrics(&mut text, hub, sync, router);
    HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(text)
}

/// One gauge or counter of each node: its name, what it says, and its value from a node's view, with more labels.
type Series = (&'static str, &'static str, &'static str, fn(&Value) -> Option<(String, String)>);

/// From SyncController's view of a node.
const OF_SYNC: [Series; 7] = [
    ("kubehive_node_linked", "gauge", "Whether this CloudCore has a session with the node", |node| {
        flag(&node["linked"])
    }),
    ("kubehive_node_in_sync", "gauge", "Whether the node has confirmed all that it should hold", |node| {
        flag(&node["in_sync"])
    }),
    ("kubehive_node_objects_desired", "gauge", "Objects that the node should hold", |node| {
        plain(&node["desired"])
    }),
    ("kubehive_node_objects_waiting", "gauge", "Objects that the node has not confirmed", |node| {
        plain(&node["waiting"])
    }),
    (
        "kubehive_node_oldest_waiting_seconds",
        "gauge",
        "How long the object that waits longest has waited",
        |node| {
            let label = format!(",object=\"{}\"", escaped(node["oldest"]["object"].as_str()?));
            plain(&node["oldest"]["seconds"]).map(|(_, value)| (label, value))
        },
    ),
    (
        "kubehive_node_last_confirmed_timestamp_seconds",
        "gauge",
        "When the node last confirmed anything, since 1970",
        |node| plain(&node["last_confirmed"]),
    ),
    ("kubehive_node_refused_batches_total", "counter", "Batches that the node refused", |node| {
        plain(&node["refused"])
    }),
];

/// From CloudHub's view of a node.
const OF_HUB: [Series; 2] = [
    (
        "kubehive_node_link_received_bytes_total",
        "counter",
        "Bytes of frames from the node in this session",
        |node| plain(&node["bytesIn"]),
    ),
    (
        "kubehive_node_link_sent_bytes_total",
        "counter",
        "Bytes of frames to the node in this session",
        |node| plain(&node["bytesOut"]),
    ),
];

/// From CloudRouter's view of a node. It remembers a known number of nodes, those that were heard last; its sources have no
/// lines, for their names are the clients' choice.
const OF_ROUTER: [Series; 4] = [
    (
        "kubehive_node_telemetry_received_total",
        "counter",
        "Messages of MQTT clients of the node that arrived, each counted once",
        |node| plain(&node["received"]),
    ),
    (
        "kubehive_node_telemetry_repeats_total",
        "counter",
        "Messages of MQTT clients of the node that arrived again",
        |node| plain(&node["repeats"]),
    ),
    (
        "kubehive_node_telemetry_missing_total",
        "counter",
        "Messages of QoS 0 that the node had no room for",
        |node| plain(&node["missing"]),
    ),
    (
        "kubehive_node_telemetry_refused_total",
        "counter",
        "Messages from the node that no node of ours sends",
        |node| plain(&node["refused"]),
    ),
];

fn node_metrics(text: &mut String, hub: &Value, sync: &Value, router: &Value) {
    let of_sync = OF_SYNC.iter().map(|series| (series, sync));
    let of_hub = OF_HUB.iter().map(|series| (series, &hub["nodes"]));
    let of_router = OF_ROUTER.iter().map(|series| (series, &router["nodes"]));
    for ((name, kind, help, value), nodes) in of_sync.chain(of_hub).chain(of_router) {
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        for (node, view) in nodes.as_object().into_iter().flatten() {
            // Of a node that was never here another CloudCore knows.
            let is_strange = view["linked"] == false && view["last_confirmed"].is_null();
            if let Some((labels, value)) = value(view).filter(|_| !is_strange) {
                text.push_str(&format!("{name}{{node=\"{}\"{labels}}} {value}\n", escaped(node)));
            }
        }
    }
}

fn plain(value: &Value) -> Option<(String, String)> {
    value.is_number().then(|| (String::new(), value.to_string()))
}

fn flag(value: &Value) -> Option<(String, String)> {
    value.as_bool().map(|flag| (String::new(), u8::from(flag).to_string()))
}

/// A label's value as Prometheus reads it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The first line of an answer.
    async fn get(at: SocketAddr, path: &str) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.lines().next().unwrap_or_default().to_owned()
    }

    #[test]
    fn the_port_of_health_tells_nothing_else() {
        actix_rt::System::new().block_on(async {
            let env = Env::real();
            let hive = beehive::Hive::new("cloudcore", env.clone());
            let any = "127.0.0.1:0".parse().unwrap();
            let monitor = Monitor::start(any, Some(any), hive.inspector(), &env).unwrap();
            let health = monitor.healthz.unwrap();
            assert_eq!(get(health, "/healthz").await, "HTTP/1.1 200 OK");
            for path in ["/state", "/metrics", "/", "/healthz/../state"] {
                assert_eq!(get(health, path).await, "HTTP/1.1 404 Not Found", "{path}");
            }
            assert_eq!(get(monitor.address, "/metrics").await, "HTTP/1.1 200 OK");
            monitor.stop().await;
        });
    }

    #[test]
    fn every_node_has_its_line_and_what_is_unknown_has_none() {
        let sync = json!({
            "edge-0": {"linked": false, "in_sync": false, "waiting": 9, "last_confirmed": null},
            "edge-1": {"linked": true, "in_sync": false, "desired": 7, "waiting": 2, "refused": 3, "last_confirmed": 1_700_000_000,
                "oldest": {"object": "pods/d/a\"b", "seconds": 5}},
            "edge-2": {"in_sync": true, "desired": 1, "waiting": 0, "refused": 0, "last_confirmed": null,
                "oldest": null},
        });
        let hub = json!({"nodes": {"edge-1": {"bytesIn": 10, "bytesOut": 20}}});
        let router = json!({"received": 9, "nodes": {"edge-1": {
            "received": 5, "missing": 1, "repeats": 2, "refused": 0, "sources": [{"client": "c", "received": 5}]}}});
        let mut text = String::new();
        node_metrics(&mut text, &hub, &sync, &router);
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let expected = [
            "kubehive_node_linked{node=\"edge-1\"} 1",
            "kubehive_node_in_sync{node=\"edge-1\"} 0",
            "kubehive_node_in_sync{node=\"edge-2\"} 1",
            "kubehive_node_objects_desired{node=\"edge-1\"} 7",
            "kubehive_node_objects_desired{node=\"edge-2\"} 1",
            "kubehive_node_objects_waiting{node=\"edge-1\"} 2",
            "kubehive_node_objects_waiting{node=\"edge-2\"} 0",
            "kubehive_node_oldest_waiting_seconds{node=\"edge-1\",object=\"pods/d/a\\\"b\"} 5",
            "kubehive_node_last_confirmed_timestamp_seconds{node=\"edge-1\"} 1700000000",
            "kubehive_node_refused_batches_total{node=\"edge-1\"} 3",
            "kubehive_node_refused_batches_total{node=\"edge-2\"} 0",
            "kubehive_node_link_received_bytes_total{node=\"edge-1\"} 10",
            "kubehive_node_link_sent_bytes_total{node=\"edge-1\"} 20",
            "kubehive_node_telemetry_received_total{node=\"edge-1\"} 5",
            "kubehive_node_telemetry_repeats_total{node=\"edge-1\"} 2",
            "kubehive_node_telemetry_missing_total{node=\"edge-1\"} 1",
            "kubehive_node_telemetry_refused_total{node=\"edge-1\"} 0",
        ];
        assert_eq!(lines, expected);
        node_metrics(&mut text, &Value::Null, &Value::Null, &Value::Null);
    }
}
