//! A release is the same bytes from other folders, times, modes and umasks; and a program that is built in other folders, too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use dist::compile::{self, Toolchain, Workspace};
use dist::parts::{PROGRAMS, Program};
use dist::source::Source;
use dist::target::Target;

#[test]
fn what_is_packed_twice_is_the_same() {
    const SOME: [&str; 2] = ["--only", "edgecore,virtual-mapper"];
    let one = fixture::programs_of(&fixture::COMMIT);
    let other = tempfile::tempdir().unwrap();
    for program in PROGRAMS {
        let path = other.path().join(program.name);
        std::fs::copy(one.path().join(program.name), &path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400);
        std::fs::File::options().append(true).open(&path).unwrap().set_modified(long_ago).unwrap();
    }
    let (_first, first) = fixture::release(one.path(), &SOME).unwrap();
    let umask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let (_second, second) = fixture::release(other.path(), &SOME).unwrap();
    rustix::process::umask(umask);
    let (first_files, second_files) = (fixture::files(&first), fixture::files(&second));
    for name in ["SHA256SUMS", "provenance.json", "images/digests.txt"] {
        assert!(first_files.contains_key(name), "{name}");
    }
    if dist::root().unwrap().join(".git").exists() {
        bill(&first_files);
    }
    let names: Vec<&String> = first_files.keys().collect();
    assert_eq!(names, second_files.keys().collect::<Vec<&String>>());
    for (name, bytes) in &first_files {
        assert!(second_files[name] == *bytes, "{name} differs");
        let mode = |of: &Path| std::fs::metadata(of.join(name)).unwrap().permissions().mode();
        assert_eq!(mode(&first), mode(&second), "{name}");
    }
}

/// What is known to be linked into `edgecore` is in its bill, and what only builds it, or belongs to the other program, is not.
fn bill(files: &BTreeMap<String, Vec<u8>>) {
    let (_, bytes) = files.iter().find(|(name, _)| name.starts_with("sbom/edgecore_")).expect("a bill");
    let bill: serde_json::Value = serde_json::from_slice(bytes).unwrap();
    let components = bill["components"].as_array().unwrap();
    let find = |name: &str| components.iter().find(|component| component["name"] == name);
    for name in ["s2n-quic", "rusqlite", "sqlite", "aws-lc", "edge-hub", "rust-std"] {
        assert!(find(name).is_some(), "{name} is missing");
    }
    for name in ["serde_derive", "cc", "protox", "proptest", "cloud-hub"] {
        assert!(find(name).is_none(), "{name} is not linked");
    }
    let quic = find("s2n-quic").unwrap();
    assert_eq!(quic["hashes"][0]["content"].as_str().unwrap().len(), 64);
    assert_eq!(quic["licenses"][0]["expression"], "Apache-2.0");
    let refs: Vec<&serde_json::Value> = components.iter().map(|component| &component["bom-ref"]).collect();
    for dependency in bill["dependencies"].as_array().unwrap() {
        for on in dependency["dependsOn"].as_array().unwrap() {
            assert!(refs.contains(&on), "{on} is no component");
        }
    }
    let (_, licenses) = files.iter().find(|(name, _)| name.ends_with("/licenses.txt")).expect("licences");
    let licenses = String::from_utf8_lossy(licenses);
    assert!(licenses.contains("tokio 1.") && licenses.contains("Permission is hereby granted"));
}

/// A workspace with one program that names places: its own, one of what its build script wrote, and the standard library's.
fn workspace(root: &Path) {
    let write = |name: &str, text: &str| {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let ours = dist::root().unwrap();
    write(".cargo/release.toml", &std::fs::read_to_string(ours.join(".cargo/release.toml")).unwrap());
    write("Cargo.toml", "[workspace]\nmembers = [\"places\"]\nresolver = \"3\"\n");
    write("Cargo.lock", "version = 4\n\n[[package]]\nname = \"places\"\nversion = \"0.1.0\"\n");
    write("places/Cargo.toml", "[package]\nname = \"places\"\nversion = \"0.1.0\"\nedition = \"2024\"\n");
    write(
        "places/build.rs",
        "fn main() {\n    let out = std::env::var(\"OUT_DIR\").unwrap();\n    \
         std::fs::write(format!(\"{out}/made.rs\"), \"pub fn made(n: usize) -> u8 { b\\\"ab\\\"[n] }\").unwrap();\n}\n",
    );
    write(
        "places/src/main.rs",
        "include!(concat!(env!(\"OUT_DIR\"), \"/made.rs\"));\nfn main() {\n    let count = std::env::args().count();\n    \
         println!(\"{} {} {:?}\", made(count), file!(), std::panic::Location::caller());\n    \
         let text: String = std::iter::repeat_n('a', count).collect();\n    println!(\"{}\", &text[count..]);\n}\n",
    );
}

#[test]
fn what_is_built_in_other_folders_is_the_same_and_names_none_of_them() {
    const PLACES: [Program; 1] = [Program { name: "places", package: "places" }];
    let toolchain = Toolchain::find().unwrap();
    let target = Target::of_triple(&toolchain.host).unwrap();
    let source = Source { commit: Some("a".repeat(40)), time: 1_700_000_000 };
    let built = ["one", "another/and/deeper"].map(|name| {
        let parent = tempfile::Builder::new().prefix("kh-places").tempdir().unwrap();
        let root = parent.path().join(name);
        workspace(&root);
        let found = Workspace::find(&root, &[target]).unwrap();
        let folder = compile::build(&found, &PLACES, target, &toolchain, &source, "release");
        let bytes = std::fs::read(folder.unwrap().join("places")).unwrap();
        assert!(!contains(&bytes, b"kh-places"), "it names the folder that it was built in");
        let sysroot = fixture::output(std::process::Command::new("rustc").args(["--print", "sysroot"]));
        assert!(!contains(&bytes, sysroot.trim().as_bytes()), "it names the toolchain's folder");
        bytes
    });
    assert!(
        contains(&built[0], b"/kubehive/target/") && contains(&built[0], b"/rustc/"),
        "it names nothing at all"
    );
    assert!(built[0] == built[1], "two builds differ");
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}
