//! The socket at which agents on the node ask who has which devices, CPUs and memory, as a child of ContainerManager.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use beehive::{Actor, Address, Clock, Context, Fault, Message, Moment, Reply};
use contract::containermanager::{ContainerManagerMsg, ResourceQuery};
use kubeletapi::methods::POD_RESOURCES_INTERFACE;
use kubeletapi::methods::pod_resources::older::v1alpha1;
use kubeletapi::methods::pod_resources::v1;
use kubeletapi::podresources::{GetPodResourcesRequest, GetPodResourcesResponse, PodResources};
use tonic::Status;
use unixgrpc::{Answering, Call};

use crate::socket;

/// 4 KiB of a question.
const QUESTION_MAX: usize = 4 << 10;
/// 1 h of a connection.
const LIFETIME: Duration = Duration::from_secs(3600);
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
        let clock = cx.env().clock();
        let lister = Lister {
            manager: self.manager.clone(),
            clock: Arc::clone(&clock),
            bucket: Arc::new(Mutex::new(Bucket { left: BURST, since: clock.now() })),
        };
        let calls = Rc::new(move |request| lister.answer(Call::new(request, QUESTION_MAX)));
        socket::serve_beside(cx, self.folder.clone(), false, LIFETIME, calls, ServerMsg::Ended);
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
                socket::listen_later(cx, &self.folder, &reason, ServerMsg::Listen);
            }
        }
        Ok(())
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

impl Lister {
    /// The services of both versions.
    fn answer(&self, call: Call) -> Answering {
        let lister = self.clone();
        let path = call.path();
        if path == v1::LIST.path() {
            call.answer(v1::LIST, |_| async move { decoded(&lister.ask(ResourceQuery::List).await?) })
        } else if path == v1::GET_ALLOCATABLE_RESOURCES.path() {
            call.answer(v1::GET_ALLOCATABLE_RESOURCES, |_| async move {
                decoded(&lister.ask(ResourceQuery::Allocatable).await?)
            })
        } else if path == v1::GET.path() {
            call.answer(v1::GET, |request| async move { lister.get(request.into_inner()).await })
        } else if path == v1alpha1::LIST.path() {
            // The newer message only has more fields.
            call.answer(v1alpha1::LIST, |_| async move { decoded(&lister.ask(ResourceQuery::List).await?) })
        } else {
            call.reflected(&POD_RESOURCES_INTERFACE)
        }
    }

    async fn get(&self, request: GetPodResourcesRequest) -> Result<GetPodResourcesResponse, Status> {
        let GetPodResourcesRequest { pod_name: name, pod_namespace: namespace } = request;
        let missing = || Status::unknown(format!("pod {name} in namespace {namespace} not found"));
        let (named, within) = (name.clone(), namespace.clone());
        let found = self.ask(|reply| ResourceQuery::Get { namespace: within, name: named, reply }).await?;
        let pod: PodResources = decoded(&found.ok_or_else(missing)?)?;
        Ok(GetPodResourcesResponse { pod_resources: Some(pod) })
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
