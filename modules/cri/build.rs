//! Compiles the interface files without a `protoc` on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(
        ["runtime.proto", "events.proto", "task.proto", "content.proto", "images.proto"],
        ["proto"],
    )?;
    tonic_prost_build::configure()
        // A stand-in runtime serves the same interface in tests.
        .build_server(true)
        // Its clients call by `methods.rs`.
        .build_client(false)
        // Its Debug is written by hand, without the secrets.
        .skip_debug(["runtime.v1.AuthConfig"])
        .compile_fds(files)?;
    Ok(())
}
