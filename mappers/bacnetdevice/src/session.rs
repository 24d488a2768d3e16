//! Talking to a device.

use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use framework::{Fault, InvalidSetting, Property, Protocol, Session, Settings, Subscription, Value};

use crate::address::{Address, Place, Through};
use crate::apdu::{Refusal, WRITE_PROPERTY};
use crate::code;
use crate::device::{APDU_UNKNOWN, Device, Devices, NotDone};
use crate::foreign::{Registration, Registrations};
use crate::link::{Link, Links, Timing};
use crate::monitor::Monitor;
use crate::names;
use crate::network::Peer;
use crate::primitive::Primitive;
use crate::reads;
use crate::routes;
use crate::service;
use crate::target::{ANY_INSTANCE, ObjectId, Target};
use crate::visitor::{LOWEST, Visitor};

/// The protocol's name in devices and in the mapper's config.
pub const NAME: &str = "bacnet";
/// 60 s: how long a request may wait for its turn behind those of other Devices of the same device.
const QUEUE: Duration = Duration::from_secs(60);
/// Requests that one call may take: several properties at ever fewer, or one with its flags.
const REQUESTS: u32 = 10;

/// Devices that speak BACnet/IP, or are behind a router that does.
#[derive(Debug, Clone, Default)]
pub struct Bacnet {
    links: Links,
    devices: Devices,
    registrations: Registrations,
}

/// A device, by way of the socket that all Devices share.
#[derive(Debug)]
pub struct BacnetSession {
    device: Arc<Device>,
    address: Address,
    monitor: Option<Monitor>,
    /// As long as it is used, the BBMD sends us what is broadcast there.
    _registration: Option<Arc<Registration>>,
}

impl Address {
    /// For what does no harm when it is done twice.
    fn patiently(&self) -> Timing {
        Timing { answer: self.answer, tries: self.retries + 1 }
    }
}

impl Protocol for Bacnet {
    type Address = Address;
    type Visitor = Visitor;
    type Session = BacnetSession;

    fn name(&self) -> &'static str {
        NAME
    }

    fn address(&self, settings: &Settings) -> Result<Address, InvalidSetting> {
        Address::read(settings)
    }

    fn visitor(&self, property: &Property, settings: &Settings) -> Result<Visitor, InvalidSetting> {
        let visitor = Visitor::read(property, settings)?;
        if visitor.relinquish {
            let is_command = match settings.text("command")? {
                Some(_) => settings.flag("command")?,
                None => property.cycle.is_none(),
            };
            let sentence = match (property.writable, is_command) {
                (false, _) => {
                    "setting `relinquish` is for what is written, and the model says ReadOnly; leave it out"
                }
                (true, true) => {
                    "setting `relinquish` is for what is kept up, and this is a command; set `command` to false"
                }
                (true, false) => return Ok(visitor),
            };
            return Err(InvalidSetting::new(sentence));
        }
        Ok(visitor)
    }

    fn is_released(&self, visitor: &Visitor) -> bool {
        visitor.relinquish
    }

    fn connect_deadline(&self, address: &Address) -> Duration {
        QUEUE + address.answer * (address.retries + 1) * 2
    }

    async fn connect(&self, address: &Address) -> Result<BacnetSession, Fault> {
        let link = self.links.at(address.local_port).map_err(Fault::NotSent)?;
        let (device, registration) = match &address.place {
            Place::Instance { instance, through } => self.found(&link, address, *instance, through).await?,
            Place::At { host, port, remote, instance } => {
                let at = at(host, *port).await.map_err(Fault::NotSent)?;
                let device = self.devices.at(&link, address.local_port, Peer { at, remote: remote.clone() });
                let apdu = is_there(&device, *instance, address.patiently()).await?;
                device.begins(apdu);
                (device, None)
            }
        };
        Ok(BacnetSession { device, address: address.clone(), monitor: None, _registration: registration })
    }
}

impl Bacnet {
    /// Asks everybody for the device.
    async fn found(
        &self,
        link: &Arc<Link>,
        address: &Address,
        instance: u32,
        through: &Through,
    ) -> Result<(Arc<Device>, Option<Arc<Registration>>), Fault> {
        let (to, registration) = match through {
            Through::Networks(port) => {
                let to = routes::broadcasts().into_iter().map(|address| SocketAddrV4::new(address, *port));
                (to.collect(), None)
            }
            Through::Broadcast(to) => (vec![*to], None),
            Through::Bbmd { host, port, ttl } => {
                let bbmd = at(host, *port).await.map_err(Fault::NotSent)?;
                let registration = self.registrations.at(bbmd, *ttl, address.local_port, link);
                registration.is_made().await.map_err(Fault::NotSent)?;
                (vec![bbmd], Some(registration))
            }
        };
        let found = link.find(instance, (&to, registration.is_some()), address.patiently()).await;
        let (peer, i_am) = found.map_err(Fault::NotSent)?;
        tracing::debug!(instance, %peer, "the device is there");
        let device = self.devices.at(link, address.local_port, peer);
        device.begins(i_am.apdu);
        Ok((device, registration))
    }
}

/// The first IPv4 address of a host.
async fn at(host: &str, port: u16) -> Result<SocketAddrV4, String> {
    let found = framework::host::addresses(host, port).await?;
    let v4 = found.iter().find_map(|at| match at {
        SocketAddr::V4(at) => Some(*at),
        SocketAddr::V6(_) => None,
    });
    v4.ok_or_else(|| format!("`{host}` has no IPv4 address, and BACnet over IPv6 is not spoken"))
}

/// How long the APDUs of the device there are; whatever it answers, it is there.
async fn is_there(device: &Device, instance: Option<u32>, timing: Timing) -> Result<u32, Fault> {
    let own = ObjectId { object_type: names::DEVICE, instance: instance.unwrap_or(ANY_INSTANCE) };
    match reads::primitive(device, &Target::of(own, names::MAX_APDU_LENGTH), timing).await {
        Ok(Primitive::Unsigned(apdu)) => Ok(u32::try_from(apdu).unwrap_or(APDU_UNKNOWN)),
        Err(NotDone::Refused(Refusal::Error(_, code::UNKNOWN_OBJECT))) if instance.is_some() => {
            let (peer, instance) = (device.peer(), instance.unwrap_or_default());
            Err(Fault::NotSent(format!(
                "the device at {peer} is not {instance}; check `ip` and `deviceInstance`, or leave `ip` out to have it found"
            )))
        }
        Ok(_) | Err(NotDone::Refused(_) | NotDone::Wrong(_)) => Ok(APDU_UNKNOWN),
        Err(NotDone::Silent(reason) | NotDone::Unsent(reason) | NotDone::Unfit(reason)) => {
            Err(Fault::NotSent(reason))
        }
    }
}

impl Session for BacnetSession {
    type Visitor = Visitor;

    /// Each request has its own time-outs; this is for the queue before it.
    fn deadline(&self) -> Duration {
        QUEUE + self.address.answer * (self.address.retries + 1) * REQUESTS
    }

    async fn read(&mut self, visitor: &Visitor) -> Result<Value, Fault> {
        reads::one(&self.device, visitor, self.address.patiently()).await
    }

    async fn read_many(&mut self, visitors: &[&Visitor]) -> Vec<(usize, Result<Value, Fault>)> {
        reads::many(&self.device, visitors, self.address.patiently()).await
    }

    async fn subscribe(&mut self, visitors: &[&Visitor], values: Subscription) -> Vec<usize> {
        if let Some(before) = self.monitor.take() {
            before.cancel().await;
        }
        let told: Vec<(usize, Visitor)> = visitors
            .iter()
            .enumerate()
            .filter(|(_, visitor)| visitor.cov)
            .map(|(at, of)| (at, **of))
            .collect();
        if told.is_empty() {
            return Vec::new();
        }
        let timing = self.address.patiently();
        let (monitor, places) =
            Monitor::start(Arc::clone(&self.device), told, values, timing, self.address.cov_lifetime).await;
        self.monitor = Some(monitor);
        places
    }

    async fn write(&mut self, visitor: &Visitor, value: &Value) -> Result<(), Fault> {
        let value = visitor.encoding.encode(value).map_err(Fault::Unfit)?;
        self.put(visitor, &value, visitor.priority).await
    }

    /// What others have put there with a higher priority says nothing of ours.
    async fn holds(&mut self, visitor: &Visitor, value: &Value) -> Result<bool, Fault> {
        match self.own(visitor).await? {
            Some(own) => {
                let is_same = visitor.encoding.decode(&own).is_ok_and(|own| own == *value);
                Ok(is_same || visitor.encoding.encode(value).is_ok_and(|value| value == own))
            }
            None => match self.read(visitor).await {
                Ok(there) | Err(Fault::Doubtful(there, _)) => Ok(there == *value),
                Err(fault) if fault.is_unanswered() => Err(fault),
                Err(_) => Ok(false),
            },
        }
    }

    async fn release(&mut self, visitor: &Visitor) -> Result<bool, Fault> {
        match self.own(visitor).await? {
            Some(Primitive::Null) => Ok(false),
            Some(_) => {
                let priority = visitor.priority.unwrap_or(LOWEST);
                self.put(visitor, &Primitive::Null, Some(priority)).await.map(|()| true)
            }
            None => Err(Fault::Unfit(format!(
                "{} has no priorities there, so that nothing is relinquished; leave out `relinquish`",
                visitor.target.object
            ))),
        }
    }

    async fn close(self) {
        if let Some(monitor) = self.monitor {
            monitor.cancel().await;
        }
    }
}

impl BacnetSession {
    /// What is at our own priority. None: the object has no priorities.
    async fn own(&self, visitor: &Visitor) -> Result<Option<Primitive>, Fault> {
        let object = visitor.target.object;
        let Some(place) = visitor.own_place() else { return Ok(None) };
        if self.device.known().without_priorities.contains(&object) {
            return Ok(None);
        }
        match reads::primitive(&self.device, &place, self.address.patiently()).await {
            Ok(own) => Ok(Some(own)),
            Err(NotDone::Refused(Refusal::Error(
                _,
                code::UNKNOWN_PROPERTY | code::PROPERTY_IS_NOT_AN_ARRAY,
            ))) => {
                self.device.known().without_priorities.insert(object);
                Ok(None)
            }
            // Whatever that is: the present value says more.
            Err(NotDone::Refused(_) | NotDone::Wrong(_)) => Ok(None),
            Err(why) => Err(reads::fault(&self.device, why, self.address.patiently()).await),
        }
    }

    /// Writes, once: what was not answered may have been done.
    async fn put(&self, visitor: &Visitor, value: &Primitive, priority: Option<u8>) -> Result<(), Fault> {
        let body = service::write(&visitor.target, value, priority);
        let once = Timing { answer: self.address.answer, tries: 1 };
        self.device.ask(WRITE_PROPERTY, &body, once).await?;
        Ok(())
    }
}
