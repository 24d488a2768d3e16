//! What a status code means: for a property, for a request, for the connection (Part 4, StatusCode).

use framework::Fault;
use opcua_types::{Error, StatusCode, SubStatusCode};

/// The server says that this node, or this attribute of it, is not to be had. Any other bad code says that there is no value now.
const REFUSED: [StatusCode; 17] = [
    StatusCode::BadAttributeIdInvalid,
    StatusCode::BadDataEncodingInvalid,
    StatusCode::BadDataEncodingUnsupported,
    StatusCode::BadEncodingError,
    StatusCode::BadEncodingLimitsExceeded,
    StatusCode::BadIndexRangeInvalid,
    StatusCode::BadIndexRangeNoData,
    StatusCode::BadInternalError,
    StatusCode::BadInvalidArgument,
    StatusCode::BadNodeIdInvalid,
    StatusCode::BadNodeIdUnknown,
    StatusCode::BadNotImplemented,
    StatusCode::BadNotReadable,
    StatusCode::BadNotSupported,
    StatusCode::BadResourceUnavailable,
    StatusCode::BadSecurityModeInsufficient,
    StatusCode::BadUserAccessDenied,
];
/// The session or its channel is no more, and the request was not served.
const LOST: [StatusCode; 15] = [
    StatusCode::BadConnectionRejected,
    StatusCode::BadNotConnected,
    StatusCode::BadSecureChannelClosed,
    StatusCode::BadSecureChannelIdInvalid,
    StatusCode::BadSecureChannelTokenUnknown,
    StatusCode::BadSecurityChecksFailed,
    StatusCode::BadServerHalted,
    StatusCode::BadServerNotConnected,
    StatusCode::BadSessionClosed,
    StatusCode::BadSessionIdInvalid,
    StatusCode::BadSessionNotActivated,
    StatusCode::BadShutdown,
    StatusCode::BadTcpSecureChannelUnknown,
    StatusCode::BadTooManySessions,
    StatusCode::BadIdentityTokenRejected,
];
/// The connection broke, and nobody knows what became of the request.
const BROKEN: [StatusCode; 7] = [
    StatusCode::BadCommunicationError,
    StatusCode::BadConnectionClosed,
    StatusCode::BadDecodingError,
    StatusCode::BadDisconnect,
    StatusCode::BadSequenceNumberInvalid,
    StatusCode::BadTcpInternalError,
    StatusCode::BadUnknownResponse,
];
/// The request, or its answer, was too large: half of it may do.
const TOO_LARGE: [StatusCode; 7] = [
    StatusCode::BadEncodingLimitsExceeded,
    StatusCode::BadRequestTooLarge,
    StatusCode::BadResponseTooLarge,
    StatusCode::BadTcpMessageTooLarge,
    StatusCode::BadTcpNotEnoughResources,
    StatusCode::BadTooManyMonitoredItems,
    StatusCode::BadTooManyOperations,
];
/// The answer was too large, whatever was asked for in it: for us, or for what the server sends.
const ANSWER_TOO_LARGE: [StatusCode; 4] = [
    StatusCode::BadEncodingLimitsExceeded,
    StatusCode::BadResponseTooLarge,
    StatusCode::BadTcpMessageTooLarge,
    StatusCode::BadTcpNotEnoughResources,
];
/// An answer came whole, and holds more than we take, or is none.
const UNDECODABLE: [StatusCode; 2] = [StatusCode::BadDecodingError, StatusCode::BadEncodingLimitsExceeded];
/// The server does not take the user.
const LOGIN: [StatusCode; 4] = [
    StatusCode::BadIdentityTokenInvalid,
    StatusCode::BadIdentityTokenRejected,
    StatusCode::BadUserAccessDenied,
    StatusCode::BadUserSignatureInvalid,
];

/// A code by its name in OPC UA, as each of its tools has it, and what that means; one of a maker's own by its number.
pub(crate) fn named(status: StatusCode) -> String {
    match status.sub_code() {
        SubStatusCode::Invalid => format!("status code {:#010X}", status.bits()),
        code => format!("{}: {}", code.name(), code.description().trim()),
    }
}

/// Why a node has no value, or was not written.
pub(crate) fn of_node(status: StatusCode) -> Fault {
    if is_in(&REFUSED, status) { Fault::Device(named(status)) } else { Fault::NoValue(named(status)) }
}

/// Why a request came to nothing.
pub(crate) fn of_request(error: &Error) -> Fault {
    let status = error.status();
    if is_in(&LOST, status) {
        Fault::NotSent(named(status))
    } else if is_in(&BROKEN, status) {
        Fault::Link(named(status))
    } else if is_in(&[StatusCode::BadTimeout, StatusCode::BadRequestTimeout], status) {
        // Each answer names its request: one that comes late is nobody's.
        Fault::Silent(named(status))
    } else {
        Fault::Device(named(status))
    }
}

/// Whether a smaller request may be served.
pub(crate) fn is_too_large(status: StatusCode) -> bool {
    is_in(&TOO_LARGE, status)
}

/// Whether it is the answer that was too large: of one node alone it will be so again.
pub(crate) fn is_answer_too_large(status: StatusCode) -> bool {
    is_in(&ANSWER_TOO_LARGE, status)
}

/// Whether a Publish that ends so may have taken notifications with it. Of an answer that cannot be decoded the library knows only that it
/// does not come.
pub(crate) fn loses_notifications(status: StatusCode) -> bool {
    is_answer_too_large(status) || is_in(&[StatusCode::BadConnectionClosed], status)
}

/// Whether an answer came that is not taken, on a connection that is as good as before.
pub(crate) fn is_undecodable(status: StatusCode) -> bool {
    is_in(&UNDECODABLE, status)
}

/// Whether it is the user who is refused.
pub(crate) fn is_of_login(status: StatusCode) -> bool {
    is_in(&LOGIN, status)
}

/// Whether it is about a certificate: of ours, as the server sees it, since the server's was looked at before.
pub(crate) fn is_of_certificate(status: StatusCode) -> bool {
    let name = status.sub_code().name();
    name.starts_with("BadCertificate") || is_in(&[StatusCode::BadSecurityChecksFailed], status)
}

fn is_in(codes: &[StatusCode], status: StatusCode) -> bool {
    codes.iter().any(|code| code.sub_code() == status.sub_code())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(status: StatusCode) -> Fault {
        of_request(&Error::new(status, "as the library says"))
    }

    #[test]
    fn a_code_says_whose_fault_it_is() {
        assert!(matches!(of_node(StatusCode::BadNodeIdUnknown), Fault::Device(_)));
        assert!(matches!(of_node(StatusCode::BadSensorFailure), Fault::NoValue(_)));
        assert!(matches!(of_node(StatusCode::BadWaitingForInitialData), Fault::NoValue(_)));
        assert!(matches!(request(StatusCode::BadTimeout), Fault::Silent(_)));
        assert!(matches!(request(StatusCode::BadSessionIdInvalid), Fault::NotSent(_)));
        assert!(matches!(request(StatusCode::BadConnectionClosed), Fault::Link(_)));
        assert!(matches!(request(StatusCode::BadTypeMismatch), Fault::Device(_)));
    }

    #[test]
    fn a_code_has_its_name_whatever_bits_come_with_it() {
        let limited = StatusCode::BadOutOfRange.set_overflow(true);
        assert!(named(limited).starts_with("BadOutOfRange: "), "{}", named(limited));
        assert!(is_too_large(StatusCode::BadTooManyOperations) && !is_too_large(StatusCode::BadTimeout));
        assert!(is_of_login(StatusCode::BadIdentityTokenRejected));
        assert!(is_of_certificate(StatusCode::BadCertificateUntrusted));
        assert!(!is_of_certificate(StatusCode::BadTimeout));
    }
}
