//! `lifecycle.stopSignal`: the signal by which a container is told to end. Pure.

use cri::v1::Signal;
use k8s_openapi::api::core::v1::Container;

use crate::error::StepError;

/// The signal that a container wants; `None`: its image's.
///
/// # Errors
/// When there is no such signal.
pub(crate) fn of_container(container: &Container) -> Result<Option<Signal>, StepError> {
    let Some(name) = container.lifecycle.as_ref().and_then(|own| own.stop_signal.as_deref()) else {
        return Ok(None);
    };
    // `SIGRTMIN+1` is `SIGRTMINPLUS1` in the runtime's interface.
    let spelt = name.replace('+', "PLUS").replace('-', "MINUS");
    let known = Signal::from_str_name(&spelt).filter(|signal| *signal != Signal::RuntimeDefault);
    let shown: String = name.chars().take(64).collect();
    known.map(Some).ok_or_else(|| StepError::Config(format!("lifecycle.stopSignal `{shown}` is no signal")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(name: &str) -> Result<Option<Signal>, StepError> {
        of_container(
            &serde_json::from_value(json!({"name": "c", "lifecycle": {"stopSignal": name}})).unwrap(),
        )
    }

    #[test]
    fn kubernetes_names_are_the_runtimes_signals() {
        assert_eq!(of("SIGUSR1"), Ok(Some(Signal::Sigusr1)));
        assert_eq!(of("SIGRTMIN+3").unwrap().unwrap().as_str_name(), "SIGRTMINPLUS3");
        assert_eq!(of("SIGRTMAX-14").unwrap().unwrap().as_str_name(), "SIGRTMAXMINUS14");
        assert_eq!(of_container(&Container::default()), Ok(None));
        for bad in ["", "TERM", "SIGNONE", "RUNTIME_DEFAULT", "15"] {
            assert_eq!(of(bad), Err(StepError::Config(format!("lifecycle.stopSignal `{bad}` is no signal"))));
        }
    }
}
