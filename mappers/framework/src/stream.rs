//! Streams of cameras: properties of type STREAM, whose pictures or films are saved on the node.
//!
//! A protocol that has streams gives a [`FrameSource`] for each ([`crate::Session::frames`]). `plan` understands what is to be
//! saved, in KubeEdge's keys; a [`Recorder`] takes frames from the source, on a task of its own beside the device's actor, so that a
//! camera that is slow or silent holds up no other property; `album` is the folder. What the twin of such a property has is the path
//! of the file that was saved last.

mod album;
mod plan;
mod recorder;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;

use crate::fault::Fault;

pub(crate) use plan::StreamPlan;
pub(crate) use recorder::Recorder;

/// 16 MiB: a larger frame is not saved. A source reads no more than that of one.
pub const FRAME_MAX: usize = 16 << 20;

/// One picture of a stream, or what a decoder takes as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// At most [`FRAME_MAX`].
    pub bytes: Bytes,
    /// What they are.
    pub format: FrameFormat,
}

/// What frames are, by the endings of the files that they make. The framework transcodes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameFormat {
    /// Endings of a file with one frame; empty: one alone is no picture.
    pub pictures: &'static [&'static str],
    /// Endings of a file with frames one behind the other; empty: they make no film.
    pub films: &'static [&'static str],
}

/// JPEG pictures, and Motion JPEG.
pub const JPEG: FrameFormat = FrameFormat { pictures: &["jpg", "jpeg"], films: &["mjpeg", "mjpg"] };
/// PNG pictures, which make no film.
pub const PNG: FrameFormat = FrameFormat { pictures: &["png"], films: &[] };

/// What a picture of this `Content-Type` is. None: no picture that is saved.
pub fn picture_format(content_type: &str) -> Option<FrameFormat> {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    match kind.to_ascii_lowercase().as_str() {
        "image/jpeg" | "image/jpg" | "image/pjpeg" => Some(JPEG),
        "image/png" => Some(PNG),
        _ => None,
    }
}

/// A picture, by how it begins: what is called one may be an error in words.
///
/// # Errors
/// When it is none.
pub fn picture(bytes: Bytes, format: FrameFormat) -> Result<Frame, Fault> {
    let begin: &[u8] = if format == PNG { b"\x89PNG\r\n\x1a\n" } else { b"\xff\xd8" };
    if bytes.starts_with(begin) {
        return Ok(Frame { bytes, format });
    }
    let name = if format == PNG { "PNG" } else { "JPEG" };
    Err(Fault::Device(format!("what it sends is no {name}, whatever it calls it")))
}

/// What is to come of [`FrameSource::next`].
pub type NextFrame<'a> = Pin<Box<dyn Future<Output = Result<Frame, Fault>> + Send + 'a>>;

/// The frames of a camera, on a connection of their own, which is made when the first one is wanted.
pub trait FrameSource: Send + 'static {
    /// The first frame that begins `after` so long from now; what comes until then is passed over. It may be dropped before it is
    /// there, and is asked again after a fault: then it begins anew.
    fn next(&mut self, after: Duration) -> NextFrame<'_>;

    /// Nothing is wanted for a while: the connection is given up.
    fn rest(&mut self) {}
}
