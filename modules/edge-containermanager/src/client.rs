//! Calls to a plugin, each bounded in size and in time where a kubelet bounds it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use beehive::Env;
use contract::containermanager::PluginDevice;
use kubeletapi::deviceplugin::device_plugin_client::DevicePluginClient;
use kubeletapi::deviceplugin::{
    AllocateRequest, ContainerAllocateRequest, ContainerAllocateResponse,
    ContainerPreferredAllocationRequest, DevicePluginOptions, Empty, PreStartContainerRequest,
    PreferredAllocationRequest,
};
use tokio::net::UnixStream;
use tonic::Request;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;

use crate::device_list::ListCodec;
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

    fn calls(&self) -> DevicePluginClient<Channel> {
        DevicePluginClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_MAX)
    }

    /// What the plugin wants to be asked.
    pub(crate) async fn options(
        &self,
        clock: &dyn beehive::Clock,
    ) -> Result<DevicePluginOptions, PluginError> {
        let mut calls = self.calls();
        let call = std::pin::pin!(calls.get_device_plugin_options(Empty {}));
        match futures::future::select(call, clock.sleep(OPTIONS_WITHIN)).await {
            futures::future::Either::Left((answer, _)) => Ok(answer?.into_inner()),
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
        let mut calls = self.calls();
        let answer = env.timeout(ANSWER_WITHIN, calls.get_preferred_allocation(request)).await;
        let answer = answer.ok_or(PluginError::TooLate)??.into_inner();
        let first = answer.container_responses.into_iter().next();
        Ok(first.map(|first| first.device_i_ds.into_iter().collect()).unwrap_or_default())
    }

    /// What a container needs to use these. As with a kubelet there is no time limit: whoever waits for it can give up.
    pub(crate) async fn allocate(&self, ids: &Ids) -> Result<ContainerAllocateResponse, PluginError> {
        let devices_ids = ids.iter().cloned().collect();
        let request = AllocateRequest { container_requests: vec![ContainerAllocateRequest { devices_ids }] };
        let answer = self.calls().allocate(request).await?.into_inner();
        let shown = format!("no containers return in allocation response {answer:?}");
        answer.container_responses.into_iter().next().ok_or(PluginError::Nonsense(shown))
    }

    /// Has a container's devices prepared for its start.
    pub(crate) async fn pre_start(&self, env: &Env, ids: &Ids) -> Result<(), PluginError> {
        let request = PreStartContainerRequest { devices_ids: ids.iter().cloned().collect() };
        let mut calls = self.calls();
        let answer = env.timeout(ANSWER_WITHIN, calls.pre_start_container(request)).await;
        answer.ok_or(PluginError::TooLate)??;
        Ok(())
    }

    /// Its devices, now and with every change.
    pub(crate) async fn watch(
        &self,
    ) -> Result<tonic::Streaming<BTreeMap<String, PluginDevice>>, PluginError> {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(LIST_MAX);
        grpc.ready().await.map_err(|error| PluginError::Away(error.to_string()))?;
        let path = PathAndQuery::from_static("/v1beta1.DevicePlugin/ListAndWatch");
        Ok(grpc.server_streaming(Request::new(()), path, ListCodec).await?.into_inner())
    }
}
