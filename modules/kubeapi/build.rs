//! Compiles the messages of Kubernetes' protobuf into one set of descriptors, without a `protoc` on the machine.

#[cfg(feature = "write")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(false);
    // One file for each API group: the others are imported by these.
    compiler.open_files([
        "apps.proto",
        "authentication.proto",
        "authorization.proto",
        "autoscaling.proto",
        "coordination.proto",
        "core/node.proto",
        "core/objects.proto",
        "core/persistent.proto",
        "core/pod.proto",
        "discovery.proto",
        "node.proto",
        "policy.proto",
        "rbac.proto",
        "storage.proto",
    ])?;
    let path = std::path::PathBuf::from(std::env::var("OUT_DIR")?).join("kubernetes.binpb");
    std::fs::write(path, compiler.encode_file_descriptor_set())?;
    Ok(())
}

/// Only the writing half reads bodies.
#[cfg(not(feature = "write"))]
fn main() {}
