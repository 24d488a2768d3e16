//! A connection that is made and closed.

use std::time::Duration;

use beehive::Env;

use crate::prober::{Answer, PodDialer, Tried, dial_error, join};

pub(super) async fn probe(env: &Env, dialer: PodDialer<'_>, host: &str, port: u16, limit: Duration) -> Tried {
    let address = join(host, port);
    Ok(match env.timeout(limit, dialer.connect(host, port)).await {
        Some(Ok(_)) => Answer::Success,
        // No place to ask from is nothing that the container has done.
        Some(Err(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
            return Err(error.to_string().into());
        }
        Some(Err(error)) => Answer::Failure(dial_error(&address, &error)),
        None => Answer::Failure(format!("dial tcp {address}: i/o timeout")),
    })
}
