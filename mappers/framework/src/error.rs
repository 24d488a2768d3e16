//! Why something is refused, and why a mapper ends.

use dmi::SocketError;
use thiserror::Error;

/// 253 bytes: what Kubernetes allows for a name.
pub(crate) const NAME_MAX: usize = 253;
/// 4096: how many devices one mapper serves.
pub(crate) const DEVICES_MAX: usize = 4096;
/// 4096: how many models it keeps.
pub(crate) const MODELS_MAX: usize = 4096;

/// Why a device or a property cannot be served as it is described. It stays so until its description changes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct InvalidSetting(String);

impl InvalidSetting {
    /// With a sentence that says what is wrong and what would be right.
    pub fn new(sentence: impl Into<String>) -> Self {
        InvalidSetting(sentence.into())
    }
}

/// Why a mapper ended.
#[derive(Debug, Error)]
pub enum MapperError {
    /// Its socket cannot be served.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// What was sent to devices is not known.
    #[error(
        "cannot read which commands were sent from `{}`: mend the file, or remove it and accept that they are sent again",
        path.display()
    )]
    CommandLog {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another mapper runs with this config.
    #[error(
        "another mapper keeps its commands in `{}` and runs: end it, or give this one a grpc_server.socket_path and a common.name of its own",
        .0.display()
    )]
    Twice(std::path::PathBuf),
    /// Its REST interface cannot be served.
    #[error("the REST interface cannot be served: {0}")]
    Rest(String),
    /// The machine gives no thread or no runtime for the mapper.
    #[error("cannot start the mapper's thread: check the limits of processes and open files")]
    Thread(#[source] std::io::Error),
    /// The config opens addresses that are open anyway.
    #[error(
        "common.allowed_targets has no effect: the mapper of `{0}` closes no address to its devices; remove it"
    )]
    AllowedTargets(String),
    /// The config is for another protocol.
    #[error(
        "the config says protocol `{configured}`, and this mapper speaks `{spoken}`; set common.protocol"
    )]
    Protocol {
        /// What the config says.
        configured: String,
        /// What the mapper speaks.
        spoken: String,
    },
    /// The mapper failed again and again.
    #[error("the mapper gave up: {0}")]
    GaveUp(String),
    /// The protocol blocks the mapper's thread, so that no device is served any more. The process has to end.
    #[error("the mapper is stopped: {0}; a protocol must never block, only await")]
    Blocked(String),
    /// Not everything stopped in time.
    #[error("the mapper did not stop within {0} s")]
    Late(u64),
}

/// Why a device or model was not taken into the panel.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum PanelError {
    #[error("{0} has no name")]
    NoName(&'static str),
    #[error("a name or namespace has more than {NAME_MAX} bytes")]
    LongName,
    #[error("there are {DEVICES_MAX} devices already")]
    TooManyDevices,
    #[error("there are {MODELS_MAX} models already")]
    TooManyModels,
}
