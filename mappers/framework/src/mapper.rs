//! A mapper's life: serve, register, register again.

use std::future::Future;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dmi::SocketError;
use dmi::v1beta1::MapperInfo;
use dmi::v1beta1::device_mapper_service_server::DeviceMapperServiceServer;
use thiserror::Error;
use tokio::sync::watch;
use tonic::transport::Server;

use crate::backoff::Backoff;
use crate::config::Config;
use crate::edgecore::{EdgeCore, described};
use crate::protocol::Protocol;
use crate::service::Service;
use crate::table::Table;

/// Between two tries to register: soon, because edgecore is on the same machine.
const REGISTER_FIRST: Duration = Duration::from_millis(200);
/// The longest wait, so that a mapper is back soon after a long repair.
const REGISTER_CAP: Duration = Duration::from_secs(5);
/// What KubeEdge's framework says of a mapper that runs.
const STATE: &str = "ok";

/// Why a mapper ended.
#[derive(Debug, Error)]
pub enum MapperError {
    /// Its socket cannot be served.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Serving its socket failed.
    #[error("serving on {} failed", path.display())]
    Serve {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: tonic::transport::Error,
    },
    /// The config is for another protocol.
    #[error(
        "the config says protocol `{configured}`, and this mapper speaks `{spoken}`; set common.protocol"
    )]
    Protocol {
        /// What the config says.
        configured: String,
        /// What the mapper speaks.
        spoken: String,
    },
}

/// Runs a mapper until `end` comes true.
///
/// # Errors
/// When its own socket cannot be served. An edgecore that is away is no error: the mapper waits for it.
pub async fn run<P: Protocol>(
    config: &Config,
    protocol: P,
    end: impl Future<Output = ()>,
) -> Result<(), MapperError> {
    let common = &config.common;
    if common.protocol != protocol.name() {
        let (configured, spoken) = (common.protocol.clone(), protocol.name().to_owned());
        return Err(MapperError::Protocol { configured, spoken });
    }
    if !common.http_port.is_empty() {
        tracing::info!(port = common.http_port, "the mapper's REST interface is not served yet");
    }
    let path = config.grpc_server.socket_path.clone();
    // Served before the registration, because edgecore may call back at once.
    let listener = dmi::listen(&path)?;
    let (edgecore, losses) = EdgeCore::at(&common.edgecore_sock);
    let table = Arc::new(Table::new(Arc::new(protocol), edgecore.clone()));
    let service = DeviceMapperServiceServer::new(Service(Arc::clone(&table)))
        .max_decoding_message_size(dmi::MESSAGE_MAX);
    let serving = Server::builder().serve_with_incoming(service, dmi::incoming(listener));
    tracing::info!(name = common.name, protocol = common.protocol, socket = %path.display(), "mapper serves");
    let ended = tokio::select! {
        served = serving => served.map_err(|source| MapperError::Serve { path: path.clone(), source }),
        () = stay_registered(&edgecore, losses, info(config), &table) => Ok(()),
        () = end => Ok(()),
    };
    table.clear();
    if let Err(error) = std::fs::remove_file(&path) {
        tracing::debug!(socket = %path.display(), %error, "socket is gone already");
    }
    tracing::info!(name = common.name, "mapper ended");
    ended
}

fn info(config: &Config) -> MapperInfo {
    MapperInfo {
        name: config.common.name.clone(),
        version: config.common.version.clone(),
        api_version: config.common.api_version.clone(),
        protocol: config.common.protocol.clone(),
        address: config.grpc_server.socket_path.as_os_str().as_bytes().to_vec(),
        state: STATE.to_owned(),
    }
}

/// Registers, and again whenever a connection to edgecore was lost. Does not end.
async fn stay_registered<P: Protocol>(
    edgecore: &EdgeCore,
    mut losses: watch::Receiver<u64>,
    info: MapperInfo,
    table: &Table<P>,
) {
    let mut backoff = Backoff::new(REGISTER_FIRST, REGISTER_CAP);
    let mut said = String::new();
    loop {
        losses.borrow_and_update();
        let since = table.registering();
        match edgecore.register(info.clone()).await {
            Ok(answer) => {
                let (devices, models) = (answer.device_list.len(), answer.model_list.len());
                if let Err(error) = table.registered(since, answer) {
                    tracing::warn!(%error, "part of what edgecore handed out was not taken");
                }
                tracing::info!(devices, models, "registered at edgecore");
                backoff.reset();
                said.clear();
                if losses.changed().await.is_err() {
                    return;
                }
                tracing::warn!("edgecore went away; registering again");
            }
            Err(status) => {
                let reason = described(&status);
                if reason != said {
                    tracing::warn!(reason, "cannot register at edgecore; trying on");
                    said = reason;
                }
            }
        }
        tokio::time::sleep(backoff.delay()).await;
    }
}
