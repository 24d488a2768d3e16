//! The kubelet's words about images. Pure.

use std::time::Duration;

use cri::Error as RuntimeError;

/// The reasons of a pull that has just failed, each with what the runtime's word begins with. As in the CRI.
const NAMED: [(&str, &str); 2] = [
    ("RegistryUnavailable", "the registry is unavailable"),
    ("SignatureValidationFailed", "the signature validation failed"),
];
/// Of any other.
const FAILED: &str = "ErrImagePull";

/// Whether a container waits with this reason because a pull has just failed.
pub(crate) fn is_failed_pull(reason: &str) -> bool {
    reason == FAILED || NAMED.iter().any(|(named, _)| *named == reason)
}

/// What is said of an image while its next pull waits.
pub(crate) fn back_off(image: &str) -> String {
    format!("Back-off pulling image \"{image}\"")
}

/// All the errors of one pull, with each credential that was tried: those that differ, once each.
pub(crate) fn of_errors(errors: &[RuntimeError]) -> String {
    let mut texts: Vec<String> = Vec::new();
    for error in errors {
        let text = error.pull_text();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    match texts.as_slice() {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    }
}

/// Reason and message of a container whose image could not be pulled.
pub(crate) fn failed_pull(image: &str, text: &str) -> (&'static str, String) {
    for (reason, because) in NAMED {
        if let Some(rest) = text.strip_prefix(reason) {
            return (reason, format!("image pull failed for {image} because {because}{rest}"));
        }
    }
    (FAILED, text.to_owned())
}

/// A time as Go prints it, in whole milliseconds: `1.2s`, `1m2.05s`, `830ms`, `0s`.
pub(crate) fn duration(time: Duration) -> String {
    let millis = time.as_millis();
    if millis < 1000 {
        return if millis == 0 { "0s".to_owned() } else { format!("{millis}ms") };
    }
    let (hours, minutes, rest) = (millis / 3_600_000, millis / 60_000 % 60, millis % 60_000);
    let fraction = format!("{:03}", rest % 1000);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    let seconds = format!("{}{point}{fraction}s", rest / 1000);
    match (hours, minutes) {
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_go_shows_them() {
        for (millis, shown) in [
            (0, "0s"),
            (7, "7ms"),
            (999, "999ms"),
            (1000, "1s"),
            (1200, "1.2s"),
            (1234, "1.234s"),
            (60_000, "1m0s"),
            (62_050, "1m2.05s"),
            (3_600_001, "1h0m0.001s"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), shown);
        }
    }

    #[test]
    fn a_failed_pull_has_the_kubelets_reason() {
        let told = |message: &str| RuntimeError::Failed { call: "PullImage", message: message.to_owned() };
        let one = of_errors(&[told("a"), told("a")]);
        assert_eq!(one, "a");
        assert_eq!(of_errors(&[told("a"), told("b"), told("a")]), "[a, b]");
        assert_eq!(failed_pull("x", &one), ("ErrImagePull", "a".to_owned()));
        let (reason, message) = failed_pull("x:1", "RegistryUnavailable: no route");
        assert_eq!(reason, "RegistryUnavailable");
        assert_eq!(message, "image pull failed for x:1 because the registry is unavailable: no route");
        assert!(is_failed_pull(reason) && is_failed_pull(FAILED) && !is_failed_pull("ImagePullBackOff"));
    }
}
