//! What rules bring from the cloud: a publish for the EventBus, or a call for the ServiceBus, which takes the stream over.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use beehive::link::{ByteStream, WireVersion};
use contract::eventbus::EventBusMsg;
use contract::rule_stream::{self, LENGTH, PUBLISH_MAX, RuleStreamRequest};
use contract::servicebus::{ServiceBusMsg, ServiceCall};
use contract::stream::{StreamRequest, StreamResponse};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::budget::{Origin, TAKEN_WITHIN};
use crate::error::Refusal;
use crate::events;
use crate::handler::Kubelet;

/// In counters and the log.
const NAME: &str = "rules";
/// 10 s for the broker to take a message.
const PUBLISH_WITHIN: Duration = Duration::from_secs(10);

/// Does what a rule brings on `stream`.
pub(crate) async fn serve(kubelet: Arc<Kubelet>, request: StreamRequest, mut stream: ByteStream) {
    let done = match read(&kubelet, &request, &mut stream).await {
        Ok(RuleStreamRequest::Publish { topic }) => publish(&kubelet, topic, &mut stream).await,
        Ok(RuleStreamRequest::Call { port, method, path, headers }) => {
            let call = ServiceCall { port, method, path, headers, user: request.user.clone(), stream };
            return hand_over(&kubelet, call).await;
        }
        Err(refusal) => Err(refusal),
    };
    let (status, text) = match done {
        Ok(()) => (200, String::new()),
        Err(refusal) => (refusal.status, refusal.text),
    };
    events::called(kubelet.metrics(), NAME, &request.user, &request.target, status);
    if let Err(error) = answer(status, &text, &mut stream).await {
        events::cut(kubelet.metrics(), NAME, &error);
    }
}

async fn answer(status: u16, text: &str, stream: &mut ByteStream) -> io::Result<()> {
    let head = StreamResponse { status, headers: Vec::new() };
    stream.write_all(&head.encode(WireVersion::ONE).map_err(io::Error::other)?).await?;
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

/// What is asked for. Its length is looked at before anything is allocated for it.
async fn read(
    kubelet: &Kubelet,
    request: &StreamRequest,
    stream: &mut ByteStream,
) -> Result<RuleStreamRequest, Refusal> {
    if request.method != "POST" {
        return Err(Refusal::new(405, "405: Method Not Allowed").with("allow", "POST"));
    }
    let head = async {
        let mut length = [0; LENGTH];
        stream.read_exact(&mut length).await?;
        let mut head = vec![0; rule_stream::head_length(length).map_err(io::Error::other)?];
        stream.read_exact(&mut head).await?;
        RuleStreamRequest::decode(&head, WireVersion::ONE).map_err(io::Error::other)
    };
    tokio::select! {
        head = head => head.map_err(|error| Refusal::bad(format!("what the rule brings: {error}\n"))),
        () = kubelet.clock().sleep(TAKEN_WITHIN) => Err(Refusal::new(408, "what the rule brings has not come\n")),
    }
}

async fn publish(kubelet: &Kubelet, topic: String, stream: &mut ByteStream) -> Result<(), Refusal> {
    let bus = kubelet.rules.bus.as_ref().ok_or_else(|| Refusal::new(501, "this node has no broker\n"))?;
    let mut held =
        kubelet.budget().answer(Origin::Link).inspect_err(|_| events::answers_full(kubelet.metrics()))?;
    let mut payload = Vec::new();
    let most = u64::try_from(PUBLISH_MAX).unwrap_or(u64::MAX);
    let body = async { stream.take(most + 1).read_to_end(&mut payload).await };
    tokio::select! {
        read = body => read.map_err(|error| Refusal::bad(format!("what is to be published: {error}\n")))?,
        () = kubelet.clock().sleep(TAKEN_WITHIN) => {
            return Err(Refusal::new(408, "what is to be published has not come\n"));
        }
    };
    if payload.len() > PUBLISH_MAX {
        return Err(Refusal::new(413, format!("what is published has at most {PUBLISH_MAX} bytes\n")));
    }
    held.fit(payload.len())?;
    let payload = payload.into();
    let published = bus.ask(PUBLISH_WITHIN, |reply| EventBusMsg::Deliver { topic, payload, reply }).await;
    let published = published.map_err(|error| Refusal::new(503, format!("the node's broker: {error}\n")))?;
    published.map_err(|reason| Refusal::bad(format!("{reason}\n")))
}

/// The ServiceBus answers on the stream.
async fn hand_over(kubelet: &Kubelet, mut call: ServiceCall) {
    let refusal = match &kubelet.rules.services {
        Some(services) => match services.try_tell(ServiceBusMsg::Call(Box::new(call))) {
            Ok(()) => return,
            // The stream went with the message; CloudCore sees that it was cut.
            Err(error) => return events::cut(kubelet.metrics(), NAME, &io::Error::other(error.to_string())),
        },
        None => "rules call no services on this node: modules.serviceBus.enable is false there\n",
    };
    events::called(kubelet.metrics(), NAME, &call.user, rule_stream::TARGET, 501);
    if let Err(error) = answer(501, refusal, &mut call.stream).await {
        events::cut(kubelet.metrics(), NAME, &error);
    }
}
