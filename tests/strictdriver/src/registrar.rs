//! The registrar beside the driver.

use std::path::PathBuf;

use csi::registration::registration_server::Registration;
use csi::registration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use tonic::{Request, Response, Status};

use crate::{Options, Shared, lock};

pub(crate) struct Registrar {
    pub(crate) shared: Shared,
    pub(crate) options: Options,
    pub(crate) endpoint: PathBuf,
}

#[tonic::async_trait]
impl Registration for Registrar {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: self.options.kind.clone(),
            name: self.options.name.clone(),
            endpoint: self.endpoint.display().to_string(),
            supported_versions: self.options.versions.clone(),
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let RegistrationStatus { plugin_registered, error } = request.into_inner();
        lock(&self.shared).told.push(if plugin_registered { Ok(()) } else { Err(error) });
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
