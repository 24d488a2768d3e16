//! Where clients connect. Each place is taken by itself, and again and again while it is not to be had: another program at one of
//! them (the mosquitto of a host that had KubeEdge, say) is no reason for the others not to be served, and none for a node to end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::listener::{Listener, listen};
use crate::peer::ListenerKind;
use crate::place::Place;
use crate::shared::Shared;
use crate::{events, unix_socket};

/// 1 s, doubled at each time up to 30 s, before a place is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(30);

/// What came of the places.
#[derive(Debug, Default)]
pub(crate) struct Places {
    pub(crate) plain: Option<SocketAddr>,
    pub(crate) tls: Option<SocketAddr>,
    pub(crate) web_socket: Option<SocketAddr>,
    /// The Unix socket's file goes with it.
    pub(crate) unix: Option<unix_socket::SocketFile>,
    /// By the setting: why nobody can connect there.
    pub(crate) missing: BTreeMap<&'static str, String>,
}

impl Places {
    /// Says in the log where clients may connect.
    pub(crate) fn announce(&self) {
        let Places { plain, tls, web_socket, unix, .. } = self;
        if plain.is_some() || tls.is_some() || web_socket.is_some() || unix.is_some() {
            tracing::info!(?plain, ?tls, ?web_socket, unix = unix.is_some(), "MQTT clients may connect");
        }
    }
}

impl Place {
    /// Binds it.
    async fn bind(&self, places: &RefCell<Places>) -> Result<Listener, String> {
        let setting = self.setting();
        let listener = match self {
            Place::Plain(address) => self.bind_tcp(address, ListenerKind::Plain, places).await?,
            Place::Tls(address) => self.bind_tcp(address, ListenerKind::Tls, places).await?,
            Place::WebSocket { listen, tls: false } => {
                self.bind_tcp(listen, ListenerKind::WebSocket, places).await?
            }
            Place::WebSocket { listen, tls: true } => {
                self.bind_tcp(listen, ListenerKind::WebSocketTls, places).await?
            }
            Place::Unix { path, group } => {
                let (listener, file) = unix_socket::bind(path, group).map_err(|error| {
                    let shown = path.display();
                    format!("cannot listen on {shown} ({setting}): {error}; does its folder exist?")
                })?;
                places.borrow_mut().unix = Some(file);
                Listener::Unix(listener)
            }
        };
        places.borrow_mut().missing.remove(setting);
        Ok(listener)
    }

    async fn bind_tcp(
        &self,
        address: &str,
        kind: ListenerKind,
        places: &RefCell<Places>,
    ) -> Result<Listener, String> {
        let bound = async {
            let listener = TcpListener::bind(address).await?;
            let at = listener.local_addr()?;
            Ok((listener, at))
        };
        let (listener, at) = bound.await.map_err(|error: std::io::Error| {
            let setting = self.setting();
            format!("cannot listen on {address} ({setting}): {error}; is another broker there?")
        })?;
        let mut places = places.borrow_mut();
        match kind {
            ListenerKind::Tls => places.tls = Some(at),
            ListenerKind::WebSocket | ListenerKind::WebSocketTls => places.web_socket = Some(at),
            ListenerKind::Plain | ListenerKind::Unix => places.plain = Some(at),
        }
        Ok(Listener::Tcp(listener, kind))
    }

    /// Binds it now; what stands in the way is said.
    async fn try_bind(&self, shared: &Shared, places: &RefCell<Places>) -> Option<Listener> {
        match self.bind(places).await {
            Ok(listener) => Some(listener),
            Err(reason) => {
                events::place_missing(&shared.env, &reason);
                places.borrow_mut().missing.insert(self.setting(), reason);
                None
            }
        }
    }
}

/// Binds a place, and answers what serves it until it is dropped: at once if it could be had, else as soon as it can be.
pub(crate) async fn serve(
    place: Place,
    shared: Rc<Shared>,
    places: Rc<RefCell<Places>>,
) -> impl Future<Output = ()> {
    let mut listener = place.try_bind(&shared, &places).await;
    async move {
        let mut pause = AGAIN_AFTER;
        let listener = loop {
            if let Some(listener) = listener.take() {
                break listener;
            }
            shared.env.sleep(shared.env.jitter(pause)).await;
            pause = (2 * pause).min(AGAIN_MAX);
            listener = place.try_bind(&shared, &places).await;
            if listener.is_some() {
                tracing::info!(setting = place.setting(), "MQTT clients may connect there now");
            }
        };
        listen(shared, listener).await;
    }
}
