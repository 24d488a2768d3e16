//! The socket at which agents on the node ask who has which devices, CPUs and memory, as a child of ContainerManager.

use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as Poller, Poll};
use std::time::Duration;

use beehive::{Actor, Address, Clock, Context, Fault, Message, Moment, Reply};
use contract::containermanager::{ContainerManagerMsg, ResourceQuery};
use hyper::Request;
use hyper::body::Incoming;
use kubeletapi::podresources::pod_resources_lister_server::{PodResourcesLister, PodResourcesListerServer};
use kubeletapi::podresources::{
    AllocatableResourcesRequest, AllocatableResourcesResponse, GetPodResourcesRequest,
    GetPodResourcesResponse, ListPodResourcesRequest, ListPodResourcesResponse, PodResources,
};
use kubeletapi::podresources_v1alpha1 as old;
use kubeletapi::podresources_v1alpha1::pod_resources_lister_server as old_server;
use prost::Message as _;
use tonic::body::Body;
use tonic::codegen::http::Response as HttpResponse;
use tonic::{Response, Status};
use tower::Service;

use crate::events;
use crate::socket;

/// 4 KiB of a question.
const QUESTION_MAX: usize = 4 << 10;
/// 1 h of a connection.
const LIFETIME: Duration = Duration::from_secs(3600);
/// 5 s before a socket that could not be served is tried again.
const PAUSE: Duration = Duration::from_secs(5);
/// 5 s for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// 100 questions per second, and 10 at once (a kubelet's).
const EVERY: Duration = Duration::from_millis(10);
const BURST: u32 = 10;

/// Messages of the server to itself.
#[derive(Debug)]
pub(crate) enum ServerMsg {
    /// Time to try the socket again.
    Listen,
    /// The socket is not served any more, for this reason.
    Ended(String),
}

impl Message for ServerMsg {
    fn name(&self) -> &'static str {
        match self {
            ServerMsg::Listen => "Listen",
            ServerMsg::Ended(_) => "Ended",
        }
    }
}

/// Answers agents.
pub(crate) struct PodResourcesSocket {
    folder: PathBuf,
    manager: Address<ContainerManagerMsg>,
}

impl PodResourcesSocket {
    pub(crate) fn new(folder: PathBuf, manager: Address<ContainerManagerMsg>) -> Self {
        PodResourcesSocket { folder, manager }
    }

    fn listen(&self, cx: &Context<ServerMsg>) {
        let (folder, clock, myself, env) =
            (self.folder.clone(), cx.env().clock(), cx.myself(), cx.env().clone());
        let lister = Lister {
            manager: self.manager.clone(),
            clock: Arc::clone(&clock),
            bucket: Arc::new(Mutex::new(Bucket { left: BURST, since: clock.now() })),
        };
        cx.spawn(async move {
            let reason = match socket::bind(&env, folder, false).await {
                Ok(listener) => {
                    let both = Both {
                        new: PodResourcesListerServer::new(lister.clone())
                            .max_decoding_message_size(QUESTION_MAX),
                        old: old_server::PodResourcesListerServer::new(lister)
                            .max_decoding_message_size(QUESTION_MAX),
                    };
                    return socket::serve(listener, clock, LIFETIME, both).await;
                }
                Err(reason) => reason,
            };
            let _ = myself.tell(ServerMsg::Ended(reason)).await;
        });
    }
}

impl Actor for PodResourcesSocket {
    type Message = ServerMsg;

    async fn started(&mut self, cx: &mut Context<ServerMsg>) -> Result<(), Fault> {
        self.listen(cx);
        Ok(())
    }

    async fn handle(&mut self, message: ServerMsg, cx: &mut Context<ServerMsg>) -> Result<(), Fault> {
        match message {
            ServerMsg::Listen => self.listen(cx),
            ServerMsg::Ended(reason) => {
                events::not_served(
                    cx.env(),
                    &self.folder.join(socket::SOCKET_NAME).to_string_lossy(),
                    &reason,
                );
                cx.after(cx.env().jitter(PAUSE), ServerMsg::Listen);
            }
        }
        Ok(())
    }
}

/// The services of both versions on one socket.
#[derive(Clone)]
struct Both {
    new: PodResourcesListerServer<Lister>,
    old: old_server::PodResourcesListerServer<Lister>,
}

impl Service<Request<Incoming>> for Both {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Poller<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        if request.uri().path().starts_with("/v1alpha1.") {
            self.old.call(request)
        } else {
            self.new.call(request)
        }
    }
}

/// How many questions are left.
#[derive(Debug)]
struct Bucket {
    left: u32,
    since: Moment,
}

impl Bucket {
    fn take(&mut self, now: Moment) -> bool {
        let new = now.since(self.since).as_micros() / EVERY.as_micros();
        if let Ok(new) = u32::try_from(new.min(u128::from(BURST))) {
            self.left = self.left.saturating_add(new).min(BURST);
        }
        if new > 0 {
            self.since = now;
        }
        let is_left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_left
    }
}

#[derive(Clone)]
struct Lister {
    manager: Address<ContainerManagerMsg>,
    clock: Arc<dyn Clock>,
    bucket: Arc<Mutex<Bucket>>,
}

impl Lister {
    async fn ask<T: Send + 'static>(
        &self,
        query: impl FnOnce(Reply<T>) -> ResourceQuery,
    ) -> Result<T, Status> {
        if !self.bucket.lock().unwrap_or_else(PoisonError::into_inner).take(self.clock.now()) {
            return Err(Status::resource_exhausted("rejected by rate limit"));
        }
        let (reply, answer) = Reply::channel();
        // Its own parent is never waited for.
        self.manager
            .try_tell(ContainerManagerMsg::Query(query(reply)))
            .map_err(|refusal| Status::unavailable(refusal.to_string()))?;
        match futures::future::select(answer, self.clock.sleep(ANSWER_WITHIN)).await {
            futures::future::Either::Left((Ok(Ok(answer)), _)) => Ok(answer),
            futures::future::Either::Left(_) => Err(Status::unavailable("edgecore starts anew; try again")),
            futures::future::Either::Right(_) => {
                Err(Status::deadline_exceeded("edgecore is busy; try again"))
            }
        }
    }
}

fn decoded<T: prost::Message + Default>(bytes: &[u8]) -> Result<T, Status> {
    T::decode(bytes).map_err(|error| Status::internal(error.to_string()))
}

#[tonic::async_trait]
impl PodResourcesLister for Lister {
    async fn list(
        &self,
        _: tonic::Request<ListPodResourcesRequest>,
    ) -> Result<Response<ListPodResourcesResponse>, Status> {
        Ok(Response::new(decoded(&self.ask(ResourceQuery::List).await?)?))
    }

    async fn get_allocatable_resources(
        &self,
        _: tonic::Request<AllocatableResourcesRequest>,
    ) -> Result<Response<AllocatableResourcesResponse>, Status> {
        Ok(Response::new(decoded(&self.ask(ResourceQuery::Allocatable).await?)?))
    }

    async fn get(
        &self,
        request: tonic::Request<GetPodResourcesRequest>,
    ) -> Result<Response<GetPodResourcesResponse>, Status> {
        let GetPodResourcesRequest { pod_name: name, pod_namespace: namespace } = request.into_inner();
        let missing = || Status::unknown(format!("pod {name} in namespace {namespace} not found"));
        let (named, within) = (name.clone(), namespace.clone());
        let found = self.ask(|reply| ResourceQuery::Get { namespace: within, name: named, reply }).await?;
        let pod: PodResources = decoded(&found.ok_or_else(missing)?)?;
        Ok(Response::new(GetPodResourcesResponse { pod_resources: Some(pod) }))
    }
}

#[tonic::async_trait]
impl old_server::PodResourcesLister for Lister {
    async fn list(
        &self,
        _: tonic::Request<old::ListPodResourcesRequest>,
    ) -> Result<Response<old::ListPodResourcesResponse>, Status> {
        let bytes = self.ask(ResourceQuery::List).await?;
        // The newer message only has more fields.
        let all = old::ListPodResourcesResponse::decode(bytes.as_slice());
        all.map(Response::new).map_err(|error| Status::internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_bounded_by_second_and_at_once() {
        let at = |millis| Moment(Duration::from_millis(millis));
        let mut bucket = Bucket { left: BURST, since: at(0) };
        assert_eq!((0..100).filter(|_| bucket.take(at(0))).count(), 10);
        assert_eq!((0..100).filter(|_| bucket.take(at(35))).count(), 3);
        assert_eq!((0..100).filter(|_| bucket.take(at(5000))).count(), 10);
    }
}
