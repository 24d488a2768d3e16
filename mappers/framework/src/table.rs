//! The devices and models that edgecore handed out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dmi::v1beta1::{Device, DeviceModel, DeviceStatus, MapperRegisterResponse};
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::device::{self, Order, Seen};
use crate::edgecore::{self, EdgeCore};
use crate::plan::understand;
use crate::protocol::Protocol;

/// How many devices one mapper serves.
pub(crate) const DEVICES_MAX: usize = 4096;
/// How many models it keeps.
pub(crate) const MODELS_MAX: usize = 4096;
/// What Kubernetes allows for a name.
const NAME_MAX: usize = 253;
/// Where KubeEdge puts what has no namespace.
const DEFAULT_NAMESPACE: &str = "default";

/// Namespace and name of a device or model.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        let namespace = if namespace.is_empty() { DEFAULT_NAMESPACE } else { namespace };
        Key { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Why something was not taken into the table.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum TableError {
    #[error("{0} has no name")]
    NoName(&'static str),
    #[error("a name or namespace has more than {NAME_MAX} bytes")]
    LongName,
    #[error("there are {DEVICES_MAX} devices already")]
    TooManyDevices,
    #[error("there are {MODELS_MAX} models already")]
    TooManyModels,
}

/// The table. Every device in it has a task that ends with its row.
pub(crate) struct Table<P: Protocol> {
    protocol: Arc<P>,
    edgecore: EdgeCore,
    /// Counts registrations: after each, edgecore may know nothing.
    registrations: watch::Sender<u64>,
    rows: Mutex<Rows<P>>,
}

struct Rows<P: Protocol> {
    models: BTreeMap<Key, Modelled>,
    devices: BTreeMap<Key, Row<P>>,
    /// Removed since the last registration was sent, so that its answer does not bring them back.
    removed: BTreeSet<Key>,
    /// Counts calls, to tell what happened after a registration was sent.
    calls: u64,
}

struct Modelled {
    model: DeviceModel,
    called: u64,
}

struct Row<P: Protocol> {
    device: Device,
    called: u64,
    orders: watch::Sender<Order<P>>,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl<P: Protocol> Drop for Row<P> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<P: Protocol> Table<P> {
    pub(crate) fn new(protocol: Arc<P>, edgecore: EdgeCore) -> Self {
        let rows =
            Rows { models: BTreeMap::new(), devices: BTreeMap::new(), removed: BTreeSet::new(), calls: 0 };
        Table { protocol, edgecore, registrations: watch::channel(0).0, rows: Mutex::new(rows) }
    }

    /// A registration is about to be sent; the answer is for [`Table::registered`].
    pub(crate) fn registering(&self) -> u64 {
        let mut rows = self.rows();
        rows.removed.clear();
        rows.calls
    }

    /// Takes what a registration answered as the whole truth, except for what was called since it was sent.
    pub(crate) fn registered(&self, since: u64, answer: MapperRegisterResponse) -> Result<(), TableError> {
        let mut rows = self.rows();
        // Before new devices come, which have told nothing yet that would have to be told again.
        self.registrations.send_modify(|count| *count += 1);
        let mut first = Ok(());
        let (mut changed, mut modelled) = (BTreeSet::new(), BTreeSet::new());
        for model in answer.model_list {
            modelled.insert(Key::new(&model.namespace, &model.name));
            match rows.put_model(model) {
                Ok(key) => changed.extend(key),
                Err(error) => first = first.and(Err(error)),
            }
        }
        let mut named = BTreeSet::new();
        for device in answer.device_list {
            let key = Key::new(&device.namespace, &device.name);
            let newer = rows.devices.get(&key).is_some_and(|row| row.called > since);
            if !newer && !rows.removed.contains(&key) {
                first = first.and(self.put_device(&mut rows, device));
            }
            named.insert(key);
        }
        rows.devices.retain(|key, row| named.contains(key) || row.called > since);
        modelled.extend(rows.devices.values().filter_map(|row| model_key(&row.device)));
        rows.models.retain(|key, model| modelled.contains(key) || model.called > since);
        self.order_again(&rows, &changed);
        first
    }

    pub(crate) fn register(&self, device: Device) -> Result<(), TableError> {
        let mut rows = self.rows();
        rows.calls += 1;
        rows.removed.remove(&Key::new(&device.namespace, &device.name));
        self.put_device(&mut rows, device)
    }

    /// Whether it was there.
    pub(crate) fn remove(&self, key: &Key) -> bool {
        let mut rows = self.rows();
        rows.calls += 1;
        // Bounded by what can be removed between two registrations; beyond it the next registration settles it.
        if rows.removed.len() < DEVICES_MAX {
            rows.removed.insert(key.clone());
        }
        rows.devices.remove(key).is_some()
    }

    /// A new or changed model, and new orders for the devices that have it.
    pub(crate) fn put_model(&self, model: DeviceModel) -> Result<(), TableError> {
        let mut rows = self.rows();
        rows.calls += 1;
        let changed = rows.put_model(model)?;
        self.order_again(&rows, &changed.into_iter().collect());
        Ok(())
    }

    /// New orders for the devices of changed models.
    fn order_again(&self, rows: &Rows<P>, changed: &BTreeSet<Key>) {
        for (key, row) in &rows.devices {
            if let Some(model) = model_key(&row.device).filter(|model| changed.contains(model)) {
                row.orders.send_replace(self.order(key, &row.device, rows.model(&model)));
            }
        }
    }

    /// Forgets a model. Devices that still have it go on with what they know until they change.
    pub(crate) fn remove_model(&self, key: &Key) -> bool {
        self.rows().models.remove(key).is_some()
    }

    /// A device with what is known of its twins.
    pub(crate) fn device(&self, key: &Key) -> Option<Device> {
        let rows = self.rows();
        let row = rows.devices.get(key)?;
        let seen = row.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let status = row.device.status.clone().unwrap_or_default();
        let twins = seen.lines.iter().map(edgecore::twin).collect();
        Some(Device { status: Some(DeviceStatus { twins, ..status }), ..row.device.clone() })
    }

    /// Ends all devices.
    pub(crate) fn clear(&self) {
        self.rows().devices.clear();
    }

    fn put_device(&self, rows: &mut Rows<P>, device: Device) -> Result<(), TableError> {
        let key = checked(&device.namespace, &device.name, "the device")?;
        let called = rows.calls;
        let there =
            rows.devices.get(&key).map(|row| row.device == device && !row.orders.borrow().is_refused());
        if there.is_none() && rows.devices.len() >= DEVICES_MAX {
            return Err(TableError::TooManyDevices);
        }
        let model = model_key(&device).and_then(|model| rows.model(&model));
        let order = (there != Some(true)).then(|| self.order(&key, &device, model));
        if let Some(row) = rows.devices.get_mut(&key) {
            row.called = called;
            row.device = device;
            if let Some(order) = order {
                row.orders.send_replace(order);
            }
            return Ok(());
        }
        let Some(order) = order else {
            return Ok(());
        };
        let (orders, taken) = watch::channel(order);
        let seen = Arc::<Mutex<Seen>>::default();
        let task = tokio::spawn(device::keep(device::Post {
            key: key.clone(),
            protocol: Arc::clone(&self.protocol),
            edgecore: self.edgecore.clone(),
            orders: taken,
            registrations: self.registrations.subscribe(),
            seen: Arc::clone(&seen),
        }));
        rows.devices.insert(key, Row { device, called, orders, seen, task });
        Ok(())
    }

    fn order(&self, key: &Key, device: &Device, model: Option<&DeviceModel>) -> Order<P> {
        let understood = understand(self.protocol.as_ref(), device, model);
        for note in &understood.notes {
            tracing::warn!(device = %key, note, "part of the device is not honoured");
        }
        match understood.plan {
            Ok(plan) => Order::Serve(Arc::new(plan)),
            Err(refusal) => {
                tracing::warn!(device = %key, %refusal, "device cannot be served as it is described");
                let state = device.status.as_ref().is_some_and(|status| status.report_to_cloud);
                Order::Refused { tell: state }
            }
        }
    }

    fn rows(&self) -> MutexGuard<'_, Rows<P>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P: Protocol> Rows<P> {
    fn model(&self, key: &Key) -> Option<&DeviceModel> {
        self.models.get(key).map(|there| &there.model)
    }

    /// Its key, when it is new or changed.
    fn put_model(&mut self, model: DeviceModel) -> Result<Option<Key>, TableError> {
        let key = checked(&model.namespace, &model.name, "the model")?;
        let called = self.calls;
        if let Some(there) = self.models.get_mut(&key) {
            there.called = called;
            let same = there.model == model;
            there.model = model;
            return Ok((!same).then_some(key));
        }
        if self.models.len() >= MODELS_MAX {
            return Err(TableError::TooManyModels);
        }
        self.models.insert(key.clone(), Modelled { model, called });
        Ok(Some(key))
    }
}

fn model_key(device: &Device) -> Option<Key> {
    let spec = device.spec.as_ref()?;
    Some(Key::new(&device.namespace, &spec.device_model_reference))
}

fn checked(namespace: &str, name: &str, what: &'static str) -> Result<Key, TableError> {
    if name.is_empty() {
        return Err(TableError::NoName(what));
    }
    if name.len() > NAME_MAX || namespace.len() > NAME_MAX {
        return Err(TableError::LongName);
    }
    Ok(Key::new(namespace, name))
}
