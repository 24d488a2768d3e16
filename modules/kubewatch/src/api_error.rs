//! What an API server answered that refused something.

/// The code of the `Status` that it answered; `None`: it could not be reached, or its answer could not be read.
pub fn status_code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}
