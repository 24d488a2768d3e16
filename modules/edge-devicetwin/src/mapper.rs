//! One registered mapper, and the calls to it.

use std::rc::Rc;
use std::time::Duration;

use beehive::Env;
use dmi::v1beta1 as pb;
use dmi::v1beta1::device_mapper_service_client::DeviceMapperServiceClient;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::push::{Call, Met, Sent};
use crate::rows::MapperRow;

/// 10 s for one call (KubeEdge).
const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// The first pause after a push that failed; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// 108 bytes of a socket's path, its end included (Linux).
const PATH_MAX: usize = 107;
/// 253 characters of a mapper's or a protocol's name.
const NAME_MAX: usize = 253;

/// A mapper, from its registration until the next one for its protocol.
#[derive(Debug)]
pub(crate) struct Session {
    /// The mapper's name.
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) version: String,
    /// Tells this session's pushes from those of earlier ones.
    pub(crate) number: u64,
    pub(crate) sent: Sent,
    pub(crate) met: Met,
    /// The push under way.
    pub(crate) flying: Option<Rc<Vec<Call>>>,
    /// Something changed during the push.
    pub(crate) again: bool,
    /// A try is due by the clock.
    pub(crate) waiting: bool,
    pub(crate) failures: u32,
}

impl Session {
    /// A session that begins with what the mapper is known to have.
    pub(crate) fn new(name: String, row: &MapperRow, met: Met, number: u64) -> Self {
        Session {
            name,
            address: row.address.clone(),
            version: row.version.clone(),
            number,
            sent: row.sent.clone(),
            met,
            flying: None,
            again: false,
            waiting: false,
            failures: 0,
        }
    }

    /// The row that keeps it.
    pub(crate) fn row(&self, protocol: &str) -> MapperRow {
        MapperRow {
            protocol: protocol.to_owned(),
            address: self.address.clone(),
            version: self.version.clone(),
            sent: self.sent.clone(),
        }
    }

    /// The pause after one more push that failed.
    pub(crate) fn failed(&mut self) -> Duration {
        let pause = (PAUSE_MIN * 2_u32.pow(self.failures.min(8))).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        pause
    }
}

/// What a mapper says of itself, checked.
///
/// # Errors
/// A sentence for the mapper.
pub(crate) fn check(name: &str, protocol: &str, address: &str) -> Result<(), String> {
    let is_word =
        |text: &str| !text.is_empty() && text.len() <= NAME_MAX && !text.chars().any(char::is_control);
    if !is_word(name) {
        return Err("the mapper's name is empty, longer than 253 bytes or has control characters".to_owned());
    }
    if !is_word(protocol) {
        return Err(
            "the mapper's protocol is empty, longer than 253 bytes or has control characters".to_owned()
        );
    }
    let path = address.strip_prefix("unix:").unwrap_or(address);
    let path = path.strip_prefix("//").unwrap_or(path);
    if !path.starts_with('/') || path.len() > PATH_MAX || path.contains('\0') {
        return Err("the mapper's address is not the absolute path of a socket, at most 107 bytes".to_owned());
    }
    Ok(())
}

/// Makes the calls in order. Answers which were taken, and why others were not.
pub(crate) async fn run(address: String, calls: Rc<Vec<Call>>, env: Env) -> (Vec<usize>, Option<String>) {
    let mut client = DeviceMapperServiceClient::new(dmi::channel(&address));
    let (mut done, mut failure) = (Vec::with_capacity(calls.len()), None);
    for (at, call) in calls.iter().enumerate() {
        match env.timeout(CALL_DEADLINE, make(&mut client, call)).await {
            Some(Ok(())) => done.push(at),
            Some(Err(status)) => {
                failure = Some(format!("{}: {}", status.code(), status.message()));
                // Nobody is there: the rest would fail the same way.
                if status.code() == Code::Unavailable {
                    break;
                }
            }
            None => {
                failure = Some("no answer within 10 s".to_owned());
                break;
            }
        }
    }
    (done, failure)
}

async fn make(client: &mut DeviceMapperServiceClient<Channel>, call: &Call) -> Result<(), Status> {
    match call.clone() {
        Call::CreateModel(_, model) => {
            let request = pb::CreateDeviceModelRequest { model: Some(model.message) };
            client.create_device_model(request).await.map(drop)
        }
        Call::UpdateModel(_, model) => {
            let request = pb::UpdateDeviceModelRequest { model: Some(model.message) };
            client.update_device_model(request).await.map(drop)
        }
        Call::RemoveModel(id) => {
            let request = pb::RemoveDeviceModelRequest { model_name: id.name, model_namespace: id.namespace };
            client.remove_device_model(request).await.map(drop)
        }
        Call::Register(_, device) => {
            let request = pb::RegisterDeviceRequest { device: Some(device.message) };
            client.register_device(request).await.map(drop)
        }
        Call::Update(_, device) => {
            let request = pb::UpdateDeviceRequest { device: Some(device.message) };
            client.update_device(request).await.map(drop)
        }
        Call::Remove(id) => {
            let request = pb::RemoveDeviceRequest { device_name: id.name, device_namespace: id.namespace };
            client.remove_device(request).await.map(drop)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapper_says_who_and_where_it_is() {
        assert_eq!(check("m", "modbus", "/etc/kubeedge/modbus.sock"), Ok(()));
        assert_eq!(check("m", "modbus", "unix:///etc/kubeedge/modbus.sock"), Ok(()));
        let long = format!("/{}", "a".repeat(107));
        for (name, protocol, address) in [
            ("", "p", "/s"),
            ("m", "", "/s"),
            ("m\n", "p", "/s"),
            ("m", "p", "s"),
            ("m", "p", ""),
            ("m", "p", &*long),
        ] {
            assert!(check(name, protocol, address).is_err(), "{name} {protocol} {address}");
        }
    }
}
