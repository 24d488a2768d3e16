//! The log: lines on the standard error.

use std::ffi::OsStr;
use std::io::IsTerminal as _;

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

/// Crates that write what they sent or received into the log, Secrets among it: whole answers of the API server that could not
/// be read, at WARN and below.
const TELLS_BODIES: [&str; 1] = ["kube_client"];

/// Starts the log. `RUST_LOG` wins over `filter`.
pub(crate) fn start(filter: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(filter));
    let no_color = std::env::var_os("NO_COLOR");
    let has_color = has_color(std::io::stderr().is_terminal(), no_color.as_deref());
    subscriber(filter, has_color, std::io::stderr).init();
}

/// What the log is made of. Whatever the filter lets through, of [`TELLS_BODIES`] no more than errors are written.
fn subscriber<W>(filter: EnvFilter, has_color: bool, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_ansi(has_color).with_writer(writer);
    tracing_subscriber::registry().with(filter).with(lines.with_filter(filter_fn(keeps_secrets)))
}

fn keeps_secrets(metadata: &Metadata<'_>) -> bool {
    let of = metadata.target().split("::").next().unwrap_or_default();
    metadata.is_span() || *metadata.level() == Level::ERROR || !TELLS_BODIES.contains(&of)
}

/// The log of a daemon whose filter is `filter`, written to `writer`: for tests of what it says.
pub fn to(
    filter: &str,
    writer: impl Fn() -> Box<dyn std::io::Write> + Send + Sync + 'static,
) -> impl Subscriber + Send + Sync {
    subscriber(EnvFilter::new(filter), false, writer)
}

/// Colour is for terminals, and for those who have not asked for none (<https://no-color.org>: a value that is not empty).
fn has_color(is_terminal: bool, no_color: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Lines(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn whatever_the_filter_says_no_crate_that_tells_bodies_tells_them() {
        for filter in ["info", "trace", "info,kube_client::client=trace", "kube_client=trace"] {
            let lines = Lines::default();
            let written = lines.clone();
            tracing::subscriber::with_default(to(filter, move || Box::new(written.clone())), || {
                tracing::warn!(target: "kube_client::client", "{}", "a-whole-secret");
                tracing::trace!(target: "kube_client", "{}", "a-whole-secret");
                tracing::error!(target: "kube_client::client::builder", "failed");
                tracing::warn!(target: "kube_clients", "another crate");
            });
            let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
            assert!(!text.contains("a-whole-secret"), "{filter}: {text}");
            assert!(text.contains("failed"), "{filter}: {text}");
            assert!(text.contains("another crate"), "a crate of a like name is another: {filter}: {text}");
        }
    }

    #[test]
    fn colour_is_for_terminals_alone_and_can_be_refused() {
        let set = |value: &'static str| Some(OsStr::new(value));
        assert!(has_color(true, None) && has_color(true, set("")));
        assert!(!has_color(false, None) && !has_color(true, set("1")) && !has_color(false, set("1")));
    }
}
