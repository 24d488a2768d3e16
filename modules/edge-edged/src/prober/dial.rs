//! How a pod's checks reach hosts.

use std::io;

use beehive::Lookups;
use tokio::net::TcpStream;

/// 4 names in all of which pods speak, each on a thread of its own; two of one pod.
pub(crate) const LOOKUPS_AT_ONCE: usize = 4;

/// Connects for one pod. A name that its checks give is looked up among few, so that one that nobody answers for holds up
/// nobody else.
#[derive(Clone, Copy)]
pub(crate) struct PodDialer<'a> {
    pub(crate) lookups: &'a Lookups,
    /// The pod's uid.
    pub(crate) pod: &'a str,
}

impl PodDialer<'_> {
    /// # Errors
    /// Those of the name and of the connection.
    pub(super) async fn connect(self, host: &str, port: u16) -> io::Result<TcpStream> {
        let addresses = self.lookups.of(self.pod, host, port).await?;
        TcpStream::connect(addresses.as_slice()).await
    }
}
