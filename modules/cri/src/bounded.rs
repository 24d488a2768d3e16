//! How much of the runtime's answers is held: each is bounded by what its call needs, and all that are under way share a budget.
//!
//! This stands between the gRPC client and the connection, where the length of a message is known before there is room for it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _, TryFutureExt as _};
use http_body::Frame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;

use crate::exec_output::{ExecOutput, Malformed};

/// 48 MiB of answers that are on their way: three of the largest. What is decoded of one is about as large again, for a moment.
const ANSWERS: usize = 48 << 20;
/// 64 KiB: an id, a URL, or nothing.
const SMALL: usize = 64 << 10;
/// 1 MiB: what there is to say of one sandbox, container or image, or of the runtime. Annotations have 256 KiB (Kubernetes).
const ONE: usize = 1 << 20;
/// 4 MiB of one event: it may tell of all containers of a pod.
const EVENT: usize = 4 << 20;
/// 16 MiB: what the kubelet accepts. Lists, and all that a command printed.
const LARGEST: usize = 16 << 20;
/// 10 KiB of each output of a command (kubelet's `maxReadLength`).
const OUTPUT_KEPT: usize = 10 << 10;
/// The flag and the length in front of a message (gRPC).
const HEAD: usize = 5;

/// What of an answer is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    /// Messages of at most so many bytes.
    Whole(usize),
    /// Of an `ExecSyncResponse` so many bytes of each output, however long it is.
    Outputs(usize),
}

/// On a request: the command's output is wanted whole.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WholeOutput;

/// What a call needs of its answer. Of a call that is not named here the answer is small.
fn bound<B>(request: &http::Request<B>) -> Bound {
    match request.uri().path().rsplit('/').next().unwrap_or_default() {
        "ListPodSandbox" | "ListContainers" | "ListImages" | "ListContainerStats" | "ListPodSandboxStats" => {
            Bound::Whole(LARGEST)
        }
        "Status" | "PodSandboxStatus" | "ContainerStatus" | "ImageStatus" => Bound::Whole(ONE),
        "GetContainerEvents" | "Subscribe" => Bound::Whole(EVENT),
        "ExecSync" if request.extensions().get::<WholeOutput>().is_some() => Bound::Whole(LARGEST),
        "ExecSync" => Bound::Outputs(OUTPUT_KEPT),
        _ => Bound::Whole(SMALL),
    }
}

/// A connection whose answers are bounded. Its clones share the budget.
#[derive(Clone)]
pub(crate) struct Bounded<S> {
    connection: S,
    budget: Arc<Semaphore>,
}

impl<S> Bounded<S> {
    pub(crate) fn new(connection: S) -> Self {
        Bounded { connection, budget: Arc::new(Semaphore::new(ANSWERS)) }
    }

    /// Another connection, with the same budget.
    pub(crate) fn beside(&self, connection: S) -> Self {
        Bounded { connection, budget: Arc::clone(&self.budget) }
    }
}

impl<S> Service<http::Request<Body>> for Bounded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.connection.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (bound, budget) = (bound(&request), Arc::clone(&self.budget));
        let answered = self.connection.call(request);
        answered.map_ok(move |answer| answer.map(|body| Body::new(Answer::new(body, bound, budget)))).boxed()
    }
}

/// What becomes of the messages of an answer.
enum Taking {
    Whole { most: usize },
    Outputs { most: usize, output: Option<ExecOutput> },
}

/// The body of an answer.
struct Answer {
    body: Body,
    taking: Taking,
    budget: Arc<Semaphore>,
    /// For the message that comes, until the next one or the end.
    held: Option<OwnedSemaphorePermit>,
    head: [u8; HEAD],
    /// How much of the head has come.
    of_head: usize,
    is_in_message: bool,
    /// How much of the message is to come.
    left: usize,
}

impl Answer {
    fn new(body: Body, bound: Bound, budget: Arc<Semaphore>) -> Self {
        let taking = match bound {
            Bound::Whole(most) => Taking::Whole { most },
            Bound::Outputs(most) => Taking::Outputs { most, output: None },
        };
        Answer {
            body,
            taking,
            budget,
            held: None,
            head: [0; HEAD],
            of_head: 0,
            is_in_message: false,
            left: 0,
        }
    }

    /// Takes what came; answers what is handed on of it.
    fn take(&mut self, data: Bytes) -> Result<Option<Bytes>, Status> {
        let (mut rest, mut shortened) = (&data[..], Vec::new());
        loop {
            if self.is_in_message {
                let (now, behind) = rest.split_at(self.left.min(rest.len()));
                if let Taking::Outputs { output: Some(output), .. } = &mut self.taking {
                    output.feed(now).map_err(|Malformed| odd())?;
                }
                self.left -= now.len();
                rest = behind;
                if self.left > 0 {
                    break;
                }
                self.is_in_message = false;
                shortened.extend(self.message_ended()?);
            }
            if rest.is_empty() {
                break;
            }
            rest = self.head(rest)?;
        }
        Ok(match self.taking {
            Taking::Whole { .. } => Some(data),
            Taking::Outputs { .. } => (!shortened.is_empty()).then(|| Bytes::from(shortened)),
        })
    }

    /// Of a message that is shortened, it again.
    fn message_ended(&mut self) -> Result<Vec<u8>, Status> {
        let Taking::Outputs { output, .. } = &mut self.taking else { return Ok(Vec::new()) };
        let Some(mut output) = output.take() else { return Ok(Vec::new()) };
        let message = output.shortened().map_err(|Malformed| odd())?;
        let length = u32::try_from(message.len()).map_err(|_| odd())?;
        Ok([&[0][..], &length.to_be_bytes(), &message].concat())
    }

    /// Reads of a message's head what has come; answers what is behind it.
    fn head<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Status> {
        let wanted = &mut self.head[self.of_head..];
        let length = wanted.len().min(bytes.len());
        wanted[..length].copy_from_slice(&bytes[..length]);
        self.of_head += length;
        if self.of_head == HEAD {
            self.of_head = 0;
            self.message_begins()?;
        }
        Ok(&bytes[length..])
    }

    /// A message is refused before there is room for it.
    fn message_begins(&mut self) -> Result<(), Status> {
        let [flag, length @ ..] = self.head;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        let held = match &mut self.taking {
            Taking::Whole { most } if length > *most => {
                let text = format!("the runtime's answer has {length} bytes, and may have {most}");
                return Err(Status::resource_exhausted(text));
            }
            Taking::Whole { .. } => length,
            // Nobody has asked for compressed answers.
            Taking::Outputs { .. } if flag != 0 => return Err(odd()),
            Taking::Outputs { most, output } => {
                *output = Some(ExecOutput::keeping(*most));
                length.min(2 * *most + SMALL)
            }
        };
        (self.is_in_message, self.left) = (true, length);
        // The one before was taken.
        self.held = None;
        let held = u32::try_from(held).map_err(|_| full())?;
        self.held = Some(Arc::clone(&self.budget).try_acquire_many_owned(held).map_err(|_| full())?);
        Ok(())
    }
}

fn odd() -> Status {
    Status::internal("the runtime's answer is none")
}

fn full() -> Status {
    Status::resource_exhausted("the runtime's answers that are under way take as much as they may; ask again")
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                ended => return Poll::Ready(ended),
            };
            match frame.into_data() {
                Ok(data) => match self.take(data) {
                    Ok(Some(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Ok(None) => {}
                    Err(status) => return Poll::Ready(Some(Err(status))),
                },
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::stream::{self, StreamExt as _};
    use http_body_util::StreamBody;
    use tonic::{Code, Request};
    use unixgrpc::Client;

    use super::*;
    use crate::methods::runtime as methods;
    use crate::v1::{
        Container, ContainerStatusRequest, ExecSyncRequest, ExecSyncResponse, ListContainersRequest,
        ListContainersResponse,
    };

    const MIB: usize = 1 << 20;

    /// Bytes that are counted while they are there.
    struct Counted(Vec<u8>, Arc<AtomicUsize>);

    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.1.fetch_sub(self.0.len(), Ordering::Relaxed);
        }
    }

    /// A runtime that answers everything with this message, 16 KiB at a time, and what of that was there at once.
    #[derive(Clone)]
    struct Runtime {
        message: Arc<Vec<u8>>,
        there: Arc<AtomicUsize>,
        most: Arc<AtomicUsize>,
    }

    impl Runtime {
        fn answering(message: &impl prost::Message) -> Runtime {
            let body = message.encode_to_vec();
            let length = u32::try_from(body.len()).unwrap().to_be_bytes();
            let message = Arc::new([&[0][..], &length, &body].concat());
            Runtime { message, there: Arc::default(), most: Arc::default() }
        }
    }

    impl Service<http::Request<Body>> for Runtime {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: http::Request<Body>) -> Self::Future {
            let Runtime { message, there, most } = self.clone();
            let chunks = stream::iter((0..message.len()).step_by(16 << 10)).map(move |at| {
                let chunk = message[at..message.len().min(at + (16 << 10))].to_vec();
                most.fetch_max(
                    there.fetch_add(chunk.len(), Ordering::Relaxed) + chunk.len(),
                    Ordering::Relaxed,
                );
                Ok::<_, Status>(Frame::data(Bytes::from_owner(Counted(chunk, Arc::clone(&there)))))
            });
            let trailers = http::HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-status"),
                http::HeaderValue::from_static("0"),
            )]);
            let body = chunks.chain(stream::iter([Ok(Frame::trailers(trailers))])).then(|frame| async {
                tokio::task::yield_now().await;
                frame
            });
            futures::future::ok(http::Response::new(Body::new(StreamBody::new(Box::pin(body))))).boxed()
        }
    }

    fn client(runtime: &Bounded<Runtime>) -> Client {
        Client::new(runtime.clone(), 16 * MIB)
    }

    #[tokio::test]
    async fn two_hundred_commands_that_print_sixteen_mib_each_are_held_by_their_beginnings() {
        let printed =
            ExecSyncResponse { stdout: vec![b'x'; 16 * MIB], stderr: b"why".to_vec(), exit_code: 4 };
        let runtime = Runtime::answering(&printed);
        let bounded = Bounded::new(runtime.clone());
        let calls =
            (0..200).map(|_| {
                let client = client(&bounded);
                async move {
                    client.call(methods::EXEC_SYNC, Request::new(ExecSyncRequest::default())).await.unwrap()
                }
            });
        // All of them begin before any has ended.
        for done in futures::future::join_all(calls).await {
            assert_eq!(
                (done.stdout.len(), done.stderr.as_slice(), done.exit_code),
                (10 << 10, &b"why"[..], 4)
            );
        }
        let most = runtime.most.load(Ordering::Relaxed);
        assert!(most <= 200 * (16 << 10), "{most} bytes were there at once");
        assert_eq!(bounded.budget.available_permits(), ANSWERS);
    }

    fn list(bytes: usize) -> ListContainersResponse {
        ListContainersResponse { containers: vec![Container { id: "c".repeat(bytes), ..Default::default() }] }
    }

    #[tokio::test]
    async fn an_answer_larger_than_its_call_needs_is_refused_before_there_is_room_for_it() {
        let runtime = Runtime::answering(&list(2 * MIB));
        let bounded = Bounded::new(runtime.clone());
        let whole = client(&bounded)
            .call(methods::LIST_CONTAINERS, Request::new(ListContainersRequest::default()))
            .await
            .unwrap();
        assert_eq!(whole, list(2 * MIB));
        runtime.most.store(0, Ordering::Relaxed);
        let refused = client(&bounded)
            .call(methods::CONTAINER_STATUS, Request::new(ContainerStatusRequest::default()))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.message().starts_with("the runtime's answer has 2097"), "{refused:?}");
        assert!(runtime.most.load(Ordering::Relaxed) <= 16 << 10, "nothing was read but its beginning");
    }

    #[tokio::test]
    async fn all_answers_that_are_under_way_share_a_budget() {
        let runtime = Runtime::answering(&list(15 * MIB));
        let bounded = Bounded::new(runtime.clone());
        let images = bounded.beside(runtime);
        let calls = (0..10).map(|n| {
            let client = client(if n % 2 == 0 { &bounded } else { &images });
            async move {
                client.call(methods::LIST_CONTAINERS, Request::new(ListContainersRequest::default())).await
            }
        });
        let (done, refused): (Vec<_>, Vec<_>) =
            futures::future::join_all(calls).await.into_iter().partition(Result::is_ok);
        assert_eq!((done.len(), refused.len()), (3, 7));
        assert!(
            refused.iter().all(|why| why.as_ref().is_err_and(|why| why.code() == Code::ResourceExhausted))
        );
        assert_eq!(bounded.budget.available_permits(), ANSWERS, "what was taken is free again");
    }

    #[test]
    fn each_call_has_what_it_needs() {
        let of = |method: &str| {
            bound(
                &http::Request::get(format!("http://r/runtime.v1.RuntimeService/{method}")).body(()).unwrap(),
            )
        };
        assert_eq!(of("ListImages"), Bound::Whole(16 * MIB));
        assert_eq!(of("ContainerStatus"), Bound::Whole(MIB));
        assert_eq!(of("ExecSync"), Bound::Outputs(10 << 10));
        assert_eq!(of("RunPodSandbox"), Bound::Whole(64 << 10));
        assert_eq!(of("SomethingNew"), Bound::Whole(64 << 10));
        let mut whole = http::Request::get("http://r/runtime.v1.RuntimeService/ExecSync").body(()).unwrap();
        whole.extensions_mut().insert(WholeOutput);
        assert_eq!(bound(&whole), Bound::Whole(16 * MIB));
    }

    #[test]
    fn messages_are_told_apart_however_they_come() {
        let message = |length: usize| {
            [&[0][..], &u32::try_from(length).unwrap().to_be_bytes(), &vec![7; length]].concat()
        };
        let all = [message(3), message(0), message(10), message(0)].concat();
        for piece in 1..all.len() {
            let mut answer = Answer::new(Body::empty(), Bound::Whole(10), Arc::new(Semaphore::new(10)));
            let mut out = Vec::new();
            for piece in all.chunks(piece) {
                out.extend(answer.take(Bytes::copy_from_slice(piece)).unwrap().unwrap());
            }
            assert_eq!((out, answer.left, answer.of_head), (all.clone(), 0, 0), "in pieces of {piece}");
            assert!(answer.take(Bytes::from(message(11))).is_err());
        }
        // An empty one is a command that printed nothing and ended with 0.
        let mut answer = Answer::new(Body::empty(), Bound::Outputs(10), Arc::new(Semaphore::new(ANSWERS)));
        assert_eq!(answer.take(Bytes::from(message(0))).unwrap().as_deref(), Some(&[0, 0, 0, 0, 0][..]));
    }
}
