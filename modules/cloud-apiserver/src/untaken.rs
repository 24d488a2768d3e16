//! Lines of watches that their readers have not taken: they count as their user's, as long answers do.
//!
//! All who watch the same change hold the same bytes, so of one user they count once. A user who is over his share has his watch
//! ended with 410: he lists and watches again when he reads.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use kubeapi::ApiError;
use serde_json::json;

use crate::byte_quota::{ByteQuota, BytesPermit};

/// A line that somebody has not taken. It keeps the bytes, so that no others come to lie at their place.
struct Untaken {
    _line: Bytes,
    _room: BytesPermit,
}

/// By the user, and where the bytes are and how many.
type Lines = BTreeMap<(String, usize, usize), Weak<Untaken>>;

/// The lines of all watches.
pub(crate) struct UntakenLines {
    answers: Arc<ByteQuota>,
    /// What is shorter does not count.
    from: usize,
    lines: Mutex<Lines>,
}

impl UntakenLines {
    /// Lines longer than `from` count against `answers`.
    pub(crate) fn new(answers: Arc<ByteQuota>, from: usize) -> Arc<Self> {
        Arc::new(UntakenLines { answers, from, lines: Mutex::default() })
    }

    /// `None`: the user has no room for it.
    fn hold(&self, user: &str, line: &Bytes) -> Option<Arc<Untaken>> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (user.to_owned(), line.as_ptr().addr(), line.len());
        if let Some(held) = lines.get(&key).and_then(Weak::upgrade) {
            return Some(held);
        }
        lines.retain(|_, held| held.strong_count() > 0);
        let room = self.answers.try_acquire(user, line.len())?;
        let held = Arc::new(Untaken { _line: line.clone(), _room: room });
        lines.insert(key, Arc::downgrade(&held));
        Some(held)
    }

    /// The lines of a watch of `user`. Each counts until the next is asked for, which is when it was taken.
    pub(crate) fn lines(
        self: &Arc<Self>,
        user: &str,
        lines: BoxStream<'static, Bytes>,
    ) -> BoxStream<'static, Bytes> {
        let (untaken, user) = (Arc::clone(self), user.to_owned());
        let state = Some((lines, None));
        stream::unfold(state, move |state| {
            let (untaken, user) = (Arc::clone(&untaken), user.clone());
            async move {
                let (mut lines, held) = state?;
                drop::<Option<Arc<Untaken>>>(held);
                let line = lines.next().await?;
                if line.len() <= untaken.from {
                    return Some((line, Some((lines, None))));
                }
                match untaken.hold(&user, &line) {
                    Some(held) => Some((line, Some((lines, Some(held))))),
                    None => Some((over(), None)),
                }
            }
        })
        .boxed()
    }
}

/// What a watch ends with whose user does not read.
fn over() -> Bytes {
    let mut status = ApiError::expired(0).to_status();
    status["message"] =
        json!("the user's watches have not taken what they were told: read them, and list again");
    Bytes::from(format!("{}\n", json!({ "type": "ERROR", "object": status })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const MEBI: usize = 1 << 20;

    fn line(bytes: usize) -> Bytes {
        Bytes::from(vec![b'x'; bytes])
    }

    fn watch(untaken: &Arc<UntakenLines>, user: &str, lines: &[Bytes]) -> BoxStream<'static, Bytes> {
        untaken.lines(user, stream::iter(lines.to_vec()).boxed())
    }

    #[tokio::test]
    async fn what_is_not_taken_counts_once_however_many_have_not_taken_it() {
        let untaken = UntakenLines::new(Arc::new(ByteQuota::new(2 * MEBI, 8 * MEBI)), 1024);
        let same = line(MEBI);
        let mut watches: Vec<_> = (0..250).map(|_| watch(&untaken, "a", &[same.clone(), line(10)])).collect();
        for watch in &mut watches {
            assert_eq!(watch.next().await.unwrap().as_ptr(), same.as_ptr(), "the same bytes for all");
        }
        // Another change, and then one more than the share has room for.
        let mut second = watch(&untaken, "a", &[line(MEBI - 2048), line(10)]);
        assert_eq!(second.next().await.unwrap().len(), MEBI - 2048);
        let mut third = watch(&untaken, "a", &[line(MEBI), line(10)]);
        let told: Value = serde_json::from_slice(&third.next().await.unwrap()).unwrap();
        assert_eq!((&told["type"], &told["object"]["code"]), (&json!("ERROR"), &json!(410)));
        assert!(third.next().await.is_none(), "the watch is over");
        assert_eq!(watch(&untaken, "b", &[line(MEBI)]).next().await.unwrap().len(), MEBI, "another's share");
        // What is taken does not count any more.
        for watch in &mut watches {
            assert_eq!(watch.next().await.unwrap().len(), 10);
        }
        assert_eq!(watch(&untaken, "a", &[line(MEBI)]).next().await.unwrap().len(), MEBI);
        drop((second, watches));
        assert_eq!(untaken.lines.lock().unwrap().values().filter(|held| held.strong_count() > 0).count(), 0);
    }
}
