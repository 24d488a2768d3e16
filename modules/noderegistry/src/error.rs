//! Why the register did not do what it was asked to.

use std::time::Duration;

use beehive::Fault;
use thiserror::Error;

use crate::plan::Refusal;

/// 5 s: what a node is asked to wait when the register could not be read or written.
const SOON: Duration = Duration::from_secs(5);
/// 60 s: what a node is asked to wait that is not let in until a person has done something on its machine, or lets its name in again.
const LATE: Duration = Duration::from_secs(60);
/// 10 s: what a node is asked to wait that `keadm adopt` lets in again. Kubernetes' pod garbage collector removes the pods of a Node
/// that is gone after 40 s (quarantineTime of pkg/controller/podgc): whoever deleted it by mistake and adopts it at once is in time. A
/// thousand such nodes are 133 hellos a second, of which CloudHub lets 100 as far as the register.
const ADOPTABLE: Duration = Duration::from_secs(10);

/// The register could not be read or written now.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// The API server refused or could not be reached.
    #[error("cannot read or write {what} `{name}`: {}", in_words(cause))]
    Api {
        /// Of which kind.
        what: &'static str,
        /// Its name.
        name: String,
        /// Why; told in words with the cure, and not again as a source.
        cause: Box<kube::Error>,
    },
    /// An object of it is not understood: nothing else is touched by that.
    #[error("{refusal} ({why})")]
    Odd {
        /// What that means for whoever needs it.
        refusal: Refusal,
        /// What is odd.
        why: String,
    },
    /// Others wrote all the time.
    #[error("{what} `{name}` is written by others all the time: try again")]
    Contended {
        /// Of which kind.
        what: &'static str,
        /// Its name.
        name: String,
    },
}

impl RegistryError {
    pub(crate) fn api(what: &'static str, name: &str, cause: kube::Error) -> Self {
        RegistryError::Api { what, name: name.to_owned(), cause: Box::new(cause) }
    }

    /// An odd object refuses; anything else is an error still. What is odd is for the log alone.
    fn refusal(self) -> Result<Refusal, Self> {
        match self {
            RegistryError::Odd { refusal, why } => {
                tracing::warn!(%refusal, why, "an object of the register is not understood");
                Ok(refusal)
            }
            other => Err(other),
        }
    }

    pub(crate) fn contended(what: &'static str, name: &str) -> Self {
        RegistryError::Contended { what, name: name.to_owned() }
    }
}

/// What the API server answered, or what kept it from answering, and the cure.
fn in_words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => {
            let cure = match status.code {
                401 | 403 => {
                    ": whoever asks needs the rights for it (CloudCore its RBAC, keadm an administrator's kubeconfig)"
                }
                404 => ": install CloudCore's definitions first (`keadm init`)",
                _ => "",
            };
            format!("the API server answers {} ({}){cure}", status.code, status.message.trim_end())
        }
        other => format!("{}: is the API server there?", Fault::from_error(other).reason),
    }
}

/// Why a node's session is not admitted.
#[derive(Debug, Error)]
pub enum AdmissionError {
    /// It must not be.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nobody can say now.
    #[error("the register of nodes cannot be read now")]
    Unavailable(#[source] RegistryError),
}

impl From<RegistryError> for AdmissionError {
    fn from(error: RegistryError) -> Self {
        error.refusal().map_or_else(AdmissionError::Unavailable, AdmissionError::Refused)
    }
}

impl AdmissionError {
    /// How long the node is to wait: long where a person has to do something first.
    pub fn wait(&self) -> Duration {
        match self {
            AdmissionError::Refused(Refusal::Deleted(_) | Refusal::NodeEnding(_) | Refusal::Foreign(_)) => {
                ADOPTABLE
            }
            AdmissionError::Refused(_) => LATE,
            AdmissionError::Unavailable(_) => SOON,
        }
    }
}

/// Why a node gets no certificate.
#[derive(Debug, Error)]
pub enum EnrolmentError {
    /// It must not have one.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nobody can say now.
    #[error("the register of nodes cannot be written now")]
    Unavailable(#[source] RegistryError),
}

impl From<RegistryError> for EnrolmentError {
    fn from(error: RegistryError) -> Self {
        error.refusal().map_or_else(EnrolmentError::Unavailable, EnrolmentError::Refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::NodeName;

    #[test]
    fn what_the_api_server_answered_is_said_once_with_the_cure() {
        for (code, message, cure) in [
            (404, "404 page not found\n", "keadm init"),
            (403, "jointokens is forbidden", "rights"),
            (500, "etcd has no leader", "etcd"),
        ] {
            let status = kube::core::Status::failure(message, "Because").with_code(code).boxed();
            let error = RegistryError::api("JoinToken", "a1", kube::Error::Api(status));
            let words = Fault::from_error(&error).reason;
            assert!(words.contains(message.trim_end()) && words.contains(cure), "{words}");
            assert!(!words.contains("Status {") && !words.contains('\n'), "{words}");
        }
    }

    #[test]
    fn a_node_that_may_be_adopted_asks_again_before_its_pods_are_collected() {
        let node = || NodeName::parse("edge-1").unwrap();
        let waits = [
            Refusal::Deleted(node()),
            Refusal::NodeEnding(node()),
            Refusal::Foreign(node()),
            Refusal::Barred(node()),
            Refusal::NotLiving(node()),
            Refusal::NotRegistered(node()),
        ]
        .map(|refusal| AdmissionError::Refused(refusal).wait().as_secs());
        assert_eq!(waits, [10, 10, 10, 60, 60, 60]);
    }
}
