//! How much memory messages take that clients have not got yet: each message once, however many have it in their queues or half-written,
//! for they share it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// The sum of what is counted and not gone.
#[derive(Debug, Clone, Default)]
pub(crate) struct HeldBytes(Arc<AtomicUsize>);

impl HeldBytes {
    pub(crate) fn sum(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// The same payload, which counts as `size` bytes until its last clone is gone.
    pub(crate) fn count(&self, payload: Bytes, size: usize) -> Bytes {
        self.0.fetch_add(size, Ordering::Relaxed);
        Bytes::from_owner(Counted { payload, size, sum: self.clone() })
    }
}

struct Counted {
    payload: Bytes,
    size: usize,
    sum: HeldBytes,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.payload
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.sum.0.fetch_sub(self.size, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_counts_once_until_its_last_clone_is_gone() {
        let held = HeldBytes::default();
        let payload = Bytes::from(vec![1; 1000]);
        let counted = held.count(payload.clone(), 1010);
        assert_eq!((counted.as_ptr(), counted.len()), (payload.as_ptr(), 1000), "it is no copy");
        let other = counted.clone();
        let empty = held.count(Bytes::new(), 5);
        assert_eq!(held.sum(), 1015);
        drop((counted, payload));
        assert_eq!(held.sum(), 1015);
        drop((other, empty));
        assert_eq!(held.sum(), 0);
    }
}
