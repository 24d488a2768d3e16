//! The actor: the socket for sidecars and its connections.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use beehive::{Actor, Clock, Context, Fault, Message};
use contract::NodeName;
use futures::future::{Either, select};
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::net::UnixListener;
use unixgrpc::{Bounds, Calls};
use unixsocket::{BindError, Bound, Existing, Folder, OwnFile};

use crate::events;
use crate::service::{self, Service};
use crate::way::Way;

/// 32 connections at a time: a sidecar has one. The next one waits.
const CONNECTIONS_MAX: usize = 32;
/// 100 ms after the system refused a connection: there are no files left, and there will be.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What it is told by its flags.
#[derive(Clone)]
pub struct Settings {
    /// Where sidecars call.
    pub socket: PathBuf,
    /// The driver's name, on the node and towards the sidecars.
    pub driver: String,
    /// The node.
    pub node: NodeName,
    /// The way there.
    pub way: Way,
}

/// Messages to itself.
#[derive(Debug)]
pub enum CsiDriverMsg {
    /// The socket is served no more.
    Ended,
}

impl Message for CsiDriverMsg {
    fn name(&self) -> &'static str {
        match self {
            CsiDriverMsg::Ended => "Ended",
        }
    }
}

/// Serves sidecars.
pub struct CsiDriver {
    settings: Settings,
    file: Option<OwnFile>,
}

impl CsiDriver {
    /// One that serves nobody yet.
    pub fn new(settings: Settings) -> Self {
        CsiDriver { settings, file: None }
    }
}

impl Drop for CsiDriver {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            file.remove();
        }
    }
}

impl Actor for CsiDriver {
    type Message = CsiDriverMsg;

    async fn started(&mut self, cx: &mut Context<CsiDriverMsg>) -> Result<(), Fault> {
        let Settings { socket, driver, node, way } = self.settings.clone();
        let path = socket.clone();
        let failed = |reason: String| Fault::new(format!("--endpoint unix://{}: {reason}", socket.display()));
        let Bound { listener, file, .. } = cx.env().blocking(move || bind(&path)).await?.map_err(failed)?;
        self.file = Some(file);
        let listener = UnixListener::from_std(listener).map_err(|error| failed(error.to_string()))?;
        events::listening(cx.env(), &socket, &driver, node.as_str());
        let service = Service {
            node: node.to_string(),
            driver,
            way,
            clock: cx.env().clock(),
            metrics: cx.env().metrics().clone(),
        };
        let (calls, clock, myself) = (service::calls(Arc::new(service)), cx.env().clock(), cx.myself());
        cx.spawn(async move {
            serve(listener, clock, calls).await;
            let _ = myself.tell(CsiDriverMsg::Ended).await;
        });
        Ok(())
    }

    async fn handle(&mut self, message: CsiDriverMsg, _: &mut Context<CsiDriverMsg>) -> Result<(), Fault> {
        match message {
            CsiDriverMsg::Ended => Err(Fault::new("the socket for sidecars has ended by itself")),
        }
    }

    fn snapshot(&self) -> serde_json::Value {
        let Settings { socket, driver, node, .. } = &self.settings;
        serde_json::json!({ "socket": socket.display().to_string(), "driver": driver, "node": node.as_str() })
    }
}

/// Mode 0600, in the place of a dead one alone. Blocks.
fn bind(path: &Path) -> Result<Bound, String> {
    let name =
        path.file_name().and_then(|name| name.to_str()).ok_or("the name of the socket is not UTF-8")?;
    let folder =
        Folder::make(path.parent().unwrap_or(Path::new("/")), None).map_err(|error| error.to_string())?;
    folder.bind(name, None, Existing::ReplaceDead).map_err(|error: BindError| error.to_string())
}

/// Serves the connections of a listener. Does not end.
async fn serve(listener: UnixListener, clock: Arc<dyn Clock>, calls: Calls) {
    let mut connections = FuturesUnordered::new();
    loop {
        let accepted = if connections.len() >= CONNECTIONS_MAX {
            connections.next().await;
            continue;
        } else if connections.is_empty() {
            listener.accept().await
        } else {
            match select(std::pin::pin!(listener.accept()), connections.next()).await {
                Either::Left((accepted, _)) => accepted,
                Either::Right(_) => continue,
            }
        };
        match accepted {
            Ok((stream, _)) => {
                connections.push(unixgrpc::serve_connection(stream, Bounds::DEFAULT, calls.clone()))
            }
            Err(_) => clock.sleep(ACCEPT_PAUSE).await,
        }
    }
}
