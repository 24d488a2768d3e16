//! The mapper's own socket: what edgecore calls.

use std::sync::Arc;

use dmi::v1beta1::device_mapper_service_server::DeviceMapperService;
use dmi::v1beta1::{
    CreateDeviceModelRequest, CreateDeviceModelResponse, Device, DeviceModel, GetDeviceRequest,
    GetDeviceResponse, RegisterDeviceRequest, RegisterDeviceResponse, RemoveDeviceModelRequest,
    RemoveDeviceModelResponse, RemoveDeviceRequest, RemoveDeviceResponse, UpdateDeviceModelRequest,
    UpdateDeviceModelResponse, UpdateDeviceRequest, UpdateDeviceResponse,
};
use tonic::{Request, Response, Status};

use crate::protocol::Protocol;
use crate::table::{Key, Table, TableError};

/// Serves the table.
pub(crate) struct Service<P: Protocol>(pub(crate) Arc<Table<P>>);

impl From<TableError> for Status {
    fn from(error: TableError) -> Self {
        match error {
            TableError::NoName(_) | TableError::LongName => Status::invalid_argument(error.to_string()),
            TableError::TooManyDevices | TableError::TooManyModels => {
                Status::resource_exhausted(error.to_string())
            }
        }
    }
}

fn device(device: Option<Device>) -> Result<Device, Status> {
    device.ok_or_else(|| Status::invalid_argument("the request has no device"))
}

fn model(model: Option<DeviceModel>) -> Result<DeviceModel, Status> {
    model.ok_or_else(|| Status::invalid_argument("the request has no model"))
}

// A device whose model is not here yet is taken and served once the model comes: KubeEdge's framework waits for it
// and fails the call after three seconds.
#[tonic::async_trait]
impl<P: Protocol> DeviceMapperService for Service<P> {
    async fn register_device(
        &self,
        request: Request<RegisterDeviceRequest>,
    ) -> Result<Response<RegisterDeviceResponse>, Status> {
        let device = device(request.into_inner().device)?;
        let answer = RegisterDeviceResponse {
            device_name: device.name.clone(),
            device_namespace: device.namespace.clone(),
        };
        self.0.register(device)?;
        Ok(Response::new(answer))
    }

    async fn update_device(
        &self,
        request: Request<UpdateDeviceRequest>,
    ) -> Result<Response<UpdateDeviceResponse>, Status> {
        self.0.register(device(request.into_inner().device)?)?;
        Ok(Response::new(UpdateDeviceResponse {}))
    }

    async fn remove_device(
        &self,
        request: Request<RemoveDeviceRequest>,
    ) -> Result<Response<RemoveDeviceResponse>, Status> {
        let request = request.into_inner();
        let key = Key::new(&request.device_namespace, &request.device_name);
        if !self.0.remove(&key) {
            tracing::debug!(device = %key, "asked to remove a device that is not here");
        }
        Ok(Response::new(RemoveDeviceResponse {}))
    }

    async fn create_device_model(
        &self,
        request: Request<CreateDeviceModelRequest>,
    ) -> Result<Response<CreateDeviceModelResponse>, Status> {
        let model = model(request.into_inner().model)?;
        let answer = CreateDeviceModelResponse {
            device_model_name: model.name.clone(),
            device_model_namespace: model.namespace.clone(),
        };
        self.0.put_model(model)?;
        Ok(Response::new(answer))
    }

    async fn update_device_model(
        &self,
        request: Request<UpdateDeviceModelRequest>,
    ) -> Result<Response<UpdateDeviceModelResponse>, Status> {
        self.0.put_model(model(request.into_inner().model)?)?;
        Ok(Response::new(UpdateDeviceModelResponse {}))
    }

    async fn remove_device_model(
        &self,
        request: Request<RemoveDeviceModelRequest>,
    ) -> Result<Response<RemoveDeviceModelResponse>, Status> {
        let request = request.into_inner();
        self.0.remove_model(&Key::new(&request.model_namespace, &request.model_name));
        Ok(Response::new(RemoveDeviceModelResponse {}))
    }

    async fn get_device(
        &self,
        request: Request<GetDeviceRequest>,
    ) -> Result<Response<GetDeviceResponse>, Status> {
        let request = request.into_inner();
        let key = Key::new(&request.device_namespace, &request.device_name);
        let device = self.0.device(&key).ok_or_else(|| Status::not_found(format!("no device {key}")))?;
        Ok(Response::new(GetDeviceResponse { device: Some(device) }))
    }
}
