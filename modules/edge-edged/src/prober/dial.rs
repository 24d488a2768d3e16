//! How a pod's checks reach hosts.

use std::io;

use beehive::Lookups;
use tokio::net::TcpStream;

/// 16 names in all of which pods speak, each on a thread of its own; two of one namespace, so that it takes eight tenants to fill them.
pub(crate) const LOOKUPS_AT_ONCE: usize = 16;

/// Connects for one pod. A name that its checks give is looked up among few, so that one that nobody answers for holds up
/// nobody else.
#[derive(Clone, Copy)]
pub(crate) struct PodDialer<'a> {
    pub(crate) lookups: &'a Lookups,
    pub(crate) namespace: &'a str,
}

impl PodDialer<'_> {
    /// # Errors
    /// Those of the name and of the connection; `WouldBlock`: nobody has asked yet ([`Lookups::of`]).
    pub(super) async fn connect(self, host: &str, port: u16) -> io::Result<TcpStream> {
        let addresses = self.lookups.of(self.namespace, host, port).await?;
        TcpStream::connect(addresses.as_slice()).await
    }
}
