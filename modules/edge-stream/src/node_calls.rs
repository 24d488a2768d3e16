//! What `keadm ctl` does with pods and devices of the node, at its socket alone, with and without the cloud: containers' logs at a
//! kubelet's path, `POST /api/v1/namespaces/NAMESPACE/pods/restart` with a JSON list of names as KubeEdge's MetaServer has it, `GET
//! /devices`, `POST /devicedesired/NAMESPACE/NAME`, and `GET /events`. Whether it is done is Edged's and DeviceTwin's to judge.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::NamespacedName;
use beehive::Clock;
use bytes::Bytes;
use contract::devicetwin::TwinMsg;
use contract::edged::EdgedMsg;
use contract::edgepage::ViewBounds;
use contract::ids::DeviceName;
use futures::{FutureExt as _, StreamExt as _};
use http::{Request, StatusCode};
use http_body_util::StreamBody;
use https::{Answer, body};
use hyper::body::{Frame, Incoming};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::answer::{Body, Reply};
use crate::error::Refusal;
use crate::handler::{Kubelet, LONGEST};
use crate::http_reply::http_answer;
use crate::log::copy::LogError;
use crate::log::instance::Instance;
use crate::log::options::LogOptions;
use crate::plan::{self, Call};
use crate::query::Target;

/// 8 s for Edged or DeviceTwin to answer.
const WITHIN: Duration = Duration::from_secs(8);
/// 16 KiB of a request's body: names of pods, or a value.
const BODY_MAX: usize = 16 << 10;
/// 10 s for it.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// 64 pods at once.
const PODS_MAX: usize = 64;
/// 16 KiB of a log wait for who reads it.
const PIECE: usize = 16 << 10;
/// 512 devices, 64 properties of one, 512 bytes of a text.
const DEVICES: ViewBounds = ViewBounds { rows: 512, parts: 64, text: 512 };
/// Only events are wanted, of which Edged keeps [`contract::edgepage::EVENTS_MAX`].
const EVENTS: ViewBounds = ViewBounds { rows: 0, parts: 0, text: 512 };

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NodeCall {
    Logs { pod: NamespacedName, container: String, options: LogOptions },
    Restart { namespace: String },
    Devices,
    Desired(DeviceName),
    Events,
}

/// Which it is that a request asks for; a refusal in a kubelet's words where a log is asked for by what is none.
pub(crate) fn of_request(method: &str, target: &str) -> Option<Result<NodeCall, Refusal>> {
    let path = target.split_once('?').map_or(target, |(path, _)| path);
    if path.starts_with("/containerLogs/") {
        return Some(plan::call(method, target, false).and_then(|call| match call {
            Call::Logs { pod, container, options } => Ok(NodeCall::Logs { pod, container, options }),
            _ => Err(Refusal::missing("404 page not found\n")),
        }));
    }
    let parsed = Target::parse(path);
    let parts: Vec<&str> = parsed.segments.iter().map(String::as_str).collect();
    match (method, parts.as_slice()) {
        ("GET", ["devices"]) => Some(Ok(NodeCall::Devices)),
        ("GET", ["events"]) => Some(Ok(NodeCall::Events)),
        ("POST", ["api", "v1", "namespaces", namespace, "pods", "restart"]) => {
            Some(Ok(NodeCall::Restart { namespace: (*namespace).to_owned() }))
        }
        ("POST", ["devicedesired", namespace, name]) => {
            let device = DeviceName::parse(namespace, name);
            Some(device.map(NodeCall::Desired).map_err(|error| Refusal::bad(error.to_string())))
        }
        _ => None,
    }
}

/// Does it.
pub(crate) async fn answer(
    kubelet: &Arc<Kubelet>,
    call: Result<NodeCall, Refusal>,
    request: Request<Incoming>,
) -> Answer {
    let answered = match call {
        Err(refusal) => Err(refusal),
        Ok(NodeCall::Logs { pod, container, options }) => logs(kubelet, &pod, &container, options).await,
        Ok(NodeCall::Restart { namespace }) => restart(kubelet, &namespace, request.into_body()).await,
        Ok(NodeCall::Devices) => devices(kubelet).await,
        Ok(NodeCall::Desired(device)) => desired(kubelet, device, request.into_body()).await,
        Ok(NodeCall::Events) => recent(kubelet).await,
    };
    answered.unwrap_or_else(|refusal| http_answer(Reply::from(refusal)))
}

async fn logs(
    kubelet: &Arc<Kubelet>,
    pod: &NamespacedName,
    container: &str,
    options: LogOptions,
) -> Result<Answer, Refusal> {
    let reply = kubelet.container_logs(pod, container, options).await?;
    match reply.body {
        Body::Log(instance, options) => Ok(log_answer(Arc::clone(kubelet), instance, options)),
        _ => Ok(http_answer(reply)),
    }
}

/// The log as it is read, for as long as somebody listens.
fn log_answer(kubelet: Arc<Kubelet>, instance: Instance, options: LogOptions) -> Answer {
    let (mut writing, reading) = tokio::io::duplex(PIECE);
    // Whoever has gone ends this with the answer's body.
    let copy = async move {
        let copied = tokio::select! {
            copied = kubelet.logs.copy(&instance, &options, &mut writing) => copied,
            () = kubelet.clock().sleep(LONGEST) => Ok(()),
        };
        if let Err(LogError::Said(text)) = copied {
            let _ = writing.write_all(text.as_bytes()).await;
        }
        let _ = writing.shutdown().await;
    };
    let copying = copy.into_stream().filter_map(async |()| None);
    let read = futures::stream::try_unfold(reading, |mut reading| async move {
        let mut piece = vec![0; PIECE];
        let read = reading.read(&mut piece).await?;
        piece.truncate(read);
        Ok((read > 0).then(|| (Frame::data(Bytes::from(piece)), reading)))
    });
    let mut answer = Answer::new(https::Body::new(StreamBody::new(futures::stream::select(copying, read))));
    let plain = http::HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(http::header::CONTENT_TYPE, plain);
    answer
}

async fn read(kubelet: &Kubelet, mut text: Incoming) -> Result<Bytes, Refusal> {
    let clock: &Arc<dyn Clock> = kubelet.clock();
    let read = body::read(&mut text, BODY_MAX, BODY_WITHIN, &**clock).await;
    read.map_err(|error| Refusal::bad(format!("{error}; it has 16 KiB at the most")))
}

async fn restart(kubelet: &Kubelet, namespace: &str, text: Incoming) -> Result<Answer, Refusal> {
    let text = read(kubelet, text).await?;
    let names: Vec<String> = serde_json::from_slice(&text)
        .map_err(|error| Refusal::bad(format!("the body is no JSON list of pods' names: {error}")))?;
    if names.is_empty() || names.len() > PODS_MAX {
        return Err(Refusal::bad("the list has no name of a pod, or more than 64"));
    }
    let Some(edged) = &kubelet.edged else { return Err(Refusal::failed("this node runs no pods")) };
    let mut said = Vec::new();
    for name in names {
        let pod = NamespacedName::new(namespace, &*name);
        let asked = edged.ask(WITHIN, |reply| EdgedMsg::RestartPod { pod, reply }).await;
        let outcome = asked.unwrap_or_else(|error| Err(format!("Edged does not answer: {error}")));
        said.push(serde_json::json!({ "name": name, "error": outcome.err() }));
    }
    Ok(json(serde_json::to_vec(&said)))
}

async fn devices(kubelet: &Kubelet) -> Result<Answer, Refusal> {
    let Some(twin) = &kubelet.twin else { return Err(Refusal::missing("this node has no devices")) };
    let view = twin.ask(WITHIN, |reply| TwinMsg::Describe { bounds: DEVICES, reply }).await;
    view.map(|view| json(serde_json::to_vec(&view))).map_err(|error| unanswered("DeviceTwin", &error))
}

async fn desired(kubelet: &Kubelet, device: DeviceName, text: Incoming) -> Result<Answer, Refusal> {
    let Some(twin) = &kubelet.twin else { return Err(Refusal::missing("this node has no devices")) };
    let text = read(kubelet, text).await?;
    let said: Value = serde_json::from_slice(&text).unwrap_or_default();
    let word = |key: &str| said[key].as_str().map(str::to_owned);
    // An empty value: nothing is desired any more.
    let (Some(property), Some(value)) = (word("property"), word("value")) else {
        return Err(Refusal::bad("the body is not {\"property\": TEXT, \"value\": TEXT}"));
    };
    let asked = twin.ask(WITHIN, |reply| TwinMsg::SetDesired { device, property, value, reply }).await;
    match asked {
        Ok(Ok(())) => Ok(body::sentence(StatusCode::OK, "taken")),
        Ok(Err(why)) => Err(Refusal::bad(why)),
        Err(error) => Err(unanswered("DeviceTwin", &error)),
    }
}

async fn recent(kubelet: &Kubelet) -> Result<Answer, Refusal> {
    let Some(edged) = &kubelet.edged else { return Err(Refusal::failed("this node runs no pods")) };
    let view = edged.ask(WITHIN, |reply| EdgedMsg::Describe { bounds: EVENTS, reply }).await;
    view.map(|view| json(serde_json::to_vec(&view.events))).map_err(|error| unanswered("Edged", &error))
}

fn unanswered(who: &str, error: &beehive::AskError) -> Refusal {
    Refusal::new(503, format!("{who} does not answer: {error}"))
}

/// Structs of texts and numbers can be written always.
fn json(text: serde_json::Result<Vec<u8>>) -> Answer {
    body::answer(StatusCode::OK, "application/json", text.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_asked_at_the_socket_is_known_and_nothing_else() {
        let call = |method, target| of_request(method, target).map(|call| call.map_err(|own| own.status));
        let Some(Ok(NodeCall::Logs { pod, container, options })) =
            call("GET", "/containerLogs/d/p/c?follow=true&tailLines=3")
        else {
            panic!("no log")
        };
        assert_eq!((pod, container.as_str()), (NamespacedName::new("d", "p"), "c"));
        assert!(options.follow && options.tail == Some(3));
        assert_eq!(call("GET", "/containerLogs/d/p/c?tailLines=x"), Some(Err(400)));
        assert_eq!(call("POST", "/containerLogs/d/p/c"), Some(Err(405)));
        assert_eq!(call("GET", "/devices"), Some(Ok(NodeCall::Devices)));
        let restart = NodeCall::Restart { namespace: "shop".to_owned() };
        assert_eq!(call("POST", "/api/v1/namespaces/shop/pods/restart"), Some(Ok(restart)));
        let tank = DeviceName::parse("shop", "tank").unwrap();
        assert_eq!(call("POST", "/devicedesired/shop/tank"), Some(Ok(NodeCall::Desired(tank))));
        assert_eq!(call("POST", "/devicedesired/shop/Tank%20"), Some(Err(400)));
        for (method, target) in [
            ("GET", "/api/v1/namespaces/shop/pods/restart"),
            ("POST", "/devices"),
            ("POST", "/exec/d/p/c?output=1"),
            ("POST", "/run/d/p/c"),
        ] {
            assert_eq!(call(method, target), None, "{method} {target}");
        }
    }
}
