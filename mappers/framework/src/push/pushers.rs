//! The targets of a mapper, and which devices push there.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use apimachinery::NamespacedName;

use crate::events;
use crate::push::credentials::Credentials;
use crate::push::kept::KeptFolder;
use crate::push::outbox::Outbox;
use crate::push::plan::Target;
use crate::push::stream::Tls;

/// 1024 targets of one mapper: each has a connection.
const TARGETS_MAX: usize = 1024;

/// The targets of a mapper. Its clones are one.
#[derive(Clone, Default)]
pub(crate) struct Pushers {
    inside: Rc<RefCell<Inside>>,
    /// The bytes that wait for all targets.
    total: Rc<Cell<usize>>,
    tls: Tls,
    credentials: Rc<Credentials>,
    /// None: what waits is kept in memory alone.
    kept: Option<KeptFolder>,
}

#[derive(Default)]
struct Inside {
    targets: BTreeMap<Target, Served>,
    /// Numbers their actors: two that differ in what logs in have one name for people.
    next: u64,
}

struct Served {
    outbox: Rc<Outbox>,
    /// Which actor of it runs. None: it has to be started.
    actor: Option<String>,
    devices: BTreeSet<NamespacedName>,
}

/// What follows when a device pushes elsewhere.
#[derive(Default)]
pub(crate) struct TargetChange {
    /// The actors to start, by their names.
    pub(crate) started: Vec<(String, Rc<Outbox>)>,
    /// The actors to stop.
    pub(crate) ended: Vec<String>,
}

impl Pushers {
    pub(crate) fn with(credentials: Credentials, kept: KeptFolder) -> Self {
        Pushers { credentials: Rc::new(credentials), kept: Some(kept), ..Pushers::default() }
    }

    /// The device pushes to these targets from now on, and to no others. There may be more than are served.
    pub(crate) fn follow(&self, device: &NamespacedName, targets: BTreeSet<Target>) -> TargetChange {
        let (mut change, inside) = (TargetChange::default(), &mut *self.inside.borrow_mut());
        for (target, served) in &mut inside.targets {
            if !targets.contains(target) && served.devices.remove(device) {
                served.outbox.forget(device);
            }
        }
        // What waits from before a restart of the mapper has no actor, and is left until all devices have come.
        let is_idle = |target: &Target, served: &mut Served| {
            served.actor.is_some() && served.devices.is_empty() && !targets.contains(target)
        };
        change.ended =
            inside.targets.extract_if(.., is_idle).filter_map(|(_, served)| served.actor).collect();
        for target in targets {
            if !inside.targets.contains_key(&target) && inside.targets.len() >= TARGETS_MAX {
                continue;
            }
            let served = inside.targets.entry(target).or_insert_with_key(|target| Served {
                outbox: Rc::new(self.make(target)),
                actor: None,
                devices: BTreeSet::new(),
            });
            served.devices.insert(device.clone());
            if served.actor.is_none() {
                inside.next += 1;
                let name = format!("{} {}", inside.next, served.outbox.target().shown());
                served.actor = Some(name.clone());
                change.started.push((name, Rc::clone(&served.outbox)));
            }
        }
        change
    }

    /// An outbox with what waited for its target when the mapper before ended.
    fn make(&self, target: &Target) -> Outbox {
        let outbox = Outbox::to(target.clone(), Rc::clone(&self.total));
        let Some(folder) = &self.kept else { return outbox };
        let (outbox, found) = outbox.keeping(folder);
        match found {
            Ok(0) => {}
            Ok(count) => events::push_taken_up(&target.shown(), count),
            Err(error) => events::push_not_read(&target.shown(), &error),
        }
        outbox
    }

    /// The mapper starts anew, and its actors have ended. What waits is kept for devices that come again.
    pub(crate) fn restarted(&self) {
        for served in self.inside.borrow_mut().targets.values_mut() {
            served.actor = None;
            served.devices.clear();
        }
    }

    /// All devices have come: what waits for targets where none of them pushes is lost. How many readings that is.
    pub(crate) fn all_have_come(&self) -> usize {
        let inside = &mut *self.inside.borrow_mut();
        let left = inside.targets.extract_if(.., |_, served| served.devices.is_empty());
        // What is on the disk is counted there.
        let in_memory = left.filter(|(_, served)| !served.outbox.is_kept());
        let lost: usize = in_memory.map(|(_, served)| served.outbox.len()).sum();
        let Some(folder) = &self.kept else { return lost };
        lost + folder.retain(inside.targets.keys()).unwrap_or_else(|error| {
            events::push_not_removed(&error);
            0
        })
    }

    /// Whether readings for this target go into this outbox; `None`: into none at all.
    pub(crate) fn is_served_by(&self, outbox: &Rc<Outbox>) -> Option<bool> {
        self.outbox(outbox.target()).map(|serving| Rc::ptr_eq(&serving, outbox))
    }

    /// Where readings for a target go. None: there are more targets than are served.
    pub(crate) fn outbox(&self, target: &Target) -> Option<Rc<Outbox>> {
        self.inside.borrow().targets.get(target).map(|served| Rc::clone(&served.outbox))
    }

    pub(crate) fn tls(&self) -> Tls {
        self.tls.clone()
    }

    pub(crate) fn credentials(&self) -> Rc<Credentials> {
        Rc::clone(&self.credentials)
    }

    /// How many targets there are, and how many bytes wait for them.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.inside.borrow().targets.len(), self.total.get())
    }
}

/// What is said of a target that is not served.
pub(crate) fn too_many() -> String {
    format!("there are {TARGETS_MAX} targets already, which is all that one mapper serves")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::plan::targets;
    use dmi::v1beta1::{Device, DeviceProperty, DeviceSpec, PushMethod, PushMethodHttp};

    fn to(hosts: &[&str]) -> BTreeSet<Target> {
        let property = |host: &&str| {
            let http = PushMethodHttp { hostname: (*host).to_owned(), ..Default::default() };
            let push_method = Some(PushMethod { http: Some(http), ..Default::default() });
            DeviceProperty { push_method, ..Default::default() }
        };
        let spec = DeviceSpec { properties: hosts.iter().map(property).collect(), ..Default::default() };
        targets(&Device { spec: Some(spec), ..Default::default() })
    }

    fn names(change: &TargetChange) -> (Vec<&str>, Vec<&str>) {
        let started = change.started.iter().map(|(name, _)| name.as_str()).collect();
        (started, change.ended.iter().map(String::as_str).collect())
    }

    #[test]
    fn a_target_has_one_actor_as_long_as_a_device_pushes_there() {
        let (pushers, pump, valve) = (
            Pushers::default(),
            NamespacedName::new("default", "pump"),
            NamespacedName::new("default", "valve"),
        );
        let change = pushers.follow(&pump, to(&["http://a", "http://b"]));
        let (a, b) = ("1 pushMethod.http to http://a:80/", "2 pushMethod.http to http://b:80/");
        assert_eq!(names(&change), (vec![a, b], vec![]));
        assert_eq!(names(&pushers.follow(&valve, to(&["http://a"]))), (vec![], vec![]));
        assert_eq!(names(&pushers.follow(&pump, to(&["http://a"]))), (vec![], vec![b]));
        assert_eq!(names(&pushers.follow(&pump, BTreeSet::new())), (vec![], vec![]));
        pushers.restarted();
        // Another device comes first: what waits for the others' targets is not lost.
        pushers.follow(&pump, to(&["http://b"]));
        assert_eq!(pushers.sizes().0, 2);
        let change = pushers.follow(&valve, to(&["http://a"]));
        assert_eq!(pushers.all_have_come(), 0);
        assert_eq!(names(&change), (vec!["4 pushMethod.http to http://a:80/"], vec![]), "started anew");
        for device in [&valve, &pump] {
            assert_eq!(names(&pushers.follow(device, BTreeSet::new())).1.len(), 1);
        }
        assert_eq!(pushers.sizes(), (0, 0));
    }

    #[test]
    fn there_is_an_end_of_targets() {
        let pushers = Pushers::default();
        let hosts: Vec<String> = (0..=TARGETS_MAX).map(|number| format!("http://h{number}")).collect();
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        let all = to(&hosts);
        let change = pushers.follow(&NamespacedName::new("default", "pump"), all.clone());
        assert_eq!(change.started.len(), TARGETS_MAX);
        assert_eq!(all.iter().filter(|target| pushers.outbox(target).is_none()).count(), 1);
    }
}
