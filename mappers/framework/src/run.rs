//! A mapper's life: a hive on a thread of its own, from the first listening to the last report.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use beehive::{Capacity, Ended, Env, Flow, Hive, Policy, Thread};
use dmi::v1beta1::MapperInfo;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use crate::actor::{DEVICE, Mapper, MapperContext};
use crate::commands::CommandLog;
use crate::config::Config;
use crate::edgecore::EdgeCore;
use crate::error::MapperError;
use crate::host::Targets;
use crate::message::MapperMsg;
use crate::protocol::Protocol;
use crate::push::{KeptFolder, PUSH, Pushers};
use crate::rest::Rest;

/// What KubeEdge's framework says of a mapper that runs.
const STATE: &str = "ok";
/// 10 s for a stop: an exchange with a device and a last report.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// 60 s: a protocol that blocks the thread for so long does not come back.
const BLOCKED_WITHIN: Duration = Duration::from_secs(60);
const CAPACITY: Capacity = Capacity::new(256, "what edgecore calls while a registration's answer is taken");

/// Runs a mapper until `end` comes true. Everything of it runs on a thread of its own.
///
/// # Errors
/// When its own socket cannot be served, when the mapper failed again and again, or when the protocol has blocked its
/// thread for a minute. An edgecore that is away is no error: the mapper waits for it.
pub async fn run<P: Protocol>(
    config: &Config,
    protocol: P,
    end: impl Future<Output = ()>,
) -> Result<(), MapperError> {
    run_watched(config, protocol, end, BLOCKED_WITHIN).await
}

pub(crate) async fn run_watched<P: Protocol>(
    config: &Config,
    protocol: P,
    end: impl Future<Output = ()>,
    blocked_within: Duration,
) -> Result<(), MapperError> {
    let common = &config.common;
    if common.protocol != protocol.name() {
        let (configured, spoken) = (common.protocol.clone(), protocol.name().to_owned());
        return Err(MapperError::Protocol { configured, spoken });
    }
    if common.allowed_targets != Targets::default() && !protocol.judges_targets() {
        return Err(MapperError::AllowedTargets(common.protocol.clone()));
    }
    // Dropped with this future, so that the mapper ends in order then, too.
    let (stop, stopped) = oneshot::channel();
    let (outcome, mut outcomes) = mpsc::channel(2);
    let config = config.clone();
    let life = move || {
        let ended = live(&config, protocol, stopped, &outcome, blocked_within);
        drop(outcome.try_send(ended));
    };
    let thread = Thread::start("mapper", life).map_err(MapperError::Thread)?;
    let mut end = pin!(end);
    let early = tokio::select! {
        outcome = outcomes.recv() => Some(outcome),
        () = &mut end => None,
    };
    let outcome = match early {
        Some(outcome) => outcome,
        None => {
            drop(stop);
            // A second more than the hive gives itself: its thread may be blocked.
            let within = STOP_WITHIN + Duration::from_secs(1);
            match tokio::time::timeout(within, outcomes.recv()).await {
                Ok(outcome) => outcome,
                Err(_) => Some(Err(MapperError::Late(STOP_WITHIN.as_secs()))),
            }
        }
    };
    match outcome {
        Some(outcome) => outcome,
        None => Err(MapperError::GaveUp(thread.ended().await.reason)),
    }
}

/// The mapper's thread.
fn live<P: Protocol>(
    config: &Config,
    protocol: P,
    stopped: oneshot::Receiver<()>,
    outcome: &mpsc::Sender<Result<(), MapperError>>,
    blocked_within: Duration,
) -> Result<(), MapperError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(MapperError::Thread)?;
    let local = LocalSet::new();
    let ended = local.block_on(&runtime, async {
        let mut hive = open(config, protocol)?;
        let outcome = outcome.clone();
        hive.inspector().when_blocked(blocked_within, move |blocked| {
            drop(outcome.try_send(Err(MapperError::Blocked(blocked.to_string()))));
        });
        let gave_up = tokio::select! {
            reason = hive.gave_up() => Some(reason),
            _ = stopped => None,
        };
        close(hive, config, gave_up).await
    });
    drop(local);
    // A resolver that hangs holds up nobody.
    runtime.shutdown_background();
    ended
}

/// Listens, and starts the hive.
pub(crate) fn open<P: Protocol>(config: &Config, protocol: P) -> Result<Hive, MapperError> {
    let (common, socket) = (&config.common, config.grpc_server.socket_path.clone());
    let path = config.command_log();
    // First: a mapper that runs keeps its socket.
    let commands = CommandLog::open(&path).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => MapperError::Twice(path.clone()),
        _ => MapperError::CommandLog { path: path.clone(), source },
    })?;
    let listener = dmi::listen(&socket)?;
    let (edgecore, losses) = EdgeCore::at(&common.edgecore_sock);
    let mut hive = Hive::new("mapper", Env::real());
    let mailbox = hive.mailbox::<MapperMsg>("mapper", CAPACITY);
    hive.declare_child("mapper", DEVICE);
    hive.declare_child("mapper", PUSH);
    let rest = match config.rest().map_err(MapperError::Rest)? {
        Some((at, allowed)) => {
            let mapper = hive.grant("rest-server", &mailbox, Flow::Ask);
            let rest = Rest::at(at, allowed, mapper)
                .map_err(|error| MapperError::Rest(format!("cannot listen on {at}: {error}")))?;
            tracing::info!(%at, read = allowed.read, write = allowed.write, "the REST interface is served");
            Some(rest)
        }
        None => None,
    };
    let parts = MapperContext {
        protocol: Rc::new(protocol),
        info: info(config),
        listener: Rc::new(Cell::new(Some(listener))),
        socket,
        edgecore,
        commands,
        pushers: Pushers::with(config.credentials.clone(), KeptFolder::at(config.push_folder())),
        streams: Some(&common.stream_dir)
            .filter(|dir| !dir.as_os_str().is_empty())
            .map(|dir| Arc::from(dir.as_path())),
        losses,
        rest,
        address: hive.grant("dmi-server", &mailbox, Flow::Ask),
    };
    hive.supervise(mailbox, Policy::default(), move || Mapper::new(parts.clone()));
    hive.open().map_err(|error| MapperError::Thread(io::Error::other(error)))?;
    let socket = config.grpc_server.socket_path.display();
    tracing::info!(name = common.name, protocol = common.protocol, %socket, "mapper serves");
    Ok(hive)
}

/// Stops the hive, and says why it ended.
pub(crate) async fn close(hive: Hive, config: &Config, gave_up: Option<String>) -> Result<(), MapperError> {
    let ended = hive.shutdown(STOP_WITHIN).await;
    let path = &config.grpc_server.socket_path;
    if let Err(error) = std::fs::remove_file(path) {
        tracing::debug!(socket = %path.display(), %error, "socket is gone already");
    }
    tracing::info!(name = config.common.name, "mapper ended");
    match (gave_up, ended) {
        (Some(reason), _) => Err(MapperError::GaveUp(reason)),
        (None, Ended::Late(_)) => Err(MapperError::Late(STOP_WITHIN.as_secs())),
        (None, Ended::InOrder | Ended::GaveUp(_)) => Ok(()),
    }
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
