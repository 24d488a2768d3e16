//! One registered mapper, and the calls to it.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use apimachinery::NamespacedName;
use beehive::{Env, Moment};
use contract::ids::DeviceName;
use dmi::methods::mapper;
use dmi::v1beta1 as pb;
use prost::Message;
use tonic::{Code, Request, Status};
use unixgrpc::{Client, Method};

use crate::identity::MapperIdentity;
use crate::mapper_socket::MapperSocket;
use crate::push::{Acknowledged, Call, Pending, SentThisRun};

/// 10 s for one call (KubeEdge).
const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// The first pause after a push that failed; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(500);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// 253 characters of a mapper's or a protocol's name.
const NAME_MAX: usize = 253;

/// Who the mapper of a protocol is and where it listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MapperRecord {
    pub(crate) name: String,
    pub(crate) address: String,
    /// Its version and that of its API, for people.
    pub(crate) version: String,
    /// For whom it speaks.
    pub(crate) identity: MapperIdentity,
    /// The user of the process that registered.
    pub(crate) uid: u32,
    /// That process.
    pub(crate) process: String,
    /// It wants its devices.
    pub(crate) with_data: bool,
    /// It reads numbers of 64 bits with a fraction in settings.
    pub(crate) doubles: bool,
}

/// A mapper, from its registration until the next one for its protocol.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) mapper: MapperRecord,
    /// Tells this session's pushes from those of earlier ones.
    pub(crate) number: u64,
    pub(crate) has: Acknowledged,
    pub(crate) sent_this_run: SentThisRun,
    /// What it may have to be told of.
    pub(crate) pending: Pending,
    /// The push under way.
    pub(crate) under_way: Option<Rc<Vec<Call>>>,
    /// A try is due by the clock.
    pub(crate) waiting: bool,
    pub(crate) failures: u32,
    /// Why the last push did not reach it.
    pub(crate) fault: Option<String>,
    /// The devices that it does not take, and why.
    pub(crate) refusals: BTreeMap<DeviceName, String>,
    /// When it last called.
    pub(crate) heard: Moment,
    /// Its process was found to have ended.
    pub(crate) ended: Option<Moment>,
}

impl Session {
    /// A session that begins with what the mapper is known to have, and what it may have to be told of.
    pub(crate) fn new(
        mapper: MapperRecord,
        (has, sent_this_run): (Acknowledged, SentThisRun),
        pending: Pending,
        number: u64,
        now: Moment,
    ) -> Self {
        Session {
            mapper,
            number,
            has,
            sent_this_run,
            pending,
            under_way: None,
            waiting: false,
            failures: 0,
            fault: None,
            refusals: BTreeMap::new(),
            heard: now,
            ended: None,
        }
    }

    /// Whether its process has ended, and nobody has spoken for it since. One that is not called may be many short ones.
    pub(crate) fn is_gone(&self) -> bool {
        self.mapper.with_data && self.ended.is_some_and(|ended| self.heard < ended)
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
pub(crate) fn check(name: &str, protocol: &str) -> Result<(), String> {
    let is_word =
        |text: &str| !text.is_empty() && text.len() <= NAME_MAX && !text.chars().any(char::is_control);
    for (what, text) in [("name", name), ("protocol", protocol)] {
        if !is_word(text) {
            return Err(format!(
                "the mapper's {what} is empty, longer than 253 bytes or has control characters"
            ));
        }
    }
    Ok(())
}

/// What became of the calls of a push, by their place in it.
#[derive(Debug, Default)]
pub(crate) struct PushOutcome {
    pub(crate) done: Vec<usize>,
    /// What the mapper refused, and why.
    pub(crate) refused: Vec<(usize, String)>,
    /// Why anything is to be tried again.
    pub(crate) failure: Option<String>,
}

/// Makes the calls in order.
pub(crate) async fn run(socket: MapperSocket, calls: Rc<Vec<Call>>, env: Env) -> PushOutcome {
    // Said beside the channel: what gRPC makes of it is that nobody is there.
    let why: Arc<Mutex<Option<String>>> = Arc::default();
    let told = Arc::clone(&why);
    let channel = unixgrpc::channel_by(move || {
        let (socket, told) = (socket.clone(), Arc::clone(&told));
        async move {
            socket.connect().await.inspect_err(|error| {
                *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
            })
        }
    });
    let client = Client::new(channel, dmi::MESSAGE_MAX);
    let PushOutcome { mut done, mut refused, mut failure } = PushOutcome::default();
    for (at, call) in calls.iter().enumerate() {
        match env.timeout(CALL_DEADLINE, make(&client, call)).await {
            Some(Ok(())) => done.push(at),
            Some(Err(status)) => {
                failure = Some(format!("{}: {}", status.code(), cut(status.message())));
                // Nobody is there: the rest would fail the same way.
                if status.code() == Code::Unavailable {
                    let reason = why.lock().unwrap_or_else(PoisonError::into_inner).take();
                    failure = reason.or(failure);
                    break;
                }
                refused.push((at, cut(status.message())));
            }
            None => {
                failure = Some("no answer within 10 s".to_owned());
                break;
            }
        }
    }
    PushOutcome { done, refused, failure }
}

/// What a mapper says, made harmless for a log.
fn cut(message: &str) -> String {
    message.chars().filter(|c| !c.is_control()).take(256).collect()
}

async fn make(client: &Client, call: &Call) -> Result<(), Status> {
    match call.clone() {
        Call::CreateModel(_, model) => {
            let request = pb::CreateDeviceModelRequest { model: Some(model.message) };
            told(client, mapper::CREATE_DEVICE_MODEL, request).await
        }
        Call::UpdateModel(_, model) => {
            let request = pb::UpdateDeviceModelRequest { model: Some(model.message) };
            told(client, mapper::UPDATE_DEVICE_MODEL, request).await
        }
        Call::RemoveModel(id) => {
            let NamespacedName { namespace, name } = id.into();
            let request = pb::RemoveDeviceModelRequest { model_name: name, model_namespace: namespace };
            told(client, mapper::REMOVE_DEVICE_MODEL, request).await
        }
        Call::Register(_, device) => {
            let request = pb::RegisterDeviceRequest { device: Some(device.message) };
            told(client, mapper::REGISTER_DEVICE, request).await
        }
        Call::Update(_, device) => {
            let request = pb::UpdateDeviceRequest { device: Some(device.message) };
            told(client, mapper::UPDATE_DEVICE, request).await
        }
        Call::Remove(id) => {
            let NamespacedName { namespace, name } = id.into();
            let request = pb::RemoveDeviceRequest { device_name: name, device_namespace: namespace };
            told(client, mapper::REMOVE_DEVICE, request).await
        }
    }
}

/// Makes a call whose answer says nothing.
async fn told<Q: Message, A: Message + Default>(
    client: &Client,
    method: Method<Q, A>,
    request: Q,
) -> Result<(), Status> {
    client.call(method, Request::new(request)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapper_says_who_it_is() {
        assert_eq!(check("m", "modbus"), Ok(()));
        let long = "a".repeat(254);
        for (name, protocol) in
            [("", "p"), ("m", ""), ("m\n", "p"), ("m", "p\u{1b}[2J"), (&*long, "p"), ("m", &*long)]
        {
            assert!(check(name, protocol).is_err(), "{name} {protocol}");
        }
    }
}
