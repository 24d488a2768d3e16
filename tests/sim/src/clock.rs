//! Clocks of machines, which jump.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use beehive::{Clock, Moment};
use futures::future::BoxFuture;

/// An hour, in seconds.
const HOUR: i64 = 3600;
/// Ten years, in seconds.
const YEARS: i64 = 10 * 365 * 24 * HOUR;

/// Where a machine's clock jumps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Jump {
    /// The beginning of 1970, as after a boot without a battery.
    To1970,
    /// An hour back.
    Back,
    /// An hour ahead.
    Ahead,
    /// Ten years ahead.
    Years,
    /// The right time.
    Right,
}

impl Jump {
    /// All of them.
    pub(crate) const ALL: [Jump; 5] = [Jump::To1970, Jump::Back, Jump::Ahead, Jump::Years, Jump::Right];
}

/// The wall clock of one machine. Monotonic time is the simulation's.
pub(crate) struct MachineClock {
    right: Arc<dyn Clock>,
    /// Seconds that it is off.
    off: AtomicI64,
}

impl MachineClock {
    /// A clock that is right.
    pub(crate) fn new(right: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(MachineClock { right, off: AtomicI64::new(0) })
    }

    pub(crate) fn jump(&self, jump: Jump) {
        let off = self.off.load(Ordering::Relaxed);
        let since = self.right.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let off = match jump {
            Jump::To1970 => -i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            Jump::Back => off - HOUR,
            Jump::Ahead => off + HOUR,
            Jump::Years => YEARS,
            Jump::Right => 0,
        };
        self.off.store(off, Ordering::Relaxed);
    }
}

impl Clock for MachineClock {
    fn now(&self) -> Moment {
        self.right.now()
    }

    /// No machine shows a time before 1970.
    fn wall(&self) -> SystemTime {
        let off = self.off.load(Ordering::Relaxed);
        let by = Duration::from_secs(off.unsigned_abs());
        let right = self.right.wall();
        let shown = if off < 0 { right.checked_sub(by) } else { right.checked_add(by) };
        shown.unwrap_or(right).max(SystemTime::UNIX_EPOCH)
    }

    fn is_virtual(&self) -> bool {
        self.right.is_virtual()
    }

    fn sleep(&self, pause: Duration) -> BoxFuture<'static, ()> {
        self.right.sleep(pause)
    }
}
