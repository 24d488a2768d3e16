//! `/pods`: a `PodList` that is written pod by pod, so that no more than one pod is held for a reader.

use std::io;
use std::sync::Arc;

use apimachinery::ObjectKey;
use beehive::Clock;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;

use crate::budget::{Budget, BudgetPermit, Origin};
use crate::disk::Disk;
use crate::pieces::{self, Pieces};
use crate::pods::Pods;

/// How it begins.
const HEAD: &str = r#"{"kind":"PodList","apiVersion":"v1","metadata":{},"items":"#;

/// The pods that are still to be written.
pub(crate) struct PodList {
    pub(crate) pods: Pods,
    pub(crate) keys: std::vec::IntoIter<ObjectKey>,
    pub(crate) disk: Disk,
    pub(crate) budget: Arc<Budget>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) origin: Origin,
    /// For the next pod.
    pub(crate) held: Option<BudgetPermit>,
    pub(crate) written: usize,
}

impl std::fmt::Debug for PodList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} pods", self.keys.len())
    }
}

impl PodList {
    /// Its bytes.
    pub(crate) fn pieces(self) -> Pieces {
        let begun = (Some(self), Bytes::new());
        stream::try_unfold(begun, |(mut list, mut rest)| async move {
            if rest.is_empty() {
                match list.take() {
                    None => return Ok(None),
                    Some(own) => (rest, list) = own.next().await?,
                }
            }
            Ok(pieces::next_piece(&mut rest).map(|piece| (piece, (list, rest))))
        })
        .boxed()
    }

    /// The next pod with what stands before it, or the end.
    async fn next(mut self) -> io::Result<(Bytes, Option<PodList>)> {
        while let Some(key) = self.keys.next() {
            let mut held = match self.held.take() {
                Some(held) => held,
                None => self.budget.next_part(self.origin, &*self.clock).await?,
            };
            let pods = self.pods.clone();
            let mut text = String::from(if self.written == 0 { HEAD } else { "," });
            if self.written == 0 {
                text.push('[');
            }
            let Some(text) = self.disk.blocking(move || pods.write(&key, text.into_bytes())).await? else {
                self.held = Some(held);
                continue;
            };
            held.fit(text.len()).map_err(|refusal| io::Error::other(refusal.text))?;
            self.written += 1;
            return Ok((pieces::counted(text, Some(held)), Some(self)));
        }
        // A kubelet without any pod writes null.
        let end = if self.written == 0 { format!("{HEAD}null}}") } else { String::from("]}") };
        Ok((Bytes::from(end), None))
    }
}
