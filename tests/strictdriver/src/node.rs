//! The driver's node service.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use csi::v1::node_server::Node;
use csi::v1::node_service_capability::{Rpc, Type, rpc::Type as Capability};
use csi::v1::volume_capability::AccessType;
use csi::v1::volume_usage::Unit;
use csi::v1::{
    NodeExpandVolumeRequest, NodeExpandVolumeResponse, NodeGetCapabilitiesRequest,
    NodeGetCapabilitiesResponse, NodeGetInfoRequest, NodeGetInfoResponse, NodeGetVolumeStatsRequest,
    NodeGetVolumeStatsResponse, NodePublishVolumeRequest, NodePublishVolumeResponse, NodeServiceCapability,
    NodeStageVolumeRequest, NodeStageVolumeResponse, NodeUnpublishVolumeRequest, NodeUnpublishVolumeResponse,
    NodeUnstageVolumeRequest, NodeUnstageVolumeResponse, Topology, VolumeUsage,
};
use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount};
use tonic::{Request, Response, Status};

use crate::rules::{self, Rules};
use crate::{Behaviour, Options, Shared, device, lock};

/// 8 MiB: twice of what anybody takes.
const FLOOD: usize = 8 << 20;

pub(crate) struct NodeService {
    pub(crate) shared: Shared,
    pub(crate) options: Options,
    pub(crate) volumes: PathBuf,
}

/// Calls that hang end when nobody waits for them any more.
struct GivenUp<'a>(&'a Shared);

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        lock(self.0).rules.give_up();
    }
}

fn failed(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

impl NodeService {
    /// Notes a call and looks whether it may be. A fault is kept and is an error.
    fn begin(
        &self,
        name: &str,
        handle: &str,
        check: impl FnOnce(&mut Rules) -> Result<(), String>,
    ) -> Result<(), Status> {
        let mut state = lock(&self.shared);
        state.calls.push(format!("{name} {handle}"));
        let checked = state.rules.begin(handle).and_then(|()| check(&mut state.rules));
        checked.map_err(|fault| {
            state.rules.end(handle);
            state.rules.faults.push(format!("{name}: {fault}"));
            Status::invalid_argument(fault)
        })
    }

    fn end(&self, handle: &str) {
        lock(&self.shared).rules.end(handle);
    }

    /// What it does instead of its work.
    async fn behave(&self) -> Result<Behaviour, Status> {
        let behaviour = lock(&self.shared).behaviour;
        if behaviour == Behaviour::Hangs {
            // Who has given it up may ask again.
            let _given_up = GivenUp(&self.shared);
            std::future::pending::<()>().await;
        }
        Ok(behaviour)
    }

    fn content(&self, handle: &str) -> Result<PathBuf, Status> {
        let at = self.volumes.join(handle);
        std::fs::create_dir_all(&at).map_err(failed)?;
        Ok(at)
    }

    /// The device that a volume is.
    fn device(&self, handle: &str) -> Result<PathBuf, Status> {
        let mut state = lock(&self.shared);
        if let Some(device) = state.devices.get(handle) {
            return Ok(device.clone());
        }
        let device = device::attach(&self.volumes.join(format!("{handle}.img"))).map_err(failed)?;
        state.devices.insert(handle.to_owned(), device.clone());
        Ok(device)
    }

    /// It is none any more, once nobody has it.
    fn let_go(&self, handle: &str) -> Result<(), Status> {
        let device = {
            let mut state = lock(&self.shared);
            if state.rules.is_in_use(handle) {
                return Ok(());
            }
            state.devices.remove(handle)
        };
        device.map_or(Ok(()), |device| device::detach(&device).map_err(failed))
    }

    fn publish(&self, call: &NodePublishVolumeRequest, again: bool) -> Result<(), Status> {
        let target = Path::new(&call.target_path);
        if again {
            return Ok(());
        }
        if rules::is_block(call.volume_capability.as_ref()) {
            return device::show(&self.device(&call.volume_id)?, target).map_err(failed);
        }
        let from = match call.staging_target_path.as_str() {
            "" => self.content(&call.volume_id)?,
            staged => PathBuf::from(staged),
        };
        std::fs::create_dir_all(target).map_err(failed)?;
        mount_bind(&from, target).map_err(failed)?;
        if call.readonly {
            mount_remount(target, MountFlags::BIND | MountFlags::RDONLY, "").map_err(failed)?;
        }
        Ok(())
    }
}

fn fields(call: &NodePublishVolumeRequest) -> std::collections::BTreeMap<String, String> {
    let with = |prefix: &'static str, map: &HashMap<String, String>| {
        map.iter().map(move |(key, value)| (format!("{prefix}{key}"), value.clone())).collect::<Vec<_>>()
    };
    let mut all: std::collections::BTreeMap<String, String> = with("", &call.volume_context)
        .into_iter()
        .chain(with("secret:", &call.secrets))
        .chain(with("attached:", &call.publish_context))
        .collect();
    all.insert("readonly".to_owned(), call.readonly.to_string());
    if let Some(AccessType::Mount(mount)) =
        call.volume_capability.as_ref().and_then(|one| one.access_type.as_ref())
    {
        all.insert("options".to_owned(), mount.mount_flags.join(","));
        all.insert("group".to_owned(), mount.volume_mount_group.clone());
    }
    all
}

#[tonic::async_trait]
impl Node for NodeService {
    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        let call = request.into_inner();
        let handle = call.volume_id.clone();
        let before = lock(&self.shared).rules.is_staged(&handle);
        self.begin("stage", &handle, |rules| rules.stage(&call))?;
        self.behave().await?;
        let staged = match before {
            true => Ok(()),
            false if rules::is_block(call.volume_capability.as_ref()) => self.device(&handle).map(drop),
            false => self
                .content(&handle)
                .and_then(|from| mount_bind(&from, &call.staging_target_path).map_err(failed)),
        };
        self.end(&handle);
        staged.map(|()| Response::new(NodeStageVolumeResponse {}))
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        let call = request.into_inner();
        let handle = call.volume_id.clone();
        let was_staged = lock(&self.shared).rules.is_staged(&handle);
        let content = self.content(&handle)?;
        self.begin("unstage", &handle, |rules| {
            crate::rules::shown_nowhere_else(&content, &call.staging_target_path, rules)?;
            rules.unstage(&call)
        })?;
        self.behave().await?;
        let is_device = lock(&self.shared).devices.contains_key(&handle);
        let unmounted = match was_staged {
            true if is_device => self.let_go(&handle),
            true => unmount(&call.staging_target_path, UnmountFlags::empty()).map_err(failed),
            false => Ok(()),
        };
        self.end(&handle);
        unmounted.map(|()| Response::new(NodeUnstageVolumeResponse {}))
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let call = request.into_inner();
        let handle = call.volume_id.clone();
        let again = lock(&self.shared).rules.is_published(&handle, &call.target_path);
        self.begin("publish", &handle, |rules| rules.publish(&call))?;
        lock(&self.shared).published_with = fields(&call);
        let behaviour = self.behave().await?;
        let result = match behaviour {
            Behaviour::FailsFinally => {
                if !again {
                    lock(&self.shared).rules.undo_publish(&handle, &call.target_path);
                }
                Err(Status::internal("the disk is gone"))
            }
            Behaviour::FailsUncertainly => {
                self.publish(&call, again).and_then(|()| Err(Status::unavailable("busy, ask again")))
            }
            Behaviour::Floods => Err(Status::internal("x".repeat(FLOOD))),
            Behaviour::Lies => Ok(()),
            Behaviour::TooSmall => self.publish(&call, again),
            Behaviour::Right | Behaviour::Hangs | Behaviour::HangsAtStats => self.publish(&call, again),
        };
        self.end(&handle);
        result.map(|()| Response::new(NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let call = request.into_inner();
        let handle = call.volume_id.clone();
        self.begin("unpublish", &handle, |rules| rules.unpublish(&call))?;
        self.behave().await?;
        let target = Path::new(&call.target_path);
        let is_device = lock(&self.shared).devices.contains_key(&handle);
        let unmounted = match unmount(target, UnmountFlags::empty()) {
            Ok(()) if is_device => {
                std::fs::remove_file(target).map_err(failed).and_then(|()| self.let_go(&handle))
            }
            Ok(()) => std::fs::remove_dir(target).map_err(failed),
            // It was not mounted: nothing is to be done.
            Err(_) => Ok(()),
        };
        self.end(&handle);
        unmounted.map(|()| Response::new(NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let call = request.into_inner();
        let checked = {
            let mut state = lock(&self.shared);
            state.calls.push(format!("stats {}", call.volume_id));
            let can = self.options.capabilities.contains(&Capability::GetVolumeStats);
            let checked = state.rules.stats(&call, can);
            if let Err(fault) = &checked {
                state.rules.faults.push(format!("stats: {fault}"));
            }
            checked
        };
        checked.map_err(Status::invalid_argument)?;
        if lock(&self.shared).behaviour == Behaviour::HangsAtStats {
            std::future::pending::<()>().await;
        }
        let files = std::fs::read_dir(self.content(&call.volume_id)?).map_err(failed)?;
        let sizes: Vec<i64> =
            files.flatten().filter_map(|file| i64::try_from(file.metadata().ok()?.len()).ok()).collect();
        let (total, used) = (crate::SIZE, sizes.iter().sum::<i64>());
        let count = i64::try_from(sizes.len()).unwrap_or(i64::MAX);
        let bytes = VolumeUsage { available: total - used, total, used, unit: Unit::Bytes.into() };
        let inodes = VolumeUsage { available: 0, total: 0, used: count, unit: Unit::Inodes.into() };
        Ok(Response::new(NodeGetVolumeStatsResponse { usage: vec![bytes, inodes] }))
    }

    async fn node_expand_volume(
        &self,
        request: Request<NodeExpandVolumeRequest>,
    ) -> Result<Response<NodeExpandVolumeResponse>, Status> {
        let call = request.into_inner();
        let handle = call.volume_id.clone();
        let can = self.options.capabilities.contains(&Capability::ExpandVolume);
        self.begin("expand", &handle, |rules| rules.expand(&call, can))?;
        let behaviour = self.behave().await?;
        self.end(&handle);
        match behaviour {
            Behaviour::TooSmall => Err(Status::out_of_range("the disk has no more")),
            Behaviour::FailsFinally => Err(Status::internal("the disk is gone")),
            _ => {
                let size = call.capacity_range.map_or(0, |range| range.required_bytes);
                Ok(Response::new(NodeExpandVolumeResponse { capacity_bytes: size }))
            }
        }
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let one = |can: &Capability| NodeServiceCapability {
            r#type: Some(Type::Rpc(Rpc { r#type: (*can).into() })),
        };
        let capabilities = self.options.capabilities.iter().map(one).collect();
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities }))
    }

    async fn node_get_info(
        &self,
        _: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        let segments = HashMap::from([(format!("topology.{}/node", self.options.name), "edge-1".to_owned())]);
        Ok(Response::new(NodeGetInfoResponse {
            node_id: format!("{}-edge-1", self.options.name),
            max_volumes_per_node: 7,
            accessible_topology: Some(Topology { segments }),
        }))
    }
}
