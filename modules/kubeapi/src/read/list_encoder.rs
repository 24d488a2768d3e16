//! Lists as text, an object at a time: a list takes the memory of its text, and others are served while it is made.

use bytes::Bytes;
use serde_json::Value;

use crate::error::ApiError;
use crate::response::Answer;

/// 256 KiB of stored objects, some milliseconds of work, between two looks at what else there is to do.
pub(crate) const YIELD_EVERY: usize = 256 << 10;

/// 10 warnings of a list, so that they fit into the head of an answer.
const WARNINGS_MAX: usize = 10;

/// Counts work, and yields to other tasks in between.
#[derive(Default)]
pub(crate) struct Yielder(usize);

impl Yielder {
    /// After an object of so many bytes.
    pub(crate) async fn after(&mut self, bytes: usize) {
        // An object is some work whatever its size.
        self.0 += bytes + 256;
        if self.0 >= YIELD_EVERY {
            self.0 = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// An object whose last field is a list that is written as it comes.
pub(crate) struct ListEncoder {
    text: Vec<u8>,
    is_first: bool,
    yielder: Yielder,
    /// Why objects are not in it, the first few, and how many there are.
    skipped: Vec<String>,
    skipped_count: usize,
}

impl ListEncoder {
    /// Begins with the fields of `head`, which has some, and the list in `field`.
    pub(crate) fn begin(head: &Value, field: &str) -> Result<ListEncoder, ApiError> {
        let mut text = serde_json::to_vec(head).map_err(|error| ApiError::internal(&error))?;
        // The brace at its end.
        text.pop();
        text.extend_from_slice(format!(",\"{field}\":[").as_bytes());
        Ok(ListEncoder {
            text,
            is_first: true,
            yielder: Yielder::default(),
            skipped: Vec::new(),
            skipped_count: 0,
        })
    }

    /// Appends to the list; `bytes` is how large the object is that it was made of.
    pub(crate) async fn add(&mut self, item: &Value, bytes: usize) -> Result<(), ApiError> {
        if !std::mem::take(&mut self.is_first) {
            self.text.push(b',');
        }
        serde_json::to_writer(&mut self.text, item).map_err(|error| ApiError::internal(&error))?;
        self.yielder.after(bytes).await;
        Ok(())
    }

    /// An object is left out, and why.
    pub(crate) fn skip(&mut self, why: String) {
        self.skipped_count += 1;
        if self.skipped.len() < WARNINGS_MAX {
            self.skipped.push(why);
        }
    }

    pub(crate) fn end(mut self) -> Answer {
        self.text.extend_from_slice(b"]}");
        let more = self.skipped_count - self.skipped.len();
        if more > 0 {
            self.skipped.push(format!("{more} more objects cannot be read and are left out"));
        }
        Answer::Raw("application/json", Bytes::from(self.text), self.skipped)
    }
}
