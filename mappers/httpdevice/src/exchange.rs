//! Requests of a device, and what comes of them.

use bytes::Bytes;
use framework::payload::beginning;
use framework::{Fault, http_device};
use http_body_util::Full;
use httpclient::{SendRequest, agent};
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, StatusCode};

use crate::HttpDevice;
use crate::address::Address;

/// A request of a device, with its login.
pub(crate) fn request(
    address: &Address,
    method: &Method,
    path: &str,
    body: Option<(String, &str)>,
) -> Result<Request<Full<Bytes>>, Fault> {
    let base = &address.base;
    let target = match format!("{base}{path}") {
        target if target.starts_with('/') => target,
        target => format!("/{target}"),
    };
    let mut request = Request::builder()
        .method(method)
        .uri(target)
        .header(HOST, address.authority())
        .header(USER_AGENT, format!("{}/{}", agent::HTTP_MAPPER, env!("CARGO_PKG_VERSION")));
    if let Some((header, value)) = &address.login.0 {
        request = request.header(header, value);
    }
    let body = match body {
        Some((body, kind)) => {
            request = request.header(CONTENT_TYPE, kind);
            Full::new(Bytes::from(body))
        }
        None => Full::default(),
    };
    request.body(body).map_err(|error| Fault::Device(format!("this cannot be asked for: {error}")))
}

/// A connection to the device, if its address is one that devices may have.
pub(crate) async fn connect(
    address: &Address,
    device: &HttpDevice,
) -> Result<SendRequest<Full<Bytes>>, Fault> {
    let authority = address.authority();
    let failed = |reason: String| Fault::NotSent(format!("no connection to {authority}: {reason}"));
    let found = device.targets.addresses(&address.host, address.port).await.map_err(failed)?;
    http_device::connect(&found, address.answer).await.map_err(failed)
}

pub(crate) fn refused(status: StatusCode, body: &[u8]) -> Fault {
    Fault::Device(match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            format!("status {status}: check `auth` and what belongs to it")
        }
        status if status.is_redirection() => {
            format!(
                "status {status}: it wants to be asked elsewhere; write that address into `url` and `path`"
            )
        }
        status => format!("status {status}: {}", beginning(body)),
    })
}
