//! What became of a request that failed.

use kubewatch::status_code;

/// An error and its causes in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_line = cause.to_string();
        if !line.contains(&cause_line) {
            line.push_str(": ");
            line.push_str(&cause_line);
        }
        source = cause.source();
    }
    line
}

/// What the server said to a refusal, or what went wrong on the way.
pub(crate) fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => chain(other),
    }
}

/// Gone, or changed meanwhile: the watch tells it soon, and then it is looked at again.
pub(crate) fn is_stale(error: &kube::Error) -> bool {
    matches!(status_code(error), Some(404 | 409 | 410))
}

/// `Ok` for what the watch will tell about.
pub(crate) fn unless_stale<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(error) if !is_stale(&error) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}
