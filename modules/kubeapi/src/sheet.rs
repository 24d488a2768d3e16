//! Lists as text, an object at a time: a list takes the memory of its text, and others are served while it is made.

use bytes::Bytes;
use serde_json::Value;

use crate::api::Answer;
use crate::failure::Failure;

/// 256 KiB of stored objects, some milliseconds of work, between two looks at what else there is to do.
pub(crate) const STRIDE: usize = 256 << 10;

/// Counts work, and lets others work in between.
#[derive(Default)]
pub(crate) struct Pace(usize);

impl Pace {
    /// After an object of so many bytes.
    pub(crate) async fn step(&mut self, bytes: usize) {
        // An object is some work whatever its size.
        self.0 += bytes + 256;
        if self.0 >= STRIDE {
            self.0 = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// An object whose last field is a list that is written as it comes.
pub(crate) struct Sheet {
    text: Vec<u8>,
    is_first: bool,
    pace: Pace,
}

impl Sheet {
    /// Begins with the fields of `head`, which has some, and the list in `field`.
    pub(crate) fn begin(head: &Value, field: &str) -> Result<Sheet, Failure> {
        let mut text = serde_json::to_vec(head).map_err(|error| Failure::internal(&error))?;
        // The brace at its end.
        text.pop();
        text.extend_from_slice(format!(",\"{field}\":[").as_bytes());
        Ok(Sheet { text, is_first: true, pace: Pace::default() })
    }

    /// Appends to the list; `bytes` is how large the object is that it was made of.
    pub(crate) async fn add(&mut self, item: &Value, bytes: usize) -> Result<(), Failure> {
        if !std::mem::take(&mut self.is_first) {
            self.text.push(b',');
        }
        serde_json::to_writer(&mut self.text, item).map_err(|error| Failure::internal(&error))?;
        self.pace.step(bytes).await;
        Ok(())
    }

    pub(crate) fn end(mut self) -> Answer {
        self.text.extend_from_slice(b"]}");
        Answer::Raw("application/json", Bytes::from(self.text))
    }
}
