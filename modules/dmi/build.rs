//! Compiles the interface file without a `protoc` on the machine.

use prost::Message as _;
use prost_types::FileDescriptorSet;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["dmi.proto"], ["proto"])?;
    write_descriptors(files.clone())?;
    tonic_prost_build::configure()
        // Maps in order of their keys, so that equal messages are equal bytes.
        .btree_map(".")
        .compile_fds(files)?;
    Ok(())
}

/// What servers tell of their interface: without comments and places in the files.
fn write_descriptors(mut files: FileDescriptorSet) -> Result<(), Box<dyn std::error::Error>> {
    files.file.iter_mut().for_each(|file| file.source_code_info = None);
    let path = std::path::Path::new(&std::env::var("OUT_DIR")?).join("descriptors.bin");
    Ok(std::fs::write(path, files.encode_to_vec())?)
}
