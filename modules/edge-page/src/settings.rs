//! What the page is told by the configuration.

use std::net::SocketAddr;

use config::edge::EdgeCore;

/// The settings of one node.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The node's name.
    pub node: String,
    /// Where the page is; `None`: it is off.
    pub address: Option<SocketAddr>,
}

impl Settings {
    /// Of `edgecore.yaml`; `node` is the name of the node's certificate.
    pub fn new(node: &str, settings: &EdgeCore) -> Self {
        let page = &settings.modules.edge_page;
        Settings { node: node.to_owned(), address: page.address().filter(|_| page.enable) }
    }
}
