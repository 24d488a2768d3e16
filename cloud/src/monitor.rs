//! The admin endpoint: health, and the state of every actor.

use std::net::SocketAddr;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpResponse, HttpServer, web};
use beehive::{ActorState, Env, HiveReport, Inspector};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

/// 2 s: an actor that is busy for longer shows no snapshot.
const PATIENCE: Duration = Duration::from_secs(2);
/// 16 readers at once.
const READERS: usize = 16;

/// Why the endpoint is not there.
#[derive(Debug, Error)]
#[error("cannot listen at {address}: free the port, or change commonConfig.monitorServer.bindAddress")]
pub struct MonitorError {
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

type Ask = mpsc::Sender<oneshot::Sender<HiveReport>>;

/// The running endpoint.
pub struct Monitor {
    /// Where it listens.
    pub address: SocketAddr,
    handle: ServerHandle,
}

impl Monitor {
    /// Serves `/healthz`, `/state` and `/metrics` at `address`.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(address: SocketAddr, inspector: Inspector, env: &Env) -> Result<Self, MonitorError> {
        let (ask, mut asked): (mpsc::Sender<oneshot::Sender<HiveReport>>, _) = mpsc::channel(READERS);
        // The hive lives on this thread, the endpoint on one of its own.
        env.spawn(async move {
            while let Some(answer) = asked.recv().await {
                let _ = answer.send(inspector.report(PATIENCE).await);
            }
        });
        let server = HttpServer::new(move || {
            App::new()
                .app_data(web::Data::new(ask.clone()))
                .route("/healthz", web::get().to(health))
                .route("/state", web::get().to(state))
                .route("/metrics", web::get().to(metrics))
        })
        .workers(1)
        .disable_signals()
        .bind(address)
        .map_err(|source| MonitorError { address, source })?;
        let address = server.addrs().first().copied().unwrap_or(address);
        let server = server.run();
        let handle = server.handle();
        actix_rt::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "admin endpoint ended");
            }
        });
        Ok(Monitor { address, handle })
    }

    /// Stops listening.
    pub async fn stop(self) {
        self.handle.stop(false).await;
    }
}

async fn report(ask: &Ask) -> Option<HiveReport> {
    let (answer, report) = oneshot::channel();
    ask.send(answer).await.ok()?;
    report.await.ok()
}

async fn health(ask: web::Data<Ask>) -> HttpResponse {
    let Some(report) = report(&ask).await else {
        return HttpResponse::ServiceUnavailable().body("the hive has ended\n");
    };
    let sick: Vec<&str> =
        report.actors.iter().filter(|a| a.state != ActorState::Running).map(|a| a.name).collect();
    if sick.is_empty() {
        HttpResponse::Ok().body("ok\n")
    } else {
        HttpResponse::ServiceUnavailable().body(format!("not running: {}\n", sick.join(", ")))
    }
}

async fn state(ask: web::Data<Ask>) -> HttpResponse {
    match report(&ask).await {
        Some(report) => HttpResponse::Ok().json(report),
        None => HttpResponse::ServiceUnavailable().body("the hive has ended\n"),
    }
}

/// `connected_nodes` is KubeEdge's one gauge.
async fn metrics(ask: web::Data<Ask>) -> HttpResponse {
    let Some(report) = report(&ask).await else {
        return HttpResponse::ServiceUnavailable().body("the hive has ended\n");
    };
    let nodes = report
        .actors
        .iter()
        .find(|actor| actor.name == "cloud-hub")
        .and_then(|hub| hub.snapshot["nodes"].as_object())
        .map_or(0, serde_json::Map::len);
    let text = format!(
        "# HELP KubeEdge_CloudCore_connected_nodes Number of nodes that connected to the cloudHub instance\n\
         # TYPE KubeEdge_CloudCore_connected_nodes gauge\nKubeEdge_CloudCore_connected_nodes {nodes}\n"
    );
    HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(text)
}
