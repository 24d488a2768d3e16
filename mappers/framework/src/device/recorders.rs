//! What records the streams of a device, each on a task of its own.

use std::path::Path;
use std::sync::Arc;

use futures::future::AbortHandle;

use crate::stream::Recorder;

/// What records the streams of a device.
#[derive(Default)]
pub(crate) struct Recorders {
    /// The folder below which streams are saved.
    root: Option<Arc<Path>>,
    /// Those that are to begin.
    ready: Vec<Recorder>,
    running: Vec<AbortHandle>,
}

impl Recorders {
    pub(crate) fn below(root: Option<Arc<Path>>) -> Self {
        Recorders { root, ..Recorders::default() }
    }

    /// The folder below which streams are saved.
    pub(crate) fn root(&self) -> Option<Arc<Path>> {
        self.root.clone()
    }

    /// It is to begin.
    pub(crate) fn add(&mut self, recorder: Recorder) {
        self.ready.push(recorder);
    }

    /// Starts those that are to begin.
    pub(crate) fn start(&mut self, spawn: impl Fn(Recorder) -> AbortHandle) {
        self.running.extend(self.ready.drain(..).map(spawn));
    }

    /// Those of a former session or plan end.
    pub(crate) fn end(&mut self) {
        self.ready.clear();
        self.running.drain(..).for_each(|running| running.abort());
    }
}
