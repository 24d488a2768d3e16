//! The actor: the socket for sidecars and its connections.

use std::path::PathBuf;
use std::sync::Arc;

use beehive::{Actor, Context, Fault, Message};
use contract::NodeName;
use tokio::net::UnixListener;
use unixsocket::{Bound, OwnFile};

use crate::events;
use crate::service::{self, Service};
use crate::way::Way;

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
        let Bound { listener, file, .. } = cx
            .env()
            .blocking(move || unixsocket::bind_own(&path))
            .await?
            .map_err(|error| failed(error.to_string()))?;
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
            unixgrpc::serve_listener(listener, clock, None, calls).await;
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
