//! The log: lines on the standard error. The one door to it, so that every line is thinned ([`crate::thinning`]) and cut
//! ([`crate::cut`]).

use std::ffi::OsStr;
use std::fmt::{Debug, Write as _};
use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};

use beehive::{Clock, TokioClock};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets, filter_fn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Crates that write what they sent or received into the log, Secrets among it: whole answers of the API server that could not
/// be read, at WARN and below.
const TELLS_BODIES: [&str; 1] = ["kube_client"];

/// What `rustls` says at WARN of a client that dials by an address and names that as its server, as mosquitto's do. It is answered all the
/// same, and nothing is to be mended.
const OF_EACH_DIAL_BY_ADDRESS: (&str, &str) =
    ("rustls::msgs::handshake", "Illegal SNI extension: ignoring IP address presented as hostname");

use crate::cut::Cut;
use crate::journal::{self, Graded};
use crate::thinning::{Thinning, Verdict};

/// The target of what an administrator asked a daemon to tell of itself. It is written whole.
pub(crate) const DUMP: &str = "daemon::dump";

/// Fields that say about whom or what a line is. The first of them that a line has is its subject.
const SUBJECTS: [&str; 12] = [
    "node",
    "peer",
    "client",
    "address",
    "user",
    "mapper",
    "device",
    "pod",
    "object",
    "key",
    "controller",
    "actor",
];
/// 128 bytes of a subject are looked at: the longest names of nodes, devices and MQTT clients.
const SUBJECT_BYTES: usize = 128;

/// Starts the log. `RUST_LOG` wins over `filter`: levels, and levels of targets (`info,cloud_router::upload=trace`). Directives
/// on spans and fields are refused by name: they take regular expressions, which weigh more than all else of the log.
pub fn start(filter: &str) {
    let asked = std::env::var_os("RUST_LOG").unwrap_or_default();
    let (filter, refused) = choose(&asked, filter);
    let no_color = std::env::var_os("NO_COLOR");
    let has_color = has_color(std::io::stderr().is_terminal(), no_color.as_deref());
    let is_journal = journal::is_at(std::io::stderr(), std::env::var_os(journal::STREAM).as_deref());
    subscriber(filter, has_color, Graded { writer: std::io::stderr, is_journal }).init();
    if let Some(reason) = refused {
        tracing::warn!(RUST_LOG = ?asked, reason, "RUST_LOG is not understood and has no effect; write levels and TARGET=LEVEL, with commas between");
    }
}

/// What is logged where `asked` is in `RUST_LOG`, and what is wrong with that.
fn choose(asked: &OsStr, filter: &str) -> (Targets, Option<String>) {
    if asked.is_empty() {
        return (own(filter), None);
    }
    let Some(asked) = asked.to_str() else { return (own(filter), Some(String::from("it is not UTF-8"))) };
    if asked.contains(['[', '{']) {
        return (own(filter), Some(String::from("directives on spans and fields are not taken")));
    }
    match asked.parse() {
        Ok(targets) => (targets, None),
        Err(error) => (own(filter), Some(tracing_subscriber::filter::ParseError::to_string(&error))),
    }
}

/// What is logged by the daemon's own word.
fn own(filter: &str) -> Targets {
    filter.parse().unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO))
}

/// What the log is made of. Whatever the filter lets through, of [`TELLS_BODIES`] no more than errors are written.
fn subscriber<W>(filter: Targets, has_color: bool, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Clone + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(has_color)
        .with_writer(writer.clone())
        .fmt_fields(Cut)
        .map_event_format(|format| Thinned::new(format, TokioClock::real()));
    let dumps = tracing_subscriber::fmt::layer().with_ansi(has_color).with_writer(writer);
    tracing_subscriber::registry()
        .with(filter)
        .with(lines.with_filter(filter_fn(|metadata| keeps_secrets(metadata) && !is_dump(metadata))))
        .with(dumps.with_filter(filter_fn(is_dump)))
}

fn is_dump(metadata: &Metadata<'_>) -> bool {
    metadata.is_event() && metadata.target() == DUMP
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
    let writer = Arc::new(writer);
    subscriber(own(filter), false, move || writer())
}

/// Colour is for terminals, and for those who have not asked for none (<https://no-color.org>: a value that is not empty).
fn has_color(is_terminal: bool, no_color: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty)
}

/// Lines in the form of `F`, thinned. Those of the levels debug and trace are all written: somebody has asked for them.
struct Thinned<F> {
    format: F,
    clock: TokioClock,
    thinning: Mutex<Thinning>,
}

impl<F> Thinned<F> {
    fn new(format: F, clock: TokioClock) -> Self {
        Thinned { format, clock, thinning: Mutex::default() }
    }

    fn verdict(&self, event: &Event<'_>) -> Verdict {
        if *event.metadata().level() > Level::INFO {
            return Verdict::Written { left_out: 0 };
        }
        let mut subject = Subject::default();
        event.record(&mut subject);
        let mut thinning = self.thinning.lock().unwrap_or_else(PoisonError::into_inner);
        // The name of an event is its file and line.
        thinning.line(event.metadata().name(), subject.name(), self.clock.now())
    }
}

impl<S, N, F> FormatEvent<S, N> for Thinned<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        cx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        if is_noise(event) {
            return Ok(());
        }
        let Verdict::Written { left_out } = self.verdict(event) else { return Ok(()) };
        self.format.format_event(cx, writer.by_ref(), event)?;
        if left_out > 0 {
            writeln!(writer, "  {left_out} more lines of this kind were left out before it")?;
        }
        Ok(())
    }
}

/// Whether a line is [`OF_EACH_DIAL_BY_ADDRESS`].
fn is_noise(event: &Event<'_>) -> bool {
    if *event.metadata().level() != Level::WARN {
        return false;
    }
    let mut noise = Noise::default();
    event.record(&mut noise);
    noise.has_words && (noise.is_of_crate || event.metadata().target() == OF_EACH_DIAL_BY_ADDRESS.0)
}

/// What a line has of [`OF_EACH_DIAL_BY_ADDRESS`].
#[derive(Default)]
struct Noise {
    has_words: bool,
    /// What comes from the crate `log` says its target in a field.
    is_of_crate: bool,
}

impl Visit for Noise {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.is_of_crate |= field.name() == "log.target" && value == OF_EACH_DIAL_BY_ADDRESS.0;
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            let mut begin = String::new();
            // Too long is no error: what fits is compared.
            let _ = write!(Capped(&mut begin), "{value:?}");
            self.has_words = begin.starts_with(OF_EACH_DIAL_BY_ADDRESS.1);
        }
    }
}

/// About whom or what a line is.
#[derive(Default)]
struct Subject {
    rank: Option<usize>,
    text: String,
}

impl Subject {
    fn name(&self) -> &str {
        &self.text
    }

    /// Whether this field says it better than what was found so far.
    fn is_better(&mut self, field: &Field) -> bool {
        let rank = SUBJECTS.iter().position(|name| *name == field.name());
        let is_better = rank.is_some() && self.rank.is_none_or(|best| rank < Some(best));
        if is_better {
            self.rank = rank;
            self.text.clear();
        }
        is_better
    }
}

impl Visit for Subject {
    fn record_str(&mut self, field: &Field, value: &str) {
        if self.is_better(field) {
            let _ = Capped(&mut self.text).write_str(value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if self.is_better(field) {
            // Too long is no error: what fits is the subject.
            let _ = write!(Capped(&mut self.text), "{value:?}");
            // Whoever comes from another port is the same.
            if let Some((host, port)) = self.text.rsplit_once(':')
                && !port.is_empty()
                && port.bytes().all(|byte| byte.is_ascii_digit())
            {
                self.text.truncate(host.len());
            }
        }
    }
}

/// Takes as much as a subject may have.
struct Capped<'a>(&'a mut String);

impl std::fmt::Write for Capped<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for letter in text.chars() {
            if self.0.len() + letter.len_utf8() > SUBJECT_BYTES {
                return Err(std::fmt::Error);
            }
            self.0.push(letter);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

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
    fn no_field_and_no_message_is_longer_than_it_may_be_whoever_wrote_it_and_a_dump_is_whole() {
        let written = Written::default();
        let into = written.clone();
        tracing::subscriber::with_default(to("debug", move || Box::new(into.clone())), || {
            let path = "é".repeat(30_000);
            tracing::info!(event = "called", user = "mallory", path, status = 404, "kubelet call");
            tracing::debug!(path = %path, names = ?[&path], "{path}");
            let error: &(dyn std::error::Error + 'static) = &io::Error::other("x".repeat(60_000));
            tracing::warn!(error, "failed");
            tracing::info!(target: DUMP, report = %path, "as it is now");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(
            lines[0].contains(&format!(r#"path="{}"... (59744 bytes more) status=404"#, "é".repeat(128)))
        );
        assert!(lines[0].contains(r#"kubelet call event="called" user="mallory""#), "{}", lines[0]);
        assert!(lines[0].len() < 500 && lines[1].len() < 5000 && lines[2].len() < 500, "{text}");
        assert!(lines[1].contains("... (55904 bytes more) path="), "{}", lines[1]);
        assert!(lines[2].ends_with("... (59744 bytes more)"), "{}", lines[2]);
        assert!(lines[3].len() > 60_000, "{}", lines[3].len());
    }

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

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log_of(work: impl FnOnce()) -> String {
        let written = Written::default();
        let into = Written(Arc::clone(&written.0));
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(Level::DEBUG)
            .with_writer(move || into.clone())
            .map_event_format(|format| Thinned::new(format, TokioClock::real()))
            .finish();
        tracing::subscriber::with_default(subscriber, work);
        let text = written.0.lock().unwrap().clone();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_peer_that_floods_leaves_a_few_lines_and_others_are_still_seen() {
        let text = log_of(|| {
            let skipped = |node: &str, row: u32| tracing::warn!(%node, row, "report skipped");
            for row in 0..100_000 {
                skipped("edge-1", row);
            }
            skipped("edge-2", 1);
        });
        assert!(text.len() < 10_000, "{} bytes", text.len());
        assert!(text.contains("node=edge-2 row=1"), "{text}");
        assert!(text.contains("more lines of this kind were left out before it"), "{text}");
    }

    #[test]
    fn a_stranger_is_the_same_from_every_port_whatever_the_rest_of_the_line_says() {
        let text = log_of(|| {
            for port in 1..10_000_u16 {
                let peer = std::net::SocketAddr::from(([192, 0, 2, 1], port));
                tracing::warn!(reason = "x".repeat(usize::from(port) % 50), %peer, "hello not accepted");
            }
        });
        assert!((20..25).contains(&text.lines().count()), "{}", text.lines().count());
    }

    #[test]
    fn what_somebody_asked_for_is_all_there() {
        let text = log_of(|| (0..1000).for_each(|row| tracing::debug!(node = "a", row, "detail")));
        assert_eq!(text.lines().count(), 1000);
    }

    #[test]
    fn a_client_that_dials_by_address_leaves_no_line_and_all_else_of_the_crate_does() {
        let text = log_of(|| {
            let words = "Illegal SNI extension: ignoring IP address presented as hostname (\"192.0.2.1\")";
            tracing::warn!(target: "rustls::msgs::handshake", "{words}");
            // As it comes from the crate `log`.
            tracing::warn!(target: "log", { log.target = "rustls::msgs::handshake" }, "{words}");
            tracing::warn!(target: "rustls::msgs::handshake", "Illegal SNI extension: duplicate host_name received");
            tracing::warn!(target: "edge", "{words}");
            tracing::error!(target: "rustls::msgs::handshake", "{words}");
        });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].contains("duplicate host_name received"), "{text}");
    }

    #[test]
    fn a_long_subject_is_cut_and_is_one_all_the_same() {
        let text = log_of(|| {
            for n in 0..1000 {
                let client = format!("{}{n}", "é".repeat(100));
                tracing::info!(?client, "connection refused");
            }
        });
        assert_eq!(text.lines().count(), 20);
    }
}
