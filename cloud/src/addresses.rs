//! Addresses of the settings, and ports that are bound before anything runs.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use https::Port;

use crate::start_error::StartError;

/// Binds a port, so that a start that cannot have it says so.
pub(crate) fn bind(
    address: SocketAddr,
    what: &'static str,
    key: &'static str,
) -> Result<Rc<Port>, StartError> {
    let port = Port::bind(address).map_err(|source| StartError::Listen { address, what, key, source })?;
    Ok(Rc::new(port))
}

/// IP:port.
pub(crate) fn socket(text: &str) -> Result<SocketAddr, StartError> {
    text.parse().map_err(|_| StartError::Address(text.to_owned()))
}

/// An IP address.
pub(crate) fn ip(text: &str) -> Result<IpAddr, StartError> {
    text.parse().map_err(|_| StartError::Address(text.to_owned()))
}
