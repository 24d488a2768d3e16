//! What rules bring to a node: one byte stream of its link each, by none of the paths that a kubelet has.

use std::io;
use std::time::Duration;

use beehive::link::ByteStream;
use bytes::Bytes;
use contract::NodeName;
use contract::rule_stream::{self, RuleStreamAnswer, RuleStreamRequest};
use contract::stream::{StreamRequest, StreamResponse};
use https::Body;
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf};

use crate::calls::{NodeCalls, broken_off, read_head};
use crate::error::CallError;
use crate::open_call::OpenCall;
use crate::transfer::{Sending, passed_body};

/// 4 KiB of a node's sentence.
const SENTENCE: u64 = 4 << 10;

/// What a service on a node has answered.
pub struct ServiceAnswer {
    /// Its head.
    pub head: RuleStreamAnswer,
    /// Its body, as it comes.
    pub body: Body,
}

/// A stream that has been opened for a rule.
struct Opened {
    stream: ByteStream,
    version: beehive::link::WireVersion,
    open: OpenCall,
}

impl NodeCalls {
    /// Publishes on a node's broker. `rule` is who does, for the node's log, and has a user's share of the calls.
    ///
    /// # Errors
    /// Why the node has it not, or nobody knows.
    pub async fn publish(
        &self,
        node: &NodeName,
        rule: &str,
        (topic, payload): (String, Bytes),
        within: Duration,
    ) -> Result<(), CallError> {
        self.in_time(node, within, async {
            let Opened { stream, version, open: _open } =
                self.open_rule(node, rule, RuleStreamRequest::Publish { topic }).await?;
            let (mut reader, mut writer) = tokio::io::split(stream);
            let written = async {
                writer.write_all(&payload).await?;
                writer.shutdown().await
            };
            // A node that refuses it does not read all of it.
            let (_, head) = futures::join!(written, read_head(node, &mut reader, version));
            accepted(node, head?, &mut reader).await
        })
        .await
    }

    /// Calls a service on a node's loopback with the caller's request, and gives its answer. As [`NodeCalls::publish`].
    ///
    /// # Errors
    /// Why there is no answer of the service.
    pub async fn call_service(
        &self,
        node: &NodeName,
        rule: &str,
        (request, body): (RuleStreamRequest, Incoming),
        within: Duration,
    ) -> Result<ServiceAnswer, CallError> {
        self.in_time(node, within, async {
            let Opened { stream, version, open } = self.open_rule(node, rule, request).await?;
            let (mut reader, writer) = tokio::io::split(stream);
            let mut sending = Sending::of(body, writer, self.metrics());
            let head = async {
                accepted(node, read_head(node, &mut reader, version).await?, &mut reader).await?;
                read_answer(node, &mut reader, version).await
            };
            let head = tokio::select! {
                head = head => head?,
                never = sending.run() => match never {},
            };
            Ok(ServiceAnswer { head, body: passed_body(reader, sending, open, false) })
        })
        .await
    }

    /// Opens the stream and writes what is asked.
    async fn open_rule(
        &self,
        node: &NodeName,
        rule: &str,
        request: RuleStreamRequest,
    ) -> Result<Opened, CallError> {
        let asked = StreamRequest {
            method: "POST".to_owned(),
            target: rule_stream::TARGET.to_owned(),
            headers: Vec::new(),
            user: rule.to_owned(),
        };
        let (mut stream, version, open) = self.open_stream(node, rule, &asked).await?;
        let head = request
            .encode(version)
            .map_err(|error| CallError::Refused { code: 400, reason: error.to_string() })?;
        stream.write_all(&head).await.map_err(|error| broken_off(node, &error))?;
        Ok(Opened { stream, version, open })
    }
}

/// Whether the node does what it is asked.
async fn accepted(
    node: &NodeName,
    head: StreamResponse,
    reader: &mut ReadHalf<ByteStream>,
) -> Result<(), CallError> {
    match head.status {
        200 => Ok(()),
        // No release that knows rules says that.
        404 => Err(CallError::Unsupported(node.clone())),
        code => {
            let mut sentence = Vec::new();
            // What there is of it says more than nothing.
            let _ = reader.take(SENTENCE).read_to_end(&mut sentence).await;
            let reason = String::from_utf8_lossy(&sentence).trim_end().to_owned();
            Err(CallError::refused(code, &reason))
        }
    }
}

/// The head of a service's answer. Its length is looked at before anything is allocated for it.
async fn read_answer(
    node: &NodeName,
    reader: &mut ReadHalf<ByteStream>,
    version: beehive::link::WireVersion,
) -> Result<RuleStreamAnswer, CallError> {
    let broken = |reason: String| CallError::Broken { node: node.clone(), reason };
    let mut length = [0; rule_stream::LENGTH];
    let cut = |error: io::Error| broken_off(node, &error);
    reader.read_exact(&mut length).await.map_err(cut)?;
    let length = rule_stream::head_length(length).map_err(|error| broken(error.to_string()))?;
    let mut head = vec![0; length];
    reader.read_exact(&mut head).await.map_err(cut)?;
    RuleStreamAnswer::decode(&head, version).map_err(|error| broken(error.to_string()))
}
