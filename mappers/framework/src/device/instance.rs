//! What the mapper and a device's actor share of a device, on the hive's thread.
//!
//! The mapper sets the description here and then tells the actor that it has; whatever message the actor fails at, its
//! next incarnation finds the newest one. Nobody but the actor parses it, since that is code of the protocol, which may
//! panic.

use std::cell::{Cell, Ref, RefCell};
use std::rc::Rc;

use apimachinery::NamespacedName;
use beehive::Moment;
use dmi::v1beta1::{Device, DeviceModel};

use crate::device::crash_budget::CrashBudget;
use crate::twin::PropertyTwin;

/// A device as edgecore described it last, and its model if that is here.
#[derive(Debug, Clone)]
pub(crate) struct Description {
    pub(crate) device: Device,
    pub(crate) model: Option<DeviceModel>,
}

/// A device of the panel, from the mapper's side and from its actor's.
#[derive(Debug)]
pub(crate) struct DeviceInstance {
    name: NamespacedName,
    /// `None`: the device was removed.
    description: RefCell<Option<Rc<Description>>>,
    /// Counts descriptions.
    described: Cell<u64>,
    /// Counts registrations at edgecore: after each, edgecore may know nothing.
    registrations: Cell<u64>,
    /// What is known of its twins, for those who ask the mapper.
    twins: RefCell<Vec<PropertyTwin>>,
    /// Whether it cannot be served as it is described.
    is_refused: Cell<bool>,
    failures: RefCell<CrashBudget>,
    is_started: Cell<bool>,
}

impl DeviceInstance {
    pub(crate) fn new(name: NamespacedName, description: Description) -> Self {
        DeviceInstance {
            name,
            description: RefCell::new(Some(Rc::new(description))),
            described: Cell::new(1),
            registrations: Cell::new(0),
            twins: RefCell::default(),
            is_refused: Cell::new(false),
            failures: RefCell::default(),
            is_started: Cell::new(false),
        }
    }

    pub(crate) fn name(&self) -> &NamespacedName {
        &self.name
    }

    /// The device is described otherwise, or gone. What failed before may go well now.
    pub(crate) fn describe(&self, description: Option<Description>) {
        *self.description.borrow_mut() = description.map(Rc::new);
        self.described.set(self.described.get() + 1);
        self.failures.borrow_mut().forget();
    }

    /// The newest description and its number.
    pub(crate) fn description(&self) -> (Option<Rc<Description>>, u64) {
        (self.description.borrow().clone(), self.described.get())
    }

    /// The mapper has registered at edgecore.
    pub(crate) fn registered(&self) {
        self.registrations.set(self.registrations.get() + 1);
    }

    pub(crate) fn registrations(&self) -> u64 {
        self.registrations.get()
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.is_refused.get()
    }

    pub(crate) fn set_refused(&self, is_refused: bool) {
        self.is_refused.set(is_refused);
    }

    pub(crate) fn twins(&self) -> Ref<'_, Vec<PropertyTwin>> {
        self.twins.borrow()
    }

    pub(crate) fn set_twins(&self, twins: Vec<PropertyTwin>) {
        *self.twins.borrow_mut() = twins;
    }

    /// An incarnation of the actor starts. After a failure: how many there were, and until when the device is unhealthy
    /// if it is.
    pub(crate) fn starts(&self, now: Moment) -> Option<(usize, Option<Moment>)> {
        if !self.is_started.replace(true) {
            return None;
        }
        let mut failures = self.failures.borrow_mut();
        let until = failures.failed(now);
        Some((failures.count(), until))
    }
}
