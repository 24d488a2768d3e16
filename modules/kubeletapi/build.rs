//! Compiles the interface files without a `protoc` on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let names = ["deviceplugin.proto", "podresources.proto", "podresources_v1alpha1.proto"];
    let files = protox::compile(names, ["proto"])?;
    tonic_prost_build::configure()
        // Maps in order of their keys, so that equal messages are equal bytes.
        .btree_map(".")
        .compile_fds(files)?;
    Ok(())
}
