//! Calls of CSI drivers, which come over the link alone. What is asked is EdgeCsi's to judge; here a body is read, within its bounds, and
//! an answer handed on.

use std::io;
use std::time::Duration;

use contract::csi::CsiMsg;
use contract::csi_call::{BODY_MAX, CONTENT_TYPE, CsiCall};
use contract::stream::StreamRequest;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::answer::{Body, Reply};
use crate::budget::{BudgetPermit, Origin, TAKEN_WITHIN};
use crate::error::Refusal;
use crate::events;
use crate::handler::Kubelet;

/// In counters and the log.
pub(crate) const NAME: &str = "csi";
/// 1 s between looks whether the caller is still there: it has sent all that it sends, so that nothing is heard of it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// 5 s beyond the driver's time, for EdgeCsi to say so.
const BEYOND: Duration = Duration::from_secs(5);

/// Answers a call whose body is about to come on `stream`.
pub(crate) async fn answer(
    kubelet: &Kubelet,
    request: &StreamRequest,
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Reply {
    let reply = call(kubelet, request, stream).await.unwrap_or_else(Reply::from);
    events::called(kubelet.metrics(), NAME, &request.user, &request.target, reply.status);
    reply
}

async fn call(
    kubelet: &Kubelet,
    request: &StreamRequest,
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Result<Reply, Refusal> {
    let call = CsiCall::parse(&request.target).map_err(|error| Refusal::missing(format!("{error}\n")))?;
    if request.method != "POST" {
        return Err(Refusal::new(405, "405: Method Not Allowed").with("allow", "POST"));
    }
    let csi = kubelet.csi.as_ref().ok_or_else(|| Refusal::new(501, "this node mounts no CSI volumes\n"))?;
    let full = |_: &Refusal| events::answers_full(kubelet.metrics());
    let mut held = kubelet.budget().answer(Origin::Link).inspect_err(full)?;
    let body = tokio::select! {
        body = read(stream) => body.map_err(|error| Refusal::bad(format!("the body of the call: {error}\n")))?,
        () = kubelet.clock().sleep(TAKEN_WITHIN) => return Err(Refusal::new(408, "the body of the call has not come\n")),
    };
    held.fit(body.len())?;
    let asked = csi.ask(call.within() + BEYOND, |reply| CsiMsg::Call { call, body, reply });
    let answer = tokio::select! {
        answer = asked => answer.map_err(|error| Refusal::new(503, format!("CSI on this node: {error}\n")))?,
        // With the question the driver's call ends.
        error = gone(kubelet, stream) => return Err(Refusal::new(499, format!("who asked has gone: {error}\n"))),
    };
    let held = fit(held, answer.len()).inspect_err(full)?;
    let reply = Reply { status: 200, headers: Vec::new(), body: Body::Whole(answer), held: Some(held) };
    Ok(reply.with("content-type", CONTENT_TYPE))
}

fn fit(mut held: BudgetPermit, bytes: usize) -> Result<BudgetPermit, Refusal> {
    held.fit(bytes).map(|()| held)
}

/// Completes when the caller reads no more: then nothing can be written, not even nothing.
async fn gone(kubelet: &Kubelet, stream: &mut (impl AsyncWrite + Unpin)) -> io::Error {
    loop {
        kubelet.clock().sleep(LOOK_EVERY).await;
        if let Err(error) = stream.write(&[]).await {
            return error;
        }
    }
}

/// The whole body: its end is the end of the caller's side.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    let most = u64::try_from(BODY_MAX).unwrap_or(u64::MAX);
    stream.take(most + 1).read_to_end(&mut body).await?;
    if body.len() > BODY_MAX {
        let words = format!("it has more than {BODY_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, words));
    }
    Ok(body)
}
