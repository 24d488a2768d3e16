//! Links edgecore small: code that is the same to the byte, as many types' code is, stands in it once, and what runs while a node is
//! idle stands together.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=code_order.ld");
    println!("cargo::rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
    println!("cargo::rerun-if-env-changed=KUBEHIVE_LINK_MAP");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|own| own == value);
    let has_own_linker = std::env::var("CARGO_ENCODED_RUSTFLAGS")
        .is_ok_and(|flags| flags.contains("linker") || flags.contains("fuse-ld"));
    // There Rust links with LLVM's linker by itself; whichever it is elsewhere may not know the options.
    let has_lld = is("CARGO_CFG_TARGET_ARCH", "x86_64")
        && is("CARGO_CFG_TARGET_OS", "linux")
        && is("CARGO_CFG_TARGET_ENV", "gnu")
        && !has_own_linker;
    if has_lld && is("PROFILE", "release") {
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
        if let Ok(folder) = std::env::var("CARGO_MANIFEST_DIR") {
            println!("cargo::rustc-link-arg-bins=-T{folder}/code_order.ld");
        }
        // `cargo soak -- code-order` asks where everything went.
        if let Ok(map) = std::env::var("KUBEHIVE_LINK_MAP") {
            println!("cargo::rustc-link-arg-bins=-Xlinker");
            println!("cargo::rustc-link-arg-bins=-Map={map}");
        }
    }
}
