//! Why an external broker cannot be used, in words for whoever has to mend it. Pure.

use std::io;

use thiserror::Error;

use crate::error::{ConnectionError, MalformedPacket};

/// Why a connection to an external broker does not come about, or has ended.
#[derive(Debug, Error)]
pub(super) enum LinkFault {
    /// Its name leads nowhere.
    #[error("cannot be found: {0}")]
    NotFound(String),
    /// No connection.
    #[error("cannot be reached: {0}")]
    Unreached(#[source] io::Error),
    /// A file of the settings.
    #[error("cannot be spoken to in TLS: {0}")]
    Files(String),
    /// No TLS.
    #[error("does not agree on TLS: {0} (modules.eventBus.eventBusTLS)")]
    Handshake(#[source] io::Error),
    /// It does not answer.
    #[error("does not answer")]
    Silent,
    /// It says no.
    #[error("does not let edgecore in: {}", refusal(*.0))]
    Refused(u8),
    /// It closed the connection before it said who may come in, which some brokers do where others refuse.
    #[error("closes the connection at once, as brokers do that want TLS, another one, or none")]
    Dismissed,
    /// It closed the connection.
    #[error("closed the connection")]
    Closed,
    /// The connection broke.
    #[error("lost the connection: {0}")]
    Socket(#[source] io::Error),
    /// What it says is no MQTT.
    #[error("says what is no MQTT 3.1.1: {0}")]
    Malformed(#[from] MalformedPacket),
    /// What it says is nothing that was asked.
    #[error("answers what was not asked")]
    Unasked,
    /// What it said could not be kept: it is left to say it again.
    #[error("is left to say again what could not be kept: {0}")]
    Unsettled(#[source] ConnectionError),
    /// `edgecore` ends.
    #[error("is left: edgecore ends")]
    Ending,
}

/// CONNACK's code of MQTT 3.1.1 (section 3.2.2.3), and what to look at.
fn refusal(code: u8) -> String {
    let what = match code {
        1 => "it does not speak MQTT 3.1.1",
        2 => "it does not take the client id (mqttSubClientID, mqttPubClientID)",
        3 => "it is not available",
        4 => "wrong user name or password (mqttUsername, mqttPassword)",
        5 => "not authorized (mqttUsername, mqttPassword, or the broker's rules)",
        _ => "it says why by a code that there is not",
    };
    format!("{what} (code {code})")
}

impl From<ConnectionError> for LinkFault {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::Socket(error) => LinkFault::Socket(error),
            ConnectionError::Closed => LinkFault::Closed,
            ConnectionError::Silent | ConnectionError::Stuck => LinkFault::Silent,
            ConnectionError::MalformedPacket(error) => LinkFault::Malformed(error),
            ConnectionError::Ending => LinkFault::Ending,
            other => LinkFault::Unsettled(other),
        }
    }
}

impl LinkFault {
    /// In one word, for a condition.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            LinkFault::Unreached(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                "NothingListens"
            }
            LinkFault::Unreached(_) | LinkFault::NotFound(_) => "NotReached",
            LinkFault::Files(_) => "FilesNotUsable",
            LinkFault::Handshake(_) => "TlsRefused",
            LinkFault::Socket(error) if is_of_tls(error) => "TlsRefused",
            LinkFault::Silent => "NoAnswer",
            LinkFault::Refused(4 | 5) => "LoginRefused",
            LinkFault::Refused(_) | LinkFault::Dismissed => "Refused",
            LinkFault::Closed | LinkFault::Socket(_) | LinkFault::Ending => "ConnectionLost",
            LinkFault::Malformed(_) | LinkFault::Unasked => "NoMqtt",
            LinkFault::Unsettled(_) => "NotKept",
        }
    }
}

/// With TLS 1.3 a broker says only after the handshake that it does not take a certificate.
fn is_of_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_says_what_to_look_at() {
        for (code, reason, words) in [
            (4, "LoginRefused", "mqttPassword"),
            (5, "LoginRefused", "rules"),
            (2, "Refused", "mqttSubClientID"),
        ] {
            let fault = LinkFault::Refused(code);
            assert_eq!(fault.reason(), reason);
            assert!(fault.to_string().contains(words) && fault.to_string().contains(&format!("code {code}")));
        }
        let refused = LinkFault::Unreached(io::ErrorKind::ConnectionRefused.into());
        assert_eq!(refused.reason(), "NothingListens");
        let alert = io::Error::other(rustls::Error::HandshakeNotComplete);
        assert_eq!(LinkFault::Socket(alert).reason(), "TlsRefused");
        assert_eq!(LinkFault::Socket(io::ErrorKind::BrokenPipe.into()).reason(), "ConnectionLost");
    }
}
