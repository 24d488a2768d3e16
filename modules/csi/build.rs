//! Compiles the interface files without a `protoc` on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["csi.proto", "registration.proto"], ["proto"])?;
    tonic_prost_build::configure()
        // A strict driver serves the same interface in tests.
        .build_server(true)
        // Its clients call by `methods.rs`.
        .build_client(false)
        // Theirs is written by hand, without the secrets.
        .skip_debug([
            "csi.v1.NodeStageVolumeRequest",
            "csi.v1.NodePublishVolumeRequest",
            "csi.v1.NodeExpandVolumeRequest",
            "csi.v1.CreateVolumeRequest",
            "csi.v1.DeleteVolumeRequest",
            "csi.v1.ControllerPublishVolumeRequest",
            "csi.v1.ControllerUnpublishVolumeRequest",
            "csi.v1.ValidateVolumeCapabilitiesRequest",
        ])
        .compile_fds(files)?;
    Ok(())
}
