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
use prost::Message as _;
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

/// 4 KiB of a report are left for what is not its twins: the device's name and namespace have at most 253 and 63 bytes.
const TWINS_BYTES: usize = dmi::CALL_MAX - (4 << 10);
/// 6 bytes before each twin: its field and its length.
const FIELD_MAX: usize = 6;

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
        let request = within(request(device, twins), REPORT_DEADLINE);
        let answer = self.client.clone().report_device_status(request).await;
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

fn request(device: &NamespacedName, twins: &[PropertyTwin]) -> ReportDeviceStatusRequest {
    ReportDeviceStatusRequest {
        device_name: device.name.clone(),
        device_namespace: device.namespace.clone(),
        reported_device: Some(DeviceStatus { twins: twins.iter().map(twin).collect(), ..Default::default() }),
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

/// The reports in which these twins go: of at most `most` each, and of at most so many bytes as edgecore takes.
pub(crate) fn reports<T>(twins: &[T], of: impl Fn(&T) -> &PropertyTwin, most: usize) -> Vec<&[T]> {
    let (mut reports, mut from, mut bytes) = (Vec::new(), 0, 0);
    for (at, one) in twins.iter().enumerate() {
        let own = twin(of(one)).encoded_len() + FIELD_MAX;
        if at > from && (at - from >= most || bytes + own > TWINS_BYTES) {
            reports.extend(twins.get(from..at));
            (from, bytes) = (at, 0);
        }
        bytes += own;
    }
    reports.extend(twins.get(from..).filter(|rest| !rest.is_empty()));
    reports
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
        // A message that is too large never fits; tonic and Go's gRPC have a code each for that, and Go's is that of a lack of room, too.
        Code::InvalidArgument | Code::Unimplemented | Code::OutOfRange => {
            ReportOutcome::Rejected(described(&status))
        }
        Code::ResourceExhausted if status.message().contains("larger than max") => {
            ReportOutcome::Rejected(described(&status))
        }
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
    fn a_report_has_no_more_than_edgecore_takes_whatever_is_said() {
        let longest = "\u{20AC}".repeat(dmi::VALUE_MAX);
        let said = || Some(longest.clone());
        let twins: Vec<PropertyTwin> = (0..300)
            .map(|n| PropertyTwin {
                property: format!("p{n}"),
                kind: crate::Kind::Text,
                twin: crate::twin::TwinValue {
                    value: "x".repeat(dmi::VALUE_MAX),
                    fault: said(),
                    observed: "y".repeat(dmi::VALUE_MAX),
                    refusal: said(),
                    read_at: UNIX_EPOCH,
                },
            })
            .collect();
        let reports = reports(&twins, |twin| twin, 256);
        assert_eq!(reports.concat(), twins, "each of them once, in their order");
        for report in &reports {
            let device = NamespacedName::new("n".repeat(63), "d".repeat(253));
            let bytes = request(&device, report).encoded_len();
            assert!(bytes <= dmi::CALL_MAX && bytes > dmi::CALL_MAX / 2 || report.len() < 10, "{bytes}");
        }
        let short: Vec<PropertyTwin> = twins
            .into_iter()
            .map(|mut twin| {
                (twin.twin.value, twin.twin.observed, twin.twin.fault, twin.twin.refusal) =
                    (String::new(), String::new(), None, None);
                twin
            })
            .collect();
        let lengths: Vec<usize> = super::reports(&short, |twin| twin, 256).iter().map(|r| r.len()).collect();
        assert_eq!(lengths, [256, 44]);
        assert_eq!(super::reports(&short[..0], |twin| twin, 256), Vec::<&[PropertyTwin]>::new());
    }

    #[test]
    fn what_is_denied_holds_up_the_device_and_is_not_asked_again_property_by_property() {
        let of = |code: Code| outcome(Err(Status::new(code, "why")));
        let said = || "why".to_owned();
        for code in [Code::PermissionDenied, Code::Unavailable, Code::DeadlineExceeded] {
            assert_eq!(of(code), ReportOutcome::Unavailable(said()), "{code:?}");
        }
        assert_eq!(of(Code::InvalidArgument), ReportOutcome::Rejected(said()));
        assert_eq!(of(Code::FailedPrecondition), ReportOutcome::Deferred(said()));
        // What is too large is so the next time, too; a lack of room passes.
        assert_eq!(of(Code::OutOfRange), ReportOutcome::Rejected(said()));
        assert_eq!(of(Code::ResourceExhausted), ReportOutcome::Deferred(said()));
        let go = "grpc: received message larger than max (900126 vs. 262144)";
        let large = outcome(Err(Status::resource_exhausted(go)));
        assert_eq!(large, ReportOutcome::Rejected(go.to_owned()));
    }
}
