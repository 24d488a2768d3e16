//! Getting everything of a pod off the disk. Blocks, for as long as a slice is.

use std::path::Path;

use crate::disk::beneath::{Folder, Removal};
use crate::disk::layout;
use crate::error::StepError;

/// What is left to be removed of a pod.
#[derive(Debug)]
pub(crate) struct Teardown {
    /// The last is the first to go.
    left: Vec<Removal>,
}

impl Teardown {
    /// Undoes the pod's mounts; from then on its folders and logs can be removed. No mount and no link is followed out of
    /// them.
    pub(crate) fn begin(root: &Path, logs: &Path, uid: &str, pod_logs: &Path) -> Result<Teardown, StepError> {
        let mut left = Vec::new();
        // The pod's own folder goes last: whoever looks while it is there knows that something is left.
        if let Some(root) = Folder::find_root(root)? {
            let at = layout::pod(uid);
            root.detach_below(&at)?;
            left.extend(root.removal(&at)?);
        }
        if let Some(logs) = Folder::find_root(logs)? {
            left.extend(logs.removal(pod_logs)?);
        }
        Ok(Teardown { left })
    }

    /// Removes about `entries` entries. True: nothing is left.
    pub(crate) fn go_on(&mut self, entries: usize) -> Result<bool, StepError> {
        let Some(first) = self.left.last_mut() else { return Ok(true) };
        if first.go_on(entries)? {
            self.left.pop();
        }
        Ok(self.left.is_empty())
    }
}
