//! The log: lines on the standard error.

use std::ffi::OsStr;
use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Starts the log. `RUST_LOG` wins over `filter`.
pub(crate) fn start(filter: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(filter));
    let no_color = std::env::var_os("NO_COLOR");
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(has_color(std::io::stderr().is_terminal(), no_color.as_deref()))
        .with_writer(std::io::stderr)
        .init();
}

/// Colour is for terminals, and for those who have not asked for none (<https://no-color.org>: a value that is not empty).
fn has_color(is_terminal: bool, no_color: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_for_terminals_alone_and_can_be_refused() {
        let set = |value: &'static str| Some(OsStr::new(value));
        assert!(has_color(true, None) && has_color(true, set("")));
        assert!(!has_color(false, None) && !has_color(true, set("1")) && !has_color(false, set("1")));
    }
}
