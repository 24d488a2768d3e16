//! The cloud's endpoints: its servers, and what each can be reached over.

use std::rc::Rc;
use std::sync::Arc;

use crate::error::EndpointsError;
use crate::plan::Carrier;
use beehive::Clock;
use beehive::link::Dialer;
use beehive::link::quic_dialer::QuicDialer;
use beehive::link::tls::{Credentials, LiveCredentials};
use beehive::link::ws::WebSocketDialer;

/// One server, and how it is reached.
#[derive(Clone)]
pub struct Server {
    /// Its name in logs.
    pub name: String,
    /// Over QUIC.
    pub quic: Option<Rc<dyn Dialer>>,
    /// Over WebSocket, where UDP is blocked.
    pub websocket: Option<Rc<dyn Dialer>>,
}

impl Server {
    pub(crate) fn carriers(&self) -> Vec<Carrier> {
        let all = [Carrier::Quic, Carrier::WebSocket];
        all.into_iter().filter(|carrier| self.dialer(*carrier).is_some()).collect()
    }

    pub(crate) fn dialer(&self, carrier: Carrier) -> Option<Rc<dyn Dialer>> {
        match carrier {
            Carrier::Quic => self.quic.clone(),
            Carrier::WebSocket => self.websocket.clone(),
        }
    }
}

/// All servers, in the order in which they are tried.
#[derive(Clone)]
pub struct Endpoints(pub Vec<Server>);

impl Endpoints {
    /// The servers of two lists of `host:port`, separated by commas: QUIC's and WebSocket's. Entries of the same host are
    /// one server with both. Needs a tokio runtime.
    ///
    /// # Errors
    /// See [`EndpointsError`].
    pub fn from_lists(
        quic: &str,
        websocket: &str,
        credentials: &Credentials,
        clock: &Arc<dyn Clock>,
    ) -> Result<Endpoints, EndpointsError> {
        let live = LiveCredentials::new(credentials);
        let live = live.map_err(|source| EndpointsError::Endpoint { server: quic.to_owned(), source })?;
        Endpoints::of_lists(quic, websocket, &live, clock)
    }

    /// The same, where each dial goes by the credentials as they are then.
    ///
    /// # Errors
    /// See [`EndpointsError`].
    pub fn of_lists(
        quic: &str,
        websocket: &str,
        credentials: &LiveCredentials,
        clock: &Arc<dyn Clock>,
    ) -> Result<Endpoints, EndpointsError> {
        let mut servers: Vec<(String, Server)> = Vec::new();
        let lists = [(Carrier::Quic, listed(quic)?), (Carrier::WebSocket, listed(websocket)?)];
        for (carrier, list) in lists {
            for (host, port) in list {
                let failed = |source| EndpointsError::Endpoint { server: format!("{host}:{port}"), source };
                let dialer: Rc<dyn Dialer> = match carrier {
                    Carrier::Quic => {
                        let clock = Arc::clone(clock);
                        Rc::new(QuicDialer::by(&host, port, credentials, clock).map_err(failed)?)
                    }
                    Carrier::WebSocket => {
                        let clock = Arc::clone(clock);
                        Rc::new(WebSocketDialer::by(&host, port, credentials, clock).map_err(failed)?)
                    }
                };
                let free = |server: &Server| server.dialer(carrier).is_none();
                let at = match servers.iter().position(|(known, server)| *known == host && free(server)) {
                    Some(at) => at,
                    None => {
                        let server = Server { name: host.clone(), quic: None, websocket: None };
                        servers.push((host.clone(), server));
                        servers.len() - 1
                    }
                };
                if let Some((_, server)) = servers.get_mut(at) {
                    match carrier {
                        Carrier::Quic => server.quic = Some(dialer),
                        Carrier::WebSocket => server.websocket = Some(dialer),
                    }
                }
            }
        }
        if servers.is_empty() {
            return Err(EndpointsError::Server("no server is named".to_owned()));
        }
        Ok(Endpoints(servers.into_iter().map(|(_, server)| server).collect()))
    }

    /// The servers' names.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|server| server.name.as_str())
    }
}

/// How servers are reached that the cloud itself has named: by the ports of the first that stands in each list of the settings.
#[derive(Clone)]
pub struct NamedServers {
    credentials: LiveCredentials,
    clock: Arc<dyn Clock>,
    quic: Option<u16>,
    websocket: Option<u16>,
}

impl NamedServers {
    /// By the lists of [`Endpoints::of_lists`].
    ///
    /// # Errors
    /// See [`EndpointsError`].
    pub fn by(
        quic: &str,
        websocket: &str,
        credentials: &LiveCredentials,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, EndpointsError> {
        let port = |list: Vec<(String, u16)>| list.first().map(|(_, port)| *port);
        let (quic, websocket) = (port(listed(quic)?), port(listed(websocket)?));
        Ok(NamedServers { credentials: credentials.clone(), clock: Arc::clone(clock), quic, websocket })
    }

    /// The server of this name. Needs a tokio runtime.
    ///
    /// # Errors
    /// See [`EndpointsError`].
    pub(crate) fn server(&self, host: &str) -> Result<Server, EndpointsError> {
        let shown = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let at = |port: Option<u16>| port.map(|port| format!("{shown}:{port}")).unwrap_or_default();
        let made = Endpoints::of_lists(&at(self.quic), &at(self.websocket), &self.credentials, &self.clock)?;
        made.0.into_iter().next().ok_or_else(|| EndpointsError::Server("no server is named".to_owned()))
    }
}

/// A list of `host:port`, separated by commas.
fn listed(list: &str) -> Result<Vec<(String, u16)>, EndpointsError> {
    let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    entries.map(|entry| config::parse_host_port(entry).map_err(EndpointsError::Server)).collect()
}

impl From<Rc<dyn Dialer>> for Endpoints {
    /// One server that is reached by one dialer.
    fn from(dialer: Rc<dyn Dialer>) -> Self {
        Endpoints(vec![Server { name: "the cloud".to_owned(), quic: Some(dialer), websocket: None }])
    }
}

impl<D: Dialer + 'static> From<Rc<D>> for Endpoints {
    fn from(dialer: Rc<D>) -> Self {
        Endpoints::from(dialer as Rc<dyn Dialer>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_taken_apart() {
        let listed = |text: &str| listed(text).unwrap();
        assert_eq!(listed("a:1"), [("a".to_owned(), 1)]);
        assert_eq!(listed(" a:1 , [fd00::1]:2,"), [("a".to_owned(), 1), ("fd00::1".to_owned(), 2)]);
        assert_eq!(listed(""), []);
        assert!(super::listed("a:1,b").is_err());
    }
}
