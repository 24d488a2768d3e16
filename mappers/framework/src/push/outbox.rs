//! What a target's actor and the devices that push there share, on the hive's thread.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use apimachinery::NamespacedName;
use tokio::sync::Notify;

use crate::push::kept::{Change, KeptFile, KeptFolder};
use crate::push::parcel::Parcel;
use crate::push::plan::{Route, Target, VALUE_MAX};
use crate::push::reading::Reading;
use crate::push::spool::Spool;
use crate::value::Value;

/// Readings on their way to one target, and what is wrong there.
pub(crate) struct Outbox {
    target: Target,
    inside: RefCell<Inside>,
    filled: Notify,
    /// What is kept of it on the disk. None: nothing.
    kept: RefCell<Option<KeptFile>>,
}

struct Inside {
    spool: Spool<Parcel>,
    /// Why the target takes nothing now.
    away: Option<String>,
    /// Readings were dropped for want of room since it was last empty.
    is_losing: bool,
    /// Of each device and property, why its last reading was not taken.
    refused: BTreeMap<(NamespacedName, String), String>,
    /// Rung when any of this has changed, by device.
    bells: BTreeMap<NamespacedName, Rc<Notify>>,
}

impl Outbox {
    pub(crate) fn to(target: Target, total: Rc<Cell<usize>>) -> Self {
        let inside = Inside {
            spool: Spool::new(total),
            away: None,
            is_losing: false,
            refused: BTreeMap::new(),
            bells: BTreeMap::new(),
        };
        Outbox { target, inside: RefCell::new(inside), filled: Notify::new(), kept: RefCell::new(None) }
    }

    /// The same, with what waits on the disk from before.
    ///
    /// # Errors
    /// Why that cannot be read, if there is something; it is empty then.
    pub(crate) fn keeping(self, folder: &KeptFolder) -> (Self, io::Result<usize>) {
        let (file, found) = folder.open(&self.target);
        *self.kept.borrow_mut() = Some(file);
        let found = found.map(|found| {
            let count = found.len();
            for parcel in found {
                self.put(&parcel.route, parcel.reading);
            }
            count
        });
        (self, found)
    }

    /// The numbers of the first and the last that wait.
    pub(crate) fn span(&self) -> Option<(u64, u64)> {
        self.inside.borrow().spool.span()
    }

    /// What is to be done so that the disk holds what waits, or (`nothing`) that it holds nothing; and to which file.
    pub(crate) fn to_keep(&self, nothing: bool) -> Option<(PathBuf, Change)> {
        let mut kept = self.kept.borrow_mut();
        let file = kept.as_mut()?;
        let change = file.change(&self.first(if nothing { 0 } else { usize::MAX }))?;
        Some((file.path().to_owned(), change))
    }

    /// That was not done.
    pub(crate) fn was_not_kept(&self) {
        if let Some(file) = &mut *self.kept.borrow_mut() {
            file.failed();
        }
    }

    /// Whether the file holds nothing that waits still.
    pub(crate) fn is_stale(&self, first: u64) -> bool {
        self.kept.borrow().as_ref().is_some_and(|file| file.is_stale(first))
    }

    /// Whether something of it is on the disk.
    pub(crate) fn is_kept(&self) -> bool {
        self.kept.borrow().as_ref().is_some_and(KeptFile::is_there)
    }

    /// Nothing waits any more.
    pub(crate) fn clear(&self) {
        self.done(u64::MAX);
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// This bell is rung from now on when something has changed that the device shows.
    pub(crate) fn ring(&self, device: &NamespacedName, bell: &Rc<Notify>) {
        self.inside.borrow_mut().bells.insert(device.clone(), Rc::clone(bell));
    }

    /// The device pushes nothing there any more. What waits is still sent.
    pub(crate) fn forget(&self, device: &NamespacedName) {
        let inside = &mut *self.inside.borrow_mut();
        inside.bells.remove(device);
        inside.refused.retain(|(of, _), _| of != device);
    }

    /// Puts a reading at the end of what waits. How many were dropped for it.
    pub(crate) fn put(&self, route: &Rc<Route>, reading: Reading) -> usize {
        if let Value::Text(text) = &reading.value
            && text.len() > VALUE_MAX
        {
            let reason = format!("the value has {} bytes; at most {VALUE_MAX} are pushed", text.len());
            self.was_refused(&reading, Some(reason));
            return 1;
        }
        let inside = &mut *self.inside.borrow_mut();
        let cost = reading.cost();
        let dropped = inside.spool.push(Parcel { route: Rc::clone(route), reading }, cost);
        if dropped > 0 && !std::mem::replace(&mut inside.is_losing, true) {
            inside.ring();
        }
        self.filled.notify_one();
        dropped
    }

    /// Waits until a reading has come.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// The first of what waits, and their numbers.
    pub(crate) fn first(&self, count: usize) -> Vec<(u64, Rc<Parcel>)> {
        self.inside.borrow().spool.first(count)
    }

    /// Those up to this number have not to be sent any more.
    pub(crate) fn done(&self, number: u64) {
        let inside = &mut *self.inside.borrow_mut();
        inside.spool.done(number);
        if inside.spool.len() == 0 && std::mem::take(&mut inside.is_losing) {
            inside.ring();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.inside.borrow().spool.len()
    }

    /// The target takes nothing now, for this reason; or it takes again. Whether that is news.
    pub(crate) fn is_away(&self, reason: Option<String>) -> bool {
        let inside = &mut *self.inside.borrow_mut();
        let is_news = inside.away.is_some() != reason.is_some();
        if inside.away != reason {
            inside.away = reason;
            inside.ring();
        }
        is_news
    }

    /// The target will not take this reading, for this reason; or it has taken it. Whether that is news.
    pub(crate) fn was_refused(&self, reading: &Reading, reason: Option<String>) -> bool {
        let inside = &mut *self.inside.borrow_mut();
        let of = (reading.device.clone(), reading.property.clone());
        let (before, is_refused) = match reason {
            Some(reason) => (inside.refused.insert(of, reason.clone()), Some(reason)),
            None => (inside.refused.remove(&of), None),
        };
        if before != is_refused {
            inside.ring();
        }
        before.is_some() != is_refused.is_some()
    }

    /// What is wrong with a property's readings.
    pub(crate) fn fault(&self, device: &NamespacedName, property: &str) -> Option<String> {
        let inside = self.inside.borrow();
        let shown = self.target.shown();
        if let Some(reason) = &inside.away {
            let what = if inside.is_losing { "the oldest readings are lost" } else { "readings wait" };
            return Some(format!("{shown}: {reason}; {what}"));
        }
        if inside.is_losing {
            return Some(format!("{shown}: it takes less than it is sent; the oldest readings are lost"));
        }
        let reason = inside.refused.get(&(device.clone(), property.to_owned()))?;
        Some(format!("{shown}: a reading was refused and is lost: {reason}"))
    }
}

impl Inside {
    fn ring(&self) {
        self.bells.values().for_each(|bell| bell.notify_one());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::plan::push_plan;
    use crate::push::reading::reading;
    use crate::push::spool::COUNT_MAX;
    use crate::value::Kind;
    use dmi::v1beta1::{DeviceProperty, PushMethod, PushMethodHttp};

    fn outbox() -> Outbox {
        let http = PushMethodHttp { hostname: "http://h".to_owned(), ..Default::default() };
        let push_method = Some(PushMethod { http: Some(http), ..Default::default() });
        let property = DeviceProperty { push_method, ..Default::default() };
        let plan = push_plan(&property, Kind::Int, None, &mut Vec::new());
        Outbox::to(plan.ways[0].target.clone(), Rc::default())
    }

    #[tokio::test]
    async fn what_is_wrong_is_said_once_and_heals() {
        let (outbox, route, bell) = (outbox(), Rc::new(Route::Plain), Rc::new(Notify::new()));
        let pump = reading("level", Value::Int(1));
        let fault = || outbox.fault(&pump.device, "level");
        outbox.ring(&pump.device, &bell);
        assert_eq!(fault(), None);
        assert!(outbox.is_away(Some("nobody is there".to_owned())));
        bell.notified().await;
        assert!(!outbox.is_away(Some("nobody is there".to_owned())), "no news");
        assert_eq!(fault().unwrap(), "pushMethod.http to http://h:80/: nobody is there; readings wait");
        for _ in 0..=COUNT_MAX {
            outbox.put(&route, pump.clone());
        }
        bell.notified().await;
        assert!(fault().unwrap().ends_with("the oldest readings are lost"));
        assert!(outbox.is_away(None));
        assert!(fault().unwrap().contains("takes less than it is sent"), "until all has gone");
        let last = outbox.first(COUNT_MAX).last().unwrap().0;
        outbox.done(last);
        assert_eq!((fault(), outbox.len()), (None, 0));
        assert!(outbox.was_refused(&pump, Some("too large".to_owned())));
        assert!(fault().unwrap().contains("lost: too large"));
        assert_eq!(outbox.fault(&pump.device, "other"), None, "it is that property's");
        assert!(outbox.was_refused(&pump, None));
        assert_eq!(fault(), None);
    }

    #[test]
    fn a_value_without_end_is_refused_and_takes_no_room() {
        let (outbox, route) = (outbox(), Rc::new(Route::Plain));
        let long = reading("level", Value::Text("x".repeat(VALUE_MAX + 1)));
        assert_eq!((outbox.put(&route, long.clone()), outbox.len()), (1, 0));
        assert!(outbox.fault(&long.device, "level").unwrap().contains("65537 bytes"));
        outbox.forget(&long.device);
        assert_eq!(outbox.fault(&long.device, "level"), None);
    }
}
