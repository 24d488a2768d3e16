//! The driver's controller service: volumes that are made, attached, and their reverse.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use csi::v1::controller_server::Controller;
use csi::v1::{
    ControllerGetCapabilitiesRequest, ControllerGetCapabilitiesResponse, ControllerPublishVolumeRequest,
    ControllerPublishVolumeResponse, ControllerUnpublishVolumeRequest, ControllerUnpublishVolumeResponse,
    CreateVolumeRequest, CreateVolumeResponse, DeleteVolumeRequest, DeleteVolumeResponse,
    ValidateVolumeCapabilitiesRequest, ValidateVolumeCapabilitiesResponse, Volume,
};
use tonic::{Code, Request, Response, Status};

use crate::{Behaviour, Options, Shared, lock};

/// What is made and attached.
#[derive(Debug, Default)]
pub(crate) struct Made {
    /// Size by handle.
    sizes: BTreeMap<String, i64>,
    /// On which nodes, and whether for reading alone.
    attached: BTreeMap<(String, String), bool>,
    /// Names and handles of the calls under way: CSI wants one at a time about a volume.
    pub(crate) under_way: BTreeSet<String>,
    /// How often a volume was made, not found made.
    pub(crate) made: usize,
}

pub(crate) struct ControllerService {
    pub(crate) shared: Shared,
    pub(crate) options: Options,
}

/// A call under way; it ends when nobody waits for it any more, too.
struct UnderWay<'a>(&'a Shared, String);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        lock(self.0).made.under_way.remove(&self.1);
    }
}

impl ControllerService {
    async fn begin(&self, name: &str, subject: &str) -> Result<UnderWay<'_>, Status> {
        let under_way = {
            let mut state = lock(&self.shared);
            state.calls.push(format!("{name} {subject}"));
            if subject.is_empty() {
                state.rules.faults.push(format!("{name}: without a name or a handle"));
                return Err(Status::invalid_argument("without a name or a handle"));
            }
            if !state.made.under_way.insert(subject.to_owned()) {
                state.rules.faults.push(format!("{name}: another call about {subject} is under way"));
                return Err(Status::aborted("another call is under way"));
            }
            UnderWay(&self.shared, subject.to_owned())
        };
        loop {
            let behaviour = lock(&self.shared).behaviour;
            match behaviour {
                // Until it is told to do its work.
                Behaviour::Hangs => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
                Behaviour::FailsFinally => {
                    let details = prost_bytes(b"\x08\x09");
                    return Err(Status::with_details(
                        Code::FailedPrecondition,
                        "the pool is read-only",
                        details,
                    ));
                }
                Behaviour::Floods => return Err(Status::internal("x".repeat(8 << 20))),
                _ => return Ok(under_way),
            }
        }
    }
}

fn prost_bytes(bytes: &'static [u8]) -> tonic::codegen::Bytes {
    tonic::codegen::Bytes::from_static(bytes)
}

#[tonic::async_trait]
impl Controller for ControllerService {
    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        let call = request.into_inner();
        let _under_way = self.begin("create", &call.name).await?;
        if call.volume_capabilities.is_empty() {
            return Err(Status::invalid_argument("without capabilities"));
        }
        if call.secrets.get("key").map(String::as_str) == Some("wrong") {
            return Err(Status::unauthenticated("the key is wrong"));
        }
        let size = call.capacity_range.map_or(0, |range| range.required_bytes);
        if size > crate::SIZE {
            return Err(Status::resource_exhausted("the pool has no more"));
        }
        let handle = format!("vol-{}", call.name);
        let mut state = lock(&self.shared);
        match state.made.sizes.get(&handle) {
            Some(held) if *held != size => return Err(Status::already_exists("of another size")),
            Some(_) => {}
            None => {
                state.made.sizes.insert(handle.clone(), size);
                state.made.made += 1;
            }
        }
        let volume = Volume {
            capacity_bytes: size,
            volume_id: handle,
            volume_context: call.parameters,
            accessible_topology: Vec::new(),
        };
        Ok(Response::new(CreateVolumeResponse { volume: Some(volume) }))
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Result<Response<DeleteVolumeResponse>, Status> {
        let call = request.into_inner();
        let _under_way = self.begin("delete", &call.volume_id).await?;
        let mut state = lock(&self.shared);
        if state.made.attached.keys().any(|(handle, _)| *handle == call.volume_id) {
            return Err(Status::failed_precondition("it is attached"));
        }
        state.made.sizes.remove(&call.volume_id);
        Ok(Response::new(DeleteVolumeResponse {}))
    }

    async fn controller_publish_volume(
        &self,
        request: Request<ControllerPublishVolumeRequest>,
    ) -> Result<Response<ControllerPublishVolumeResponse>, Status> {
        let call = request.into_inner();
        let _under_way = self.begin("attach", &call.volume_id).await?;
        let mut state = lock(&self.shared);
        if !state.made.sizes.contains_key(&call.volume_id) {
            return Err(Status::not_found("no such volume"));
        }
        if call.node_id != format!("{}-edge-1", self.options.name) {
            return Err(Status::not_found("no such node"));
        }
        let key = (call.volume_id.clone(), call.node_id);
        if state.made.attached.get(&key).is_some_and(|held| *held != call.readonly) {
            return Err(Status::already_exists("attached in another way"));
        }
        state.made.attached.insert(key, call.readonly);
        let publish_context = HashMap::from([("device".to_owned(), format!("/dev/{}", call.volume_id))]);
        Ok(Response::new(ControllerPublishVolumeResponse { publish_context }))
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<ControllerUnpublishVolumeRequest>,
    ) -> Result<Response<ControllerUnpublishVolumeResponse>, Status> {
        let call = request.into_inner();
        let _under_way = self.begin("detach", &call.volume_id).await?;
        lock(&self.shared).made.attached.retain(|(handle, node), _| {
            *handle != call.volume_id || (!call.node_id.is_empty() && *node != call.node_id)
        });
        Ok(Response::new(ControllerUnpublishVolumeResponse {}))
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<ValidateVolumeCapabilitiesResponse>, Status> {
        let call = request.into_inner();
        let _under_way = self.begin("validate", &call.volume_id).await?;
        if !lock(&self.shared).made.sizes.contains_key(&call.volume_id) {
            return Err(Status::not_found("no such volume"));
        }
        Ok(Response::new(ValidateVolumeCapabilitiesResponse {
            confirmed: None,
            message: "not asked for".to_owned(),
        }))
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<ControllerGetCapabilitiesResponse>, Status> {
        Err(Status::unimplemented("nobody asks this of a driver on a node"))
    }
}
