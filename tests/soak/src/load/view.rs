//! What `kubectl` shows of the devices, by a watch.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::fleet::{self, REPORTED};
use crate::Samples;
use crate::kubectl::Kubectl;

/// Before another watch.
const AGAIN: Duration = Duration::from_millis(100);

/// The newest value of each device, and how many writes there were.
pub(super) struct View {
    values: Vec<AtomicU64>,
    writes: AtomicU64,
}

impl View {
    pub(super) fn new(devices: usize) -> View {
        View { values: (0..devices).map(|_| AtomicU64::new(0)).collect(), writes: AtomicU64::new(0) }
    }

    /// Each event of a watch is a write.
    pub(super) fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// How old what is shown is, of each device. `now`: since the values' time began.
    pub(super) fn ages(&self, now: Duration) -> Samples {
        let mut ages = Samples::default();
        for value in &self.values {
            ages.add(now.saturating_sub(Duration::from_millis(value.load(Ordering::Relaxed))));
        }
        ages
    }

    /// Whether these values are shown.
    pub(super) fn holds(&self, newest: &[u64]) -> bool {
        self.values.iter().zip(newest).all(|(shown, newest)| shown.load(Ordering::Relaxed) == *newest)
    }

    fn take(&self, line: &str) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        if let Some((name, value)) = line.split_once(' ')
            && let Some(own) = fleet::number(name).and_then(|number| self.values.get(number))
            && let Ok(value) = value.trim().parse()
        {
            own.store(value, Ordering::Relaxed);
        }
    }
}

/// Watches for as long as it is polled. A watch that ends is begun again.
pub(super) async fn watch(kubectl: Kubectl, view: Arc<View>) {
    let path =
        format!(r#"{{.metadata.name}} {{.status.twins[?(@.propertyName=="{REPORTED}")].reported.value}}"#);
    loop {
        if let Ok(mut watch) = kubectl.watch("devicestatus", &path) {
            while let Some(line) = watch.next().await {
                view.take(&line);
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_value_counts_and_each_line_is_a_write() {
        let view = View::new(2);
        for line in ["load-0000 100", "load-0001 ", "load-0000 900", "elsewhere 5"] {
            view.take(line);
        }
        assert_eq!(view.writes(), 4);
        assert!(view.holds(&[900, 0]) && !view.holds(&[900, 1]));
        assert_eq!(view.ages(Duration::from_secs(1)).quantile(0.0), Some(0.1));
    }
}
