//! The log: lines on the standard error.

use std::ffi::OsStr;
use std::io::IsTerminal as _;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Starts the log. `RUST_LOG` wins over `filter`: levels, and levels of targets (`info,cloud_router::upload=trace`). Directives
/// on spans and fields are refused by name: they take regular expressions, which weigh more than all else of the log.
pub(crate) fn start(filter: &str) {
    let asked = std::env::var_os("RUST_LOG").unwrap_or_default();
    let (filter, refused) = choose(&asked, filter);
    let no_color = std::env::var_os("NO_COLOR");
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(has_color(std::io::stderr().is_terminal(), no_color.as_deref()))
        .with_writer(std::io::stderr);
    tracing_subscriber::registry().with(lines).with(filter).init();
    if let Some(reason) = refused {
        tracing::warn!(RUST_LOG = ?asked, reason, "RUST_LOG is not understood and has no effect; write levels and TARGET=LEVEL, with commas between");
    }
}

/// What is logged where `asked` is in `RUST_LOG`, and what is wrong with that.
fn choose(asked: &OsStr, filter: &str) -> (Targets, Option<String>) {
    let own = || filter.parse().unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO));
    if asked.is_empty() {
        return (own(), None);
    }
    let Some(asked) = asked.to_str() else { return (own(), Some(String::from("it is not UTF-8"))) };
    if asked.contains(['[', '{']) {
        return (own(), Some(String::from("directives on spans and fields are not taken")));
    }
    match asked.parse() {
        Ok(targets) => (targets, None),
        Err(error) => (own(), Some(tracing_subscriber::filter::ParseError::to_string(&error))),
    }
}

/// Colour is for terminals, and for those who have not asked for none (<https://no-color.org>: a value that is not empty).
fn has_color(is_terminal: bool, no_color: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_log_wins_and_is_refused_where_it_is_not_understood() {
        use tracing::Level;
        let (targets, refused) = choose(OsStr::new(""), "info,s2n_quic=warn");
        assert!(refused.is_none() && targets.would_enable("edge", &Level::INFO));
        assert!(!targets.would_enable("s2n_quic", &Level::INFO));
        let (targets, refused) = choose(OsStr::new("error,cloud_router::upload=trace"), "info");
        assert!(refused.is_none() && targets.would_enable("cloud_router::upload", &Level::TRACE));
        assert!(!targets.would_enable("edge", &Level::INFO));
        for spans in ["[link]=debug", "edge=loud"] {
            let (targets, refused) = choose(OsStr::new(spans), "info");
            assert!(refused.is_some() && targets.would_enable("edge", &Level::INFO), "{spans}");
        }
    }

    #[test]
    fn colour_is_for_terminals_alone_and_can_be_refused() {
        let set = |value: &'static str| Some(OsStr::new(value));
        assert!(has_color(true, None) && has_color(true, set("")));
        assert!(!has_color(false, None) && !has_color(true, set("1")) && !has_color(false, set("1")));
    }
}
