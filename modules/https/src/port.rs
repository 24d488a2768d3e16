//! A TCP port that is bound once.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};

/// 1024: connections that wait in the kernel.
const BACKLOG: i32 = 1024;

/// A bound TCP port. It outlives the servers at it: what connects between two of them waits in its queue.
#[derive(Debug)]
pub struct Port {
    listener: TcpListener,
    address: SocketAddr,
}

impl Port {
    /// Binds `address`; port 0: any.
    ///
    /// # Errors
    /// When the port is taken, or the address is not of this machine.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let listener = TcpListener::from(socket);
        let address = listener.local_addr()?;
        Ok(Port { listener, address })
    }

    /// Where it is bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn into_listener(self) -> TcpListener {
        self.listener
    }

    pub(crate) fn share(&self) -> io::Result<TcpListener> {
        self.listener.try_clone()
    }
}
