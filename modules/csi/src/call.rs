//! One call: a connection, a deadline, a bound.

use std::path::{Path, PathBuf};
use std::time::Duration;

use prost::Message;
use prost::bytes::Bytes;
use thiserror::Error;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};
use unixgrpc::{Client, Connector, Method};

use crate::methods::{node, registration};
use crate::registration::{InfoRequest, PluginInfo, RegistrationStatus};
use crate::v1::node_service_capability::{Type, rpc};
use crate::v1::{
    NodeExpandVolumeRequest, NodeGetCapabilitiesRequest, NodeGetInfoRequest, NodeGetInfoResponse,
    NodeGetVolumeStatsRequest, NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest,
    NodeUnstageVolumeRequest, VolumeUsage,
};

/// 4 MiB: gRPC's usual bound of an answer, as kubelets have it.
pub const ANSWER_MAX: usize = 4 << 20;
/// 10 s for the connection, as kubelets have it with registrars.
const CONNECT: Duration = Duration::from_secs(10);
/// 4 KiB of a driver's words.
const WORDS_MAX: usize = 4 << 10;

/// Why a call did not go well.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CallError {
    /// The driver has answered with an error. In the words of Go's gRPC, as a kubelet shows it.
    #[error("rpc error: code = {code} desc = {words}")]
    Answered {
        /// Its code, as gRPC calls it.
        code: &'static str,
        /// Its words, at most 4 KiB.
        words: String,
        /// Whether the call may have done its work all the same, wholly or in part.
        is_uncertain: bool,
    },
    /// No answer in time.
    #[error("rpc error: code = DeadlineExceeded desc = context deadline exceeded")]
    Late,
}

impl CallError {
    /// Whether the call may have done its work all the same: then it has to be undone as if it had
    /// (`isFinalError` of `pkg/volume/csi/csi_client.go`).
    pub fn is_uncertain(&self) -> bool {
        match self {
            CallError::Answered { is_uncertain, .. } => *is_uncertain,
            CallError::Late => true,
        }
    }

    /// The code, as gRPC calls it.
    pub fn code(&self) -> &'static str {
        match self {
            CallError::Answered { code, .. } => code,
            CallError::Late => "DeadlineExceeded",
        }
    }
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        // So the client itself says that the deadline in the request has passed.
        if status.code() == Code::Cancelled && status.message() == "Timeout expired" {
            return CallError::Late;
        }
        let is_uncertain = matches!(
            status.code(),
            Code::Cancelled
                | Code::DeadlineExceeded
                | Code::Unavailable
                | Code::ResourceExhausted
                | Code::Aborted
                | Code::Unknown
                // So the client says that an answer is over the bound, where others say `ResourceExhausted`.
                | Code::OutOfRange
        )
        // What is no answer of the driver's: a connection that ended in the middle. Its status has a source, and the driver's none.
        || std::error::Error::source(&status).is_some();
        let words = status.message();
        let words = words.get(..words.floor_char_boundary(WORDS_MAX)).unwrap_or_default().to_owned();
        CallError::Answered { code: name(status.code()), words, is_uncertain }
    }
}

/// As Go's gRPC calls them.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

async fn connect(socket: &Path) -> Result<Client, CallError> {
    let path = socket.to_owned();
    // Servers in Go want an authority, and kubelets give this one.
    let address = Endpoint::from_static("http://localhost").connect_timeout(CONNECT);
    let connector = Connector::new(move || tokio::net::UnixStream::connect(path.clone()));
    let channel = connector.connect(address).await.map_err(|error| {
        let mut words = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(inner) = source {
            words = inner.to_string();
            source = inner.source();
        }
        CallError::Answered {
            code: "Unavailable",
            words: format!(
                "connection error: desc = \"transport: Error while dialing: dial unix {}: {words}\"",
                socket.display()
            ),
            is_uncertain: true,
        }
    })?;
    Ok(Client::new(channel, ANSWER_MAX))
}

/// One call on a connection of its own.
async fn call<Q: Message, A: Message + Default>(
    socket: &Path,
    method: Method<Q, A>,
    body: Q,
    (limit, answered_within): (Duration, Duration),
) -> Result<A, CallError> {
    let mut request = Request::new(body);
    request.set_timeout(answered_within);
    let answer = async { Ok(connect(socket).await?.call(method, request).await?) };
    tokio::time::timeout(limit, answer).await.unwrap_or(Err(CallError::Late))
}

/// Who registers a plugin.
#[derive(Debug, Clone)]
pub struct Registrar {
    socket: PathBuf,
}

impl Registrar {
    /// The one that serves this socket.
    pub fn at(socket: &Path) -> Registrar {
        Registrar { socket: socket.to_owned() }
    }

    /// What it registers.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn info(&self, limit: Duration) -> Result<PluginInfo, CallError> {
        call(&self.socket, registration::GET_INFO, InfoRequest {}, (CONNECT + limit, limit)).await
    }

    /// Tells it what became of the registration.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn notify(&self, error: Option<&str>, limit: Duration) -> Result<(), CallError> {
        let status = RegistrationStatus {
            plugin_registered: error.is_none(),
            error: error.unwrap_or_default().to_owned(),
        };
        let told = registration::NOTIFY_REGISTRATION_STATUS;
        call(&self.socket, told, status, (CONNECT + limit, limit)).await.map(drop)
    }
}

/// A driver's node service.
#[derive(Debug, Clone)]
pub struct Driver {
    socket: PathBuf,
    limit: Duration,
}

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident = $method:ident($request:ty) -> $answer:ty { $take:expr };)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            /// See [`CallError`].
            pub async fn $name(&self, body: $request) -> Result<$answer, CallError> {
                let answer = call(&self.socket, node::$method, body, (self.limit, self.limit)).await?;
                Ok($take(answer))
            }
        )*
    };
}

impl Driver {
    /// The one that serves this socket; `limit` holds for each call, its connection included.
    pub fn at(socket: &Path, limit: Duration) -> Driver {
        Driver { socket: socket.to_owned(), limit }
    }

    /// The same driver, with another time for each call.
    #[must_use]
    pub fn within(self, limit: Duration) -> Driver {
        Driver { limit, ..self }
    }

    calls! {
        /// Stages a volume on the node.
        stage = NODE_STAGE_VOLUME(NodeStageVolumeRequest) -> () { |_| () };
        /// Undoes it.
        unstage = NODE_UNSTAGE_VOLUME(NodeUnstageVolumeRequest) -> () { |_| () };
        /// Shows a volume to a pod.
        publish = NODE_PUBLISH_VOLUME(NodePublishVolumeRequest) -> () { |_| () };
        /// Undoes it.
        unpublish = NODE_UNPUBLISH_VOLUME(NodeUnpublishVolumeRequest) -> () { |_| () };
        /// Makes what is on a volume as large as the volume is. The size that it has then, if the driver says it.
        expand = NODE_EXPAND_VOLUME(NodeExpandVolumeRequest) -> i64 {
            |answer: crate::v1::NodeExpandVolumeResponse| answer.capacity_bytes
        };
        /// What a volume holds.
        stats = NODE_GET_VOLUME_STATS(NodeGetVolumeStatsRequest) -> Vec<VolumeUsage> {
            |answer: crate::v1::NodeGetVolumeStatsResponse| answer.usage
        };
        /// What the driver calls the node, and where it lies.
        info_of = NODE_GET_INFO(NodeGetInfoRequest) -> NodeGetInfoResponse { std::convert::identity };
        /// What it can do.
        capabilities_of = NODE_GET_CAPABILITIES(NodeGetCapabilitiesRequest) -> Vec<rpc::Type> { known };
    }

    /// What the driver calls the node, and where it lies.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn info(&self) -> Result<NodeGetInfoResponse, CallError> {
        self.info_of(NodeGetInfoRequest {}).await
    }

    /// What it can do.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn capabilities(&self) -> Result<Vec<rpc::Type>, CallError> {
        self.capabilities_of(NodeGetCapabilitiesRequest {}).await
    }
}

impl Driver {
    /// Calls a method that is not the node's, as bytes: what the message says beyond what is known here comes to the driver, and its
    /// answer back.
    ///
    /// # Errors
    /// The driver's, with its code, its words up to 4 KiB and its details. `DeadlineExceeded`, `Unavailable` and `ResourceExhausted`
    /// as a client in Go has them: then the call may have done its work all the same.
    pub async fn pass(&self, path: &'static str, message: Bytes, answer_max: usize) -> Result<Bytes, Status> {
        let mut request = Request::new(message);
        request.set_timeout(self.limit);
        let answer = async {
            let client = connect(&self.socket).await.map_err(|error| match error {
                CallError::Answered { words, .. } => Status::unavailable(words),
                CallError::Late => late(),
            })?;
            client
                .answers_up_to(answer_max)
                .call_bytes(path, request)
                .await
                .map_err(|status| as_in_go(&status))
        };
        tokio::time::timeout(self.limit, answer).await.unwrap_or_else(|_| Err(late()))
    }
}

fn late() -> Status {
    Status::deadline_exceeded("context deadline exceeded")
}

/// What the client itself says in other codes than one in Go, by which sidecars decide whether a call may have done its work.
fn as_in_go(status: &Status) -> Status {
    let words = status.message();
    let words = words.get(..words.floor_char_boundary(WORDS_MAX)).unwrap_or_default();
    let code = match status.code() {
        Code::Cancelled if words == "Timeout expired" => return late(),
        Code::OutOfRange if words.contains("message length too large") => Code::ResourceExhausted,
        // No answer of the driver's: its connection ended in the middle.
        _ if std::error::Error::source(status).is_some() => Code::Unavailable,
        code => code,
    };
    Status::with_details(code, words, Bytes::copy_from_slice(status.details()))
}

fn known(answer: crate::v1::NodeGetCapabilitiesResponse) -> Vec<rpc::Type> {
    let types = answer.capabilities.into_iter().filter_map(|one| {
        let Type::Rpc(rpc) = one.r#type?;
        rpc::Type::try_from(rpc.r#type).ok()
    });
    types.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_as_a_kubelet_tells_it() {
        let error = CallError::from(Status::not_found("volume \"v\" is not there"));
        assert_eq!(error.to_string(), "rpc error: code = NotFound desc = volume \"v\" is not there");
        assert!(!error.is_uncertain() && CallError::Late.is_uncertain());
        assert!(CallError::from(Status::aborted("x")).is_uncertain());
        let long = CallError::from(Status::internal("ü".repeat(100_000)));
        assert!(long.to_string().len() < 5000);
    }

    #[tokio::test]
    async fn nobody_there_is_an_answer() {
        let driver = Driver::at(Path::new("/nowhere/csi.sock"), Duration::from_secs(1));
        let error = driver.info().await.unwrap_err();
        assert_eq!(error.code(), "Unavailable");
        assert!(error.to_string().contains("/nowhere/csi.sock"), "{error}");
    }

    #[tokio::test]
    async fn one_that_takes_the_connection_and_says_nothing_is_left() {
        let dir = std::env::temp_dir().join(format!("csi-silent-{}", std::process::id()));
        let _gone = std::fs::remove_file(&dir);
        let listener = std::os::unix::net::UnixListener::bind(&dir).unwrap();
        let driver = Driver::at(&dir, Duration::from_millis(200));
        assert_eq!(driver.info().await, Err(CallError::Late));
        drop(listener);
        std::fs::remove_file(&dir).unwrap();
    }
}
