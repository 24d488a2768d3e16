//! edgecore's socket, from the mapper's side.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, UNIX_EPOCH};

use apimachinery::NamespacedName;
use dmi::v1beta1::device_manager_service_client::DeviceManagerServiceClient;
use dmi::v1beta1::{
    DeviceStatus, MapperInfo, MapperRegisterRequest, MapperRegisterResponse, ReportDeviceStatesRequest,
    ReportDeviceStatusRequest, Twin, TwinProperty,
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};
use tower::service_fn;

use crate::twin::PropertyTwin;

/// A registration brings all devices along.
const REGISTRATION_DEADLINE: Duration = Duration::from_secs(10);
/// A report is one transaction in edgecore.
const REPORT_DEADLINE: Duration = Duration::from_secs(5);

/// The key in a side's metadata that says why there is no value, or why the desired one was not given to the device.
/// KubeEdge's edgecore passes over what it does not know there.
pub(crate) const ERROR: &str = "error";

/// What became of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReportOutcome {
    /// edgecore has it.
    Accepted,
    /// edgecore will never take it.
    Rejected(String),
    /// edgecore does not take it now, which says nothing about anything else.
    Deferred(String),
    /// edgecore takes nothing now.
    Unavailable(String),
}

/// A client of edgecore that notices when a connection is lost, used or not.
#[derive(Debug, Clone)]
pub(crate) struct EdgeCore {
    client: DeviceManagerServiceClient<Channel>,
}

impl EdgeCore {
    /// The client, and a counter of lost connections.
    pub(crate) fn at(socket: &str) -> (Self, watch::Receiver<u64>) {
        let path = socket.strip_prefix("unix:").unwrap_or(socket);
        let path: Arc<str> = path.strip_prefix("//").unwrap_or(path).into();
        let (lost, losses) = watch::channel(0);
        let lost = Arc::new(lost);
        // The URI only fills a header; where the connection goes, the connector says.
        let endpoint = Endpoint::from_static("http://localhost");
        let channel = endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
            let (path, lost) = (Arc::clone(&path), Arc::clone(&lost));
            async move {
                let stream = UnixStream::connect(&*path).await?;
                Ok::<_, io::Error>(TokioIo::new(CountedStream { stream, lost }))
            }
        }));
        let client = DeviceManagerServiceClient::new(channel)
            .max_decoding_message_size(dmi::REGISTRATION_MAX)
            .accept_compressed(CompressionEncoding::Gzip);
        (EdgeCore { client }, losses)
    }

    pub(crate) async fn register(&self, mapper: MapperInfo) -> Result<MapperRegisterResponse, Status> {
        let request = MapperRegisterRequest { with_data: true, mapper: Some(mapper) };
        let mut request = within(request, REGISTRATION_DEADLINE);
        dmi::notes::set_doubles(&mut request);
        let answer = self.client.clone().mapper_register(request).await?;
        Ok(answer.into_inner())
    }

    /// Reports properties of a device.
    pub(crate) async fn report_twins(
        &self,
        device: &NamespacedName,
        twins: &[PropertyTwin],
    ) -> ReportOutcome {
        let request = ReportDeviceStatusRequest {
            device_name: device.name.clone(),
            device_namespace: device.namespace.clone(),
            reported_device: Some(DeviceStatus {
                twins: twins.iter().map(twin).collect(),
                ..Default::default()
            }),
        };
        let answer = self.client.clone().report_device_status(within(request, REPORT_DEADLINE)).await;
        outcome(answer.map(drop))
    }

    /// Reports whether a device answers, and why not.
    pub(crate) async fn report_state(
        &self,
        device: &NamespacedName,
        state: &str,
        reason: Option<&str>,
    ) -> ReportOutcome {
        let request = ReportDeviceStatesRequest {
            device_name: device.name.clone(),
            device_namespace: device.namespace.clone(),
            state: state.to_owned(),
        };
        let mut request = within(request, REPORT_DEADLINE);
        if let Some(reason) = reason {
            dmi::notes::set_state_reason(&mut request, reason);
        }
        let answer = self.client.clone().report_device_states(request).await;
        outcome(answer.map(drop))
    }
}

/// Both sides are always there: KubeEdge's edgecore does not survive a twin without one of them.
pub(crate) fn twin(property: &PropertyTwin) -> Twin {
    let millis = property.twin.read_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let side = |value: &str, error: &Option<String>| {
        let mut metadata = BTreeMap::from([
            ("timestamp".to_owned(), millis.to_string()),
            ("type".to_owned(), property.kind.twin_type().to_owned()),
        ]);
        if let Some(error) = error {
            metadata.insert(ERROR.to_owned(), one_line(error));
        }
        TwinProperty { value: value.to_owned(), metadata }
    };
    Twin {
        property_name: property.property.clone(),
        observed_desired: Some(side(&property.twin.observed, &property.twin.refusal)),
        reported: Some(side(&property.twin.value, &property.twin.fault)),
    }
}

/// A sentence from a device or a library, without what a terminal would obey.
fn one_line(sentence: &str) -> String {
    sentence.chars().map(|c| if c.is_control() { ' ' } else { c }).take(512).collect()
}

fn outcome(answer: Result<(), Status>) -> ReportOutcome {
    let Err(status) = answer else {
        return ReportOutcome::Accepted;
    };
    match status.code() {
        // KubeEdge before 1.23 knows no states.
        Code::InvalidArgument | Code::Unimplemented => ReportOutcome::Rejected(described(&status)),
        // As long as this mapper is not the one of the device's protocol, which it is again once it has registered, nothing of it is taken.
        Code::PermissionDenied | Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => {
            ReportOutcome::Unavailable(described(&status))
        }
        // KubeEdge's edgecore has one code for all that it does not like, a passing lack of tokens included.
        _ => ReportOutcome::Deferred(described(&status)),
    }
}

/// A status in one line.
pub(crate) fn described(status: &Status) -> String {
    match status.message() {
        "" => status.code().description().to_owned(),
        message => message.chars().take(512).collect(),
    }
}

fn within<T>(message: T, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

/// A connection whose end is counted.
struct CountedStream {
    stream: UnixStream,
    lost: Arc<watch::Sender<u64>>,
}

impl Drop for CountedStream {
    fn drop(&mut self) {
        self.lost.send_modify(|count| *count += 1);
    }
}

impl AsyncRead for CountedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_denied_holds_up_the_device_and_is_not_asked_again_property_by_property() {
        let of = |code: Code| outcome(Err(Status::new(code, "why")));
        let said = || "why".to_owned();
        for code in [Code::PermissionDenied, Code::Unavailable, Code::DeadlineExceeded] {
            assert_eq!(of(code), ReportOutcome::Unavailable(said()), "{code:?}");
        }
        assert_eq!(of(Code::InvalidArgument), ReportOutcome::Rejected(said()));
        assert_eq!(of(Code::FailedPrecondition), ReportOutcome::Deferred(said()));
    }
}
