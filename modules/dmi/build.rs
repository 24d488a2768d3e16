//! Compiles the interface file without a `protoc` on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["dmi.proto"], ["proto"])?;
    tonic_prost_build::configure()
        // Maps in order of their keys, so that equal messages are equal bytes.
        .btree_map(".")
        .compile_fds(files)?;
    Ok(())
}
