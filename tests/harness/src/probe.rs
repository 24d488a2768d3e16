//! Probes at the mailboxes of running daemons.

use std::sync::{Arc, Mutex};

/// What a probe wrote down, oldest first. Cheap to clone.
pub struct Recorded<T>(Arc<Mutex<Vec<T>>>);

impl<T> Clone for Recorded<T> {
    fn clone(&self) -> Self {
        Recorded(Arc::clone(&self.0))
    }
}

impl<T> Default for Recorded<T> {
    fn default() -> Self {
        Recorded(Arc::default())
    }
}

impl<T: Send + 'static> Recorded<T> {
    /// A tap that notes what `pick` makes of a message.
    pub(crate) fn tap<M, P>(&self, pick: P) -> impl Fn(&M) + Send + Sync + use<M, T, P>
    where
        P: Fn(&M) -> Option<T> + Send + Sync,
    {
        let recorded = self.clone();
        move |message| {
            if let Some(noted) = pick(message) {
                recorded.0.lock().unwrap().push(noted);
            }
        }
    }

    /// How many notes there are.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the notes away.
    pub fn take(&self) -> Vec<T> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}
