//! Calls to a plugin, each bounded in size and in time where a kubelet bounds it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use beehive::Env;
use kubeletapi::deviceplugin::{
    AllocateRequest, ContainerAllocateRequest, ContainerAllocateResponse,
    ContainerPreferredAllocationRequest, DevicePluginOptions, Empty, PreStartContainerRequest,
    PreferredAllocationRequest,
};
use kubeletapi::methods::device_plugin;
use tokio::net::UnixStream;
use tonic::transport::Channel;
use tonic::{Request, Status};
use unixgrpc::{Answers, Client};

use crate::device_list::{self, DeviceList};
use crate::error::PluginError;
use crate::plan::choice::Ids;

/// 10 s until a plugin that registers has been reached and has said what it wants (a kubelet's).
const OPTIONS_WITHIN: Duration = Duration::from_secs(10);
/// 30 s until it has prepared a container (a kubelet's), and until it has said what it prefers.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// 256 KiB of an answer for one container: with what a message can be made of, a few MiB in memory.
const ANSWER_MAX: usize = 256 << 10;
/// 4 MiB of a list of devices, gRPC's own bound; what it is made of is counted before it is made.
const LIST_MAX: usize = 4 << 20;

/// A way to a plugin.
#[derive(Debug, Clone)]
pub(crate) struct PluginClient {
    channel: Channel,
}

impl PluginClient {
    /// A plugin's socket. It is connected to with the first call.
    pub(crate) fn new(folder: &Path, endpoint: &str) -> PluginClient {
        let path: PathBuf = folder.join(endpoint);
        PluginClient { channel: unixgrpc::channel_by(move || UnixStream::connect(path.clone())) }
    }

    fn calls(&self) -> Client {
        Client::new(self.channel.clone(), ANSWER_MAX)
    }

    /// What the plugin wants to be asked.
    pub(crate) async fn options(
        &self,
        clock: &dyn beehive::Clock,
    ) -> Result<DevicePluginOptions, PluginError> {
        let method = device_plugin::GET_DEVICE_PLUGIN_OPTIONS;
        let call = std::pin::pin!(self.calls().call(method, Request::new(Empty {})));
        match futures::future::select(call, clock.sleep(OPTIONS_WITHIN)).await {
            futures::future::Either::Left((answer, _)) => Ok(answer?),
            futures::future::Either::Right(((), _)) => Err(PluginError::TooLate),
        }
    }

    /// Which of `available` it prefers.
    pub(crate) async fn prefers(
        &self,
        env: &Env,
        available: Ids,
        must_include: Ids,
        size: usize,
    ) -> Result<Ids, PluginError> {
        let request = PreferredAllocationRequest {
            container_requests: vec![ContainerPreferredAllocationRequest {
                available_device_i_ds: available.into_iter().collect(),
                must_include_device_i_ds: must_include.into_iter().collect(),
                allocation_size: i32::try_from(size).unwrap_or(i32::MAX),
            }],
        };
        let call = self.calls().call(device_plugin::GET_PREFERRED_ALLOCATION, Request::new(request));
        let answer = env.timeout(ANSWER_WITHIN, call).await.ok_or(PluginError::TooLate)??;
        let first = answer.container_responses.into_iter().next();
        Ok(first.map(|first| first.device_i_ds.into_iter().collect()).unwrap_or_default())
    }

    /// What a container needs to use these. As with a kubelet there is no time limit: whoever waits for it can give up.
    pub(crate) async fn allocate(&self, ids: &Ids) -> Result<ContainerAllocateResponse, PluginError> {
        let devices_ids = ids.iter().cloned().collect();
        let request = AllocateRequest { container_requests: vec![ContainerAllocateRequest { devices_ids }] };
        let answer = self.calls().call(device_plugin::ALLOCATE, Request::new(request)).await?;
        let shown = format!("no containers return in allocation response {answer:?}");
        answer.container_responses.into_iter().next().ok_or(PluginError::Nonsense(shown))
    }

    /// Has a container's devices prepared for its start.
    pub(crate) async fn pre_start(&self, env: &Env, ids: &Ids) -> Result<(), PluginError> {
        let request = PreStartContainerRequest { devices_ids: ids.iter().cloned().collect() };
        let call = self.calls().call(device_plugin::PRE_START_CONTAINER, Request::new(request));
        env.timeout(ANSWER_WITHIN, call).await.ok_or(PluginError::TooLate)??;
        Ok(())
    }

    /// Its devices, now and with every change.
    pub(crate) async fn watch(&self) -> Result<DeviceLists, PluginError> {
        let calls = Client::new(self.channel.clone(), LIST_MAX);
        let request = Request::new(Empty {});
        Ok(DeviceLists(calls.stream(device_plugin::LIST_AND_WATCH, request).await?))
    }
}

/// A plugin's devices, each time all of them.
#[derive(Debug)]
pub(crate) struct DeviceLists(Answers);

impl DeviceLists {
    /// The next list; `None` at the end.
    ///
    /// # Errors
    /// Those of the plugin and of the connection, and what is wrong with the list.
    pub(crate) async fn next(&mut self) -> Result<Option<DeviceList>, Status> {
        // Read with a bound of its own, not as the message that it is.
        let list = self.0.next().await?.map(device_list::decode);
        list.transpose().map_err(Status::internal)
    }
}
