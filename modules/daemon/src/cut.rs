//! How long a field of the log is at the most: others choose what is in it.

use std::error::Error;
use std::fmt::{self, Debug, Write};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::{RecordFields, VisitOutput as _};
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultVisitor, Writer};

/// 256 bytes of a field: the longest names of Kubernetes have 253.
const FIELD: usize = 256;
/// 4 KiB of a message: a sentence with its causes.
const MESSAGE: usize = 4 << 10;

/// 22 bytes: what says that some are left out.
const NOTE: usize = 22;

/// What `tracing` calls the sentence of a line.
const MESSAGE_FIELD: &str = "message";

/// Fields as they are written by default, each cut.
pub(crate) struct Cut;

impl<'writer> FormatFields<'writer> for Cut {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut written = Cutting(DefaultVisitor::new(writer, true));
        fields.record(&mut written);
        written.0.finish()
    }
}

struct Cutting<'a>(DefaultVisitor<'a>);

impl Visit for Cutting<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == MESSAGE_FIELD {
            return self.record_debug(field, &format_args!("{value}"));
        }
        let end = value.floor_char_boundary(most(field));
        match value.split_at_checked(end) {
            // To say that so little is left out takes more room.
            Some((kept, cut)) if cut.len() > NOTE => {
                self.0.record_debug(field, &format_args!("{kept:?}{}", Omitted(cut.len())));
            }
            _ => self.0.record_str(field, value),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = Beginning::new(most(field));
        // To write into it never fails.
        let _ = write!(text, "{value}");
        let mut cause = value.source();
        while let Some(error) = cause {
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        self.0.record_debug(field, &text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = Beginning::new(most(field));
        match write!(text, "{value:?}") {
            // What cannot be written is the default's to say.
            Err(_) => self.0.record_debug(field, value),
            Ok(()) => self.0.record_debug(field, &text),
        }
    }
}

fn most(field: &Field) -> usize {
    if field.name() == MESSAGE_FIELD { MESSAGE } else { FIELD }
}

/// Keeps the beginning of a text and counts the rest.
struct Beginning {
    most: usize,
    kept: String,
    cut: usize,
}

impl Beginning {
    fn new(most: usize) -> Self {
        Beginning { most, kept: String::new(), cut: 0 }
    }
}

impl Write for Beginning {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = if self.cut > 0 { 0 } else { self.most - self.kept.len() };
        let (kept, cut) = text.split_at(text.floor_char_boundary(room));
        self.kept.push_str(kept);
        self.cut += cut.len();
        Ok(())
    }
}

impl Debug for Beginning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kept)?;
        if self.cut > 0 { write!(f, "{}", Omitted(self.cut)) } else { Ok(()) }
    }
}

/// That so many bytes are left out.
struct Omitted(usize);

impl fmt::Display for Omitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "... ({} bytes more)", self.0)
    }
}
