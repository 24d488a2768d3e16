//! The server of a mapper, with bounds on what one connection may take.

use tonic::transport::Server;
use unixgrpc::Bounds;

/// A server of tonic's with the bounds: for a socket that only edgecore dials.
pub fn server() -> Server {
    let Bounds { calls_at_once, head_max, window, keep_alive } = Bounds::DEFAULT;
    Server::builder()
        .max_concurrent_streams(calls_at_once)
        .http2_max_header_list_size(head_max)
        .initial_stream_window_size(window)
        .initial_connection_window_size(window)
        .http2_keepalive_interval(Some(keep_alive))
}
