//! The gRPC health protocol (`grpc.health.v1.Health/Check`), in plain text to the pod.

use std::net::{AddrParseError, SocketAddr};
use std::time::Duration;

use beehive::Env;
use prost::Message;
use tokio::net::TcpStream;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};
use unixgrpc::{Client, Connector};

use crate::prober::{Answer, BODY_MAX, dial_error, join};
use crate::versions;

#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

unixgrpc::methods! {
    /// The gRPC health protocol.
    mod health = "grpc.health.v1.Health" {
        CHECK = Check(HealthCheckRequest) returns (HealthCheckResponse);
    }
}

const SERVING: i32 = 1;
/// 64 KiB of a pod's answer are read ahead, the least that HTTP/2 has: a container chooses what it sends.
const WINDOW: u32 = 64 << 10;

/// The names of `HealthCheckResponse.ServingStatus`.
fn status_name(status: i32) -> String {
    match status {
        0 => "UNKNOWN".to_owned(),
        SERVING => "SERVING".to_owned(),
        2 => "NOT_SERVING".to_owned(),
        3 => "SERVICE_UNKNOWN".to_owned(),
        other => other.to_string(),
    }
}

/// Asks a server for the health of `service`. Connection and call together have `limit`.
pub(super) async fn probe(env: &Env, host: &str, port: u16, service: &str, limit: Duration) -> Answer {
    let address = join(host, port);
    let seconds = limit.as_secs();
    let begun = env.now();
    let client = match env.timeout(limit, connect(&address)).await {
        Some(Ok(client)) => client,
        // Go's client tries until the time is over.
        Some(Err(error)) => {
            let text = format!(
                "timeout: failed to connect service {address:?} within {seconds}s: context deadline exceeded: \
                 connection error: desc = \"transport: Error while dialing: {error}\""
            );
            return Answer::Failure(text);
        }
        None => {
            let text = format!(
                "timeout: failed to connect service {address:?} within {seconds}s: context deadline exceeded"
            );
            return Answer::Failure(text);
        }
    };
    let left = limit.saturating_sub(env.now().since(begun));
    match env.timeout(left, check(&client, service)).await {
        Some(Ok(SERVING)) => Answer::Success,
        Some(Ok(status)) => {
            Answer::Failure(format!("service unhealthy (responded with {:?})", status_name(status)))
        }
        Some(Err(status)) if status.code() == Code::Unimplemented => {
            let text =
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)";
            Answer::Failure(format!("{text}: {}", status.message()))
        }
        Some(Err(status)) if status.code() != Code::DeadlineExceeded => {
            let (code, message) = (status.code(), status.message());
            let text = format!("error: health rpc probe failed: rpc error: code = {code:?} desc = {message}");
            Answer::Failure(text)
        }
        Some(Err(_)) | None => {
            Answer::Failure(format!("timeout: health rpc did not complete within {seconds}s"))
        }
    }
}

async fn connect(address: &str) -> Result<Client, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
    let endpoint = endpoint.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW);
    let endpoint =
        endpoint.user_agent(format!("kube-probe/{}", versions::RULES)).map_err(|error| error.to_string())?;
    let to: SocketAddr = address.parse().map_err(|error: AddrParseError| error.to_string())?;
    let connector = Connector::new(move || TcpStream::connect(to));
    let channel = connector.connect(endpoint).await.map_err(|error| {
        let mut cause: &dyn std::error::Error = &error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        match cause.downcast_ref::<std::io::Error>() {
            Some(error) => dial_error(address, error),
            None => cause.to_string(),
        }
    })?;
    Ok(Client::new(channel, BODY_MAX))
}

async fn check(client: &Client, service: &str) -> Result<i32, Status> {
    let request = Request::new(HealthCheckRequest { service: service.to_owned() });
    Ok(client.call(health::CHECK, request).await?.status)
}

#[cfg(test)]
mod tests;
