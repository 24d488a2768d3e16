//! What can be wrong with a hub's settings.

use beehive::link::tls::EndpointError;
use thiserror::Error;

/// Why the endpoints cannot be used.
#[derive(Debug, Error)]
pub enum EndpointsError {
    /// A list names something that is no server.
    #[error("{0}")]
    Server(String),
    /// An endpoint cannot be made.
    #[error("the endpoint `{server}`")]
    Endpoint {
        /// Whom it would reach.
        server: String,
        /// Why.
        #[source]
        source: EndpointError,
    },
}
