//! The methods that are called.

use crate::containerd::content::{ReadContentRequest, ReadContentResponse};
use crate::containerd::images::{GetImageRequest, GetImageResponse};
use crate::containerd::service::{Envelope, SubscribeRequest};
use crate::v1::*;

unixgrpc::methods! {
    /// Pods and containers.
    pub(crate) mod runtime = "runtime.v1.RuntimeService" {
        VERSION = Version(VersionRequest) returns (VersionResponse);
        STATUS = Status(StatusRequest) returns (StatusResponse);
        RUN_POD_SANDBOX = RunPodSandbox(RunPodSandboxRequest) returns (RunPodSandboxResponse);
        STOP_POD_SANDBOX = StopPodSandbox(StopPodSandboxRequest) returns (StopPodSandboxResponse);
        REMOVE_POD_SANDBOX = RemovePodSandbox(RemovePodSandboxRequest) returns (RemovePodSandboxResponse);
        POD_SANDBOX_STATUS = PodSandboxStatus(PodSandboxStatusRequest) returns (PodSandboxStatusResponse);
        LIST_POD_SANDBOX = ListPodSandbox(ListPodSandboxRequest) returns (ListPodSandboxResponse);
        CREATE_CONTAINER = CreateContainer(CreateContainerRequest) returns (CreateContainerResponse);
        START_CONTAINER = StartContainer(StartContainerRequest) returns (StartContainerResponse);
        STOP_CONTAINER = StopContainer(StopContainerRequest) returns (StopContainerResponse);
        REMOVE_CONTAINER = RemoveContainer(RemoveContainerRequest) returns (RemoveContainerResponse);
        LIST_CONTAINERS = ListContainers(ListContainersRequest) returns (ListContainersResponse);
        CONTAINER_STATUS = ContainerStatus(ContainerStatusRequest) returns (ContainerStatusResponse);
        UPDATE_CONTAINER_RESOURCES =
            UpdateContainerResources(UpdateContainerResourcesRequest) returns (UpdateContainerResourcesResponse);
        REOPEN_CONTAINER_LOG = ReopenContainerLog(ReopenContainerLogRequest) returns (ReopenContainerLogResponse);
        RUNTIME_CONFIG = RuntimeConfig(RuntimeConfigRequest) returns (RuntimeConfigResponse);
        EXEC_SYNC = ExecSync(ExecSyncRequest) returns (ExecSyncResponse);
        GET_CONTAINER_EVENTS = GetContainerEvents(GetEventsRequest) returns (ContainerEventResponse);
        EXEC = Exec(ExecRequest) returns (ExecResponse);
        ATTACH = Attach(AttachRequest) returns (AttachResponse);
        PORT_FORWARD = PortForward(PortForwardRequest) returns (PortForwardResponse);
        LIST_CONTAINER_STATS = ListContainerStats(ListContainerStatsRequest) returns (ListContainerStatsResponse);
        LIST_POD_SANDBOX_STATS = ListPodSandboxStats(ListPodSandboxStatsRequest) returns (ListPodSandboxStatsResponse);
    }
}

unixgrpc::methods! {
    /// Images.
    pub(crate) mod image = "runtime.v1.ImageService" {
        LIST_IMAGES = ListImages(ListImagesRequest) returns (ListImagesResponse);
        IMAGE_STATUS = ImageStatus(ImageStatusRequest) returns (ImageStatusResponse);
        PULL_IMAGE = PullImage(PullImageRequest) returns (PullImageResponse);
        REMOVE_IMAGE = RemoveImage(RemoveImageRequest) returns (RemoveImageResponse);
        IMAGE_FS_INFO = ImageFsInfo(ImageFsInfoRequest) returns (ImageFsInfoResponse);
    }
}

unixgrpc::methods! {
    /// containerd's own events.
    pub(crate) mod events = "containerd.services.events.v1.Events" {
        SUBSCRIBE = Subscribe(SubscribeRequest) returns (Envelope);
    }
}

unixgrpc::methods! {
    /// containerd's images.
    pub(crate) mod images = "containerd.services.images.v1.Images" {
        GET = Get(GetImageRequest) returns (GetImageResponse);
    }
}

unixgrpc::methods! {
    /// containerd's content.
    pub(crate) mod content = "containerd.services.content.v1.Content" {
        READ = Read(ReadContentRequest) returns (ReadContentResponse);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use unixgrpc::undeclared;

    #[test]
    fn the_methods_are_those_of_the_interface_files() {
        let cri = include_str!("../proto/runtime.proto");
        assert_eq!(undeclared(cri, "RuntimeService", runtime::DECLARED), [""; 0]);
        assert_eq!(undeclared(cri, "ImageService", image::DECLARED), [""; 0]);
        let containerd = include_str!("../proto/events.proto");
        assert_eq!(undeclared(containerd, "Events", events::DECLARED), [""; 0]);
        let of_images = include_str!("../proto/images.proto");
        assert_eq!(undeclared(of_images, "Images", images::DECLARED), [""; 0]);
        let of_content = include_str!("../proto/content.proto");
        assert_eq!(undeclared(of_content, "Content", content::DECLARED), [""; 0]);
    }
}
