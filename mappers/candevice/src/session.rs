//! Talking to a device: to a node about its objects, and listening for frames.

use std::collections::BTreeMap;
use std::time::Duration;

use framework::{Fault, Session, Subscription, Value};
use tokio::task::JoinHandle;

use crate::address::{Address, Speech};
use crate::bus::Bus;
use crate::frame::{CanId, Frame};
use crate::monitor::{Listener, Monitor, Newest};
use crate::object::Object;
use crate::sdo::{Node, Nodes, TRANSFER_WITHIN};
use crate::signal::Signal;
use crate::transfer::Transfer;
use crate::visitor::Visitor;

/// What every node has (CiA 301 §7.5.2.1): the kind of device that it is.
const DEVICE_TYPE: Object = Object { index: 0x1000, sub: 0 };

/// A device on a bus.
#[derive(Debug)]
pub struct CanSession {
    address: Address,
    /// None: it speaks raw frames.
    node: Option<Node>,
    /// For frames that are written.
    bus: Bus,
    newest: Newest,
    /// The last frame that was written of each id: its other bits stay as they are.
    written: BTreeMap<CanId, [u8; 8]>,
    monitor: Option<JoinHandle<()>>,
}

impl CanSession {
    /// Opens the bus, and sees whether the node is there.
    ///
    /// # Errors
    /// When one of them is not.
    pub(crate) async fn open(address: &Address, nodes: &Nodes) -> Result<Self, Fault> {
        let bus = Bus::open(&address.interface, Vec::new()).await.map_err(Fault::NotSent)?;
        let node = match address.speech {
            Speech::Raw => None,
            Speech::CanOpen(number) => {
                let opened = Node::open(&address.interface, number, address.timeout, nodes).await;
                let mut node = opened.map_err(Fault::NotSent)?;
                match node.done(Transfer::read(DEVICE_TYPE)).await {
                    // Whatever it answers, it is there.
                    Ok(_) | Err(Fault::Device(_)) => {}
                    Err(Fault::Link(reason) | Fault::NotSent(reason)) => return Err(Fault::NotSent(reason)),
                    Err(fault) => return Err(fault),
                }
                Some(node)
            }
        };
        let (newest, written) = (Newest::default(), BTreeMap::new());
        Ok(CanSession { address: address.clone(), node, bus, newest, written, monitor: None })
    }

    fn node(&mut self) -> Result<&mut Node, Fault> {
        self.node.as_mut().ok_or_else(|| {
            Fault::Unfit("the device's `protocol` is raw, which has no `index`; write `canID`".to_owned())
        })
    }

    /// What the newest frame has, if that is not too old.
    fn heard(&self, id: CanId, signal: &Signal) -> Result<Value, Fault> {
        match self.newest.of(id).filter(|(_, at)| at.elapsed() < self.within()) {
            Some((frame, _)) => signal.decode(frame.bytes()),
            None => Err(Fault::NoValue(format!("no frame {id} has come"))),
        }
    }

    /// How long a frame may be away.
    fn within(&self) -> Duration {
        match self.address.speech {
            Speech::Raw => self.address.timeout,
            // An answer's time-out says nothing of frames that come by themselves.
            Speech::CanOpen(_) => self.address.timeout.max(Duration::from_secs(3)),
        }
    }

    async fn write_signal(
        &mut self,
        (id, size): (CanId, usize),
        signal: &Signal,
        value: &Value,
    ) -> Result<(), Fault> {
        let known = self.written.get(&id).copied();
        let mut bytes =
            known.or_else(|| self.newest.of(id).map(|(frame, _)| frame.padded())).unwrap_or_default();
        signal.encode(value, &mut bytes).map_err(Fault::Unfit)?;
        let frame = Frame::new(id, bytes.get(..size).unwrap_or(&bytes));
        let frame = frame.ok_or_else(|| Fault::Unfit("it does not fit into a frame".to_owned()))?;
        // A gateway that sends into a full connection takes nothing from it.
        self.bus.discard().await.map_err(Fault::NotSent)?;
        self.bus.send(&frame).await.map_err(Fault::NotSent)?;
        self.written.insert(id, bytes);
        Ok(())
    }
}

impl Session for CanSession {
    type Visitor = Visitor;

    /// Each answer has its own time-out; this is for another Device of the same node before it.
    fn deadline(&self) -> Duration {
        TRANSFER_WITHIN * 3
    }

    async fn read(&mut self, visitor: &Visitor) -> Result<Value, Fault> {
        match visitor {
            Visitor::Object { object, data_type, kind, scale } => {
                let (bytes, has_length) = self.node()?.done(Transfer::read(*object)).await?;
                data_type.decode((*kind, *scale), &bytes, has_length)
            }
            Visitor::Signal { id, signal, .. } => self.heard(*id, signal),
        }
    }

    async fn subscribe(&mut self, visitors: &[&Visitor], values: Subscription) -> Vec<usize> {
        if let Some(before) = self.monitor.take() {
            before.abort();
        }
        let listener = |(place, visitor): (usize, &&Visitor)| match visitor {
            Visitor::Signal { id, signal, .. } => Some(Listener { place, id: *id, signal: *signal }),
            Visitor::Object { .. } => None,
        };
        let listeners: Vec<Listener> = visitors.iter().enumerate().filter_map(listener).collect();
        let places: Vec<usize> = listeners.iter().map(|listener| listener.place).collect();
        let Some(first) = places.first().copied() else { return places };
        let mut ids: Vec<CanId> = listeners.iter().map(|listener| listener.id).collect();
        ids.sort();
        ids.dedup();
        match Bus::open(&self.address.interface, ids).await {
            Ok(bus) => {
                let (newest, within) = (self.newest.clone(), self.within());
                let is_all = self.address.speech == Speech::Raw;
                let monitor = Monitor { bus, listeners, newest, values, within, is_all };
                self.monitor = Some(tokio::spawn(monitor.run()));
            }
            Err(reason) => values.push(first, Err(Fault::Link(reason))),
        }
        places
    }

    async fn write(&mut self, visitor: &Visitor, value: &Value) -> Result<(), Fault> {
        match visitor {
            Visitor::Object { object, data_type, scale, .. } => {
                let bytes = data_type.encode(*scale, value).map_err(Fault::Unfit)?;
                self.node()?.done(Transfer::write(*object, bytes)).await.map(drop)
            }
            Visitor::Signal { written, signal, .. } => self.write_signal(*written, signal, value).await,
        }
    }
}

impl Drop for CanSession {
    fn drop(&mut self) {
        if let Some(monitor) = &self.monitor {
            monitor.abort();
        }
    }
}
