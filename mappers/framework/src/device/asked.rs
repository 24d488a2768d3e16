//! What others ask a device for over the mapper's REST interface.

use std::time::UNIX_EPOCH;

use beehive::Env;

use crate::device::actor::{Device, ReadAnswer};
use crate::device::read_write;
use crate::events;
use crate::fault::Fault;
use crate::protocol::Protocol;
use crate::value::Value;

impl<P: Protocol> Device<P> {
    /// A property as it is now.
    pub(super) async fn read_now(&mut self, property: &str, env: &Env) -> Result<ReadAnswer, String> {
        let plan = self.plan.clone().ok_or("the device cannot be served as it is described")?;
        let at = plan.properties.iter().position(|planned| planned.name == property);
        let (at, planned) =
            at.and_then(|at| Some((at, plan.properties.get(at)?))).ok_or("no such property")?;
        if planned.stream.is_some() {
            return Err("a stream is saved and not read; the property's twin says where".to_owned());
        }
        let session = self.session.as_mut().ok_or("the device is not connected")?;
        let read = read_write::read_one(session, &planned.visitor, env).await;
        let value = match &read {
            Ok(value) | Err(Fault::Doubtful(value, _)) => Ok(value),
            Err(fault) => Err(fault.to_string()),
        };
        let answer = value.map(|value| ReadAnswer {
            value: value.to_string(),
            kind: planned.kind.twin_type(),
            at: env
                .wall()
                .duration_since(UNIX_EPOCH)
                .ok()
                .and_then(|since| u64::try_from(since.as_millis()).ok())
                .unwrap_or_default(),
        });
        self.was_read(&plan, at, read, env);
        answer
    }

    /// Calls a method of the device: it writes one of the properties that the method names. What is desired in the cloud stays as
    /// it is, and is written again when it changes or the device comes back.
    pub(super) async fn call(
        &mut self,
        method: &str,
        property: &str,
        text: &str,
        env: &Env,
    ) -> Result<(), String> {
        let description = self.description.clone().ok_or("the device was removed")?;
        let mut methods = description.device.spec.iter().flat_map(|spec| &spec.methods);
        let named = methods.find(|there| there.name == method).ok_or("no such method")?;
        if !named.property_names.iter().any(|name| name == property) {
            return Err(format!("method `{method}` does not name property `{property}`"));
        }
        let plan = self.plan.clone().ok_or("the device cannot be served as it is described")?;
        let at = plan.properties.iter().position(|planned| planned.name == property);
        let (at, planned) =
            at.and_then(|at| Some((at, plan.properties.get(at)?))).ok_or("no such property")?;
        if !planned.is_writable {
            return Err("the property is ReadOnly".to_owned());
        }
        let limits = planned.limits.clone().map_err(|error| error.to_string())?;
        let value = Value::parse(planned.kind, text).map_err(|error| error.to_string())?;
        limits.check(&value).map_err(|error| error.to_string())?;
        let session = self.session.as_mut().ok_or("the device is not connected")?;
        let written = read_write::write(session, &planned.visitor, &value, env).await;
        if let Some(property) = self.properties.get_mut(at) {
            property.read_soon(env.now());
        }
        if written.is_ok() {
            events::method_called(env, self.instance.name(), method, property, text);
        }
        let outcome = written.as_ref().map(drop).map_err(ToString::to_string);
        self.was_answered(&plan, at, written.err().as_ref(), env);
        outcome
    }
}
