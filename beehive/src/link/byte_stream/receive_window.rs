//! How much the other end may send on a byte stream before this end has read it. Pure.
//!
//! Each stream has a small window of its own, so that a thousand idle ones cost little; one whose reader keeps up gets a
//! wider one out of what the streams of the link share, and gives it back when others need it or its writer falls silent.

use std::time::Duration;

use crate::Moment;

/// 4 KiB: what may be sent on a stream that has only begun.
pub(super) const OWN: u32 = 4 << 10;
/// 256 KiB: the widest window.
pub(super) const WIDE: u32 = 256 << 10;
/// 4 MiB: what the streams of a link share beside their own windows. With those of all 1,200 streams, a link makes this end
/// hold 8.7 MiB at the most.
pub(super) const SHARED: u32 = 4 << 20;
/// How much wider a window gets at a time: a new stream has the widest after three round trips.
const GROWTH: u32 = 4;

/// 1 s: a stream that uses up half of its window so soon is not one that trickles. What comes packet by packet is read and
/// granted packet by packet, so that on a slow link a window never looks narrow, and is all that a round trip may carry.
const BUSY_WITHIN: Duration = Duration::from_secs(1);

/// What the streams of a link share.
pub(super) struct SharedWindow {
    free: u32,
    /// Streams that have taken something of it.
    wide: u32,
}

impl SharedWindow {
    pub(super) fn new() -> Self {
        SharedWindow { free: SHARED, wide: 0 }
    }

    /// What one stream should have when all that have more than their own share alike.
    fn fair(&self, one_more: bool) -> u32 {
        let wide = self.wide + u32::from(one_more);
        (SHARED / wide.max(1)).clamp(OWN, WIDE)
    }
}

/// The window of one stream, as its receiving end sees it.
pub(super) struct ReceiveWindow {
    /// Bytes that the other end may still send.
    granted: u32,
    /// Bytes that were read, and are not yet granted again.
    read: u32,
    /// What is granted, waits or was read, together.
    width: u32,
    /// Whether the sender has come near the end of what it was granted.
    narrow: bool,
    /// When more was granted last.
    granted_at: Option<Moment>,
}

impl ReceiveWindow {
    pub(super) fn new() -> Self {
        ReceiveWindow { granted: OWN, read: 0, width: OWN, narrow: false, granted_at: None }
    }

    /// Bytes came; answers whether they were granted.
    pub(super) fn arrived(&mut self, bytes: usize) -> bool {
        let left = u32::try_from(bytes).ok().and_then(|bytes| self.granted.checked_sub(bytes));
        self.granted = left.unwrap_or(0);
        self.narrow |= self.granted < self.width / 4;
        left.is_some()
    }

    /// The reader has taken bytes; answers whether the other end is to be told that it may send more.
    pub(super) fn read(&mut self, bytes: usize) -> bool {
        self.read += u32::try_from(bytes).unwrap_or(0);
        self.is_due()
    }

    fn is_due(&self) -> bool {
        self.read >= self.width / 2
    }

    /// How much more the other end may send; 0 when there is nothing to tell.
    pub(super) fn grant(&mut self, shared: &mut SharedWindow, now: Moment) -> u32 {
        if !self.is_due() {
            return 0;
        }
        let fair = shared.fair(self.width == OWN);
        let mut more = std::mem::take(&mut self.read);
        let is_busy = self.granted_at.replace(now).is_some_and(|at| now.since(at) <= BUSY_WITHIN);
        let narrow = std::mem::take(&mut self.narrow) || is_busy;
        if self.width > fair {
            let back = (self.width - fair).min(more);
            self.resize(self.width - back, shared);
            more -= back;
        } else if narrow {
            let wider = (self.width * (GROWTH - 1)).min(fair - self.width).min(shared.free);
            self.resize(self.width + wider, shared);
            more += wider;
        }
        self.granted += more;
        more
    }

    /// The other end gives back what it does not need now.
    pub(super) fn returned(&mut self, bytes: u32, shared: &mut SharedWindow) {
        let bytes = bytes.min(self.granted).min(self.width - OWN);
        self.granted -= bytes;
        self.resize(self.width - bytes, shared);
    }

    /// The stream is over.
    pub(super) fn close(&mut self, shared: &mut SharedWindow) {
        self.resize(OWN, shared);
    }

    fn resize(&mut self, width: u32, shared: &mut SharedWindow) {
        let (was, is) = (self.width > OWN, width > OWN);
        shared.wide = shared.wide + u32::from(is && !was) - u32::from(was && !is);
        shared.free = shared.free + self.width - width;
        self.width = width;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The sender uses up its window, and all of it is read.
    fn use_up(window: &mut ReceiveWindow, shared: &mut SharedWindow) -> u32 {
        let granted = window.granted;
        assert!(window.arrived(granted as usize));
        window.read(granted as usize);
        window.grant(shared, Moment::default())
    }

    #[test]
    fn a_stream_that_is_used_has_the_widest_window_after_three_rounds() {
        let (mut window, mut shared) = (ReceiveWindow::new(), SharedWindow::new());
        let rounds: Vec<u32> = (0..4).map(|_| use_up(&mut window, &mut shared)).collect();
        assert_eq!(rounds, [16 << 10, 64 << 10, WIDE, WIDE]);
        assert_eq!(shared.free, SHARED - WIDE + OWN);
    }

    #[test]
    fn what_trickles_stays_narrow_and_is_told_seldom() {
        let (mut window, mut shared) = (ReceiveWindow::new(), SharedWindow::new());
        let mut told = 0;
        for second in 0..410 {
            assert!(window.arrived(100));
            if window.read(100) {
                told += 1;
                window.grant(&mut shared, Moment(Duration::from_secs(second)));
            }
        }
        assert_eq!((window.width, told), (OWN, 19));
    }

    #[test]
    fn what_comes_packet_by_packet_without_a_pause_is_not_held_to_its_own_window() {
        let (mut window, mut shared) = (ReceiveWindow::new(), SharedWindow::new());
        // A packet of 1,200 bytes, 27 of them a second: 256 kbit/s.
        for packet in 0..270 {
            assert!(window.arrived(1200));
            window.read(1200);
            window.grant(&mut shared, Moment(Duration::from_millis(packet * 37)));
        }
        assert_eq!(window.width, 64 << 10);
    }

    #[test]
    fn what_was_not_read_is_not_granted_again_and_what_was_not_granted_is_noticed() {
        let mut window = ReceiveWindow::new();
        assert!(window.arrived(OWN as usize));
        assert!(!window.arrived(1));
        assert_eq!(window.grant(&mut SharedWindow::new(), Moment::default()), 0);
    }

    #[test]
    fn streams_share_alike_and_a_late_one_gets_its_part() {
        let mut shared = SharedWindow::new();
        let mut windows: Vec<ReceiveWindow> = (0..64).map(|_| ReceiveWindow::new()).collect();
        for _ in 0..8 {
            windows.iter_mut().for_each(|window| _ = use_up(window, &mut shared));
        }
        let mut late = ReceiveWindow::new();
        for _ in 0..8 {
            windows.iter_mut().chain([&mut late]).for_each(|window| _ = use_up(window, &mut shared));
        }
        let fair = SHARED / 65;
        assert!(late.width >= fair * 9 / 10, "{}", late.width);
        assert!(windows.iter().all(|window| window.width >= fair * 9 / 10 && window.width <= fair * 11 / 10));
    }

    #[test]
    fn a_silent_stream_gives_its_window_to_others() {
        let (mut window, mut shared) = (ReceiveWindow::new(), SharedWindow::new());
        (0..4).for_each(|_| _ = use_up(&mut window, &mut shared));
        window.returned(u32::MAX, &mut shared);
        assert_eq!((window.width, window.granted, shared.free, shared.wide), (OWN, OWN, SHARED, 0));
    }

    proptest! {
        /// Whatever the other end does, all windows together stay within what is shared and what is each one's own.
        #[test]
        fn nothing_makes_a_link_hold_more_than_its_bound(
            steps in proptest::collection::vec((0..8_usize, 0..4_u8, any::<u32>()), 0..300)
        ) {
            let mut shared = SharedWindow::new();
            let mut windows: Vec<(ReceiveWindow, u32)> = (0..8).map(|_| (ReceiveWindow::new(), 0)).collect();
            for (at, what, amount) in steps {
                let (window, waiting) = &mut windows[at];
                match what {
                    0 | 1 => {
                        let bytes = amount % (window.granted + 1);
                        prop_assert!(window.arrived(bytes as usize));
                        *waiting += bytes;
                    }
                    2 => {
                        let bytes = amount % (*waiting + 1);
                        *waiting -= bytes;
                        window.read(bytes as usize);
                        window.grant(&mut shared, Moment::default());
                    }
                    _ => window.returned(amount, &mut shared),
                }
                prop_assert_eq!(window.width, window.granted + window.read + *waiting);
                let wide: u32 = windows.iter().map(|(window, _)| window.width - OWN).sum();
                prop_assert_eq!(shared.free, SHARED - wide);
                prop_assert_eq!(shared.wide as usize, windows.iter().filter(|(window, _)| window.width > OWN).count());
            }
        }
    }
}
