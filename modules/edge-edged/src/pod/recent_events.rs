//! The last events, for whoever looks at the node while it is cut off. Pure.

use std::cell::RefCell;
use std::collections::VecDeque;

use contract::edgepage::{EVENTS_MAX, EventView};

use crate::pod::event_series::EventType;

/// 256 bytes of a message.
const MESSAGE_MAX: usize = 256;

/// The events of this run, the newest first.
#[derive(Debug, Default)]
pub(crate) struct RecentEvents(RefCell<VecDeque<(i64, EventView)>>);

impl RecentEvents {
    /// Another event, which has its place once however often it is told: `series` is the same then.
    pub(crate) fn add(&self, series: i64, kind: EventType, event: EventView) {
        let mut kept = self.0.borrow_mut();
        kept.retain(|(own, _)| *own != series);
        kept.truncate(EVENTS_MAX - 1);
        let message = event.message[..event.message.floor_char_boundary(MESSAGE_MAX)].to_owned();
        let is_warning = kind == EventType::Warning;
        kept.push_front((series, EventView { message, is_warning, ..event }));
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<EventView> {
        self.0.borrow().iter().map(|(_, event)| event.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_are_kept_and_a_series_once() {
        let recent = RecentEvents::default();
        let event = |number: i64| EventView {
            unix: number,
            is_warning: false,
            about: "Pod d/p".to_owned(),
            reason: "BackOff".to_owned(),
            message: "é".repeat(1000),
            count: 1,
        };
        for number in 0..100 {
            recent.add(number % 90, EventType::Warning, event(number));
        }
        let kept = recent.all();
        assert_eq!(kept.len(), EVENTS_MAX);
        assert!(kept.iter().all(|event| event.is_warning && event.message.len() == MESSAGE_MAX));
        assert_eq!((kept[0].unix, kept[10].unix), (99, 89));
        recent.add(80, EventType::Normal, event(100));
        assert_eq!((recent.all().len(), recent.all()[0].unix), (EVENTS_MAX, 100));
    }
}
