//! A release is the same bytes from other folders, times, modes and umasks; and a program that is built in other folders, too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

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
    let one = fixture::programs();
    let other = tempfile::tempdir().unwrap();
    for program in PROGRAMS {
        let path = other.path().join(program.name);
        std::fs::copy(one.path().join(program.name), &path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400);
        std::fs::File::options().append(true).open(&path).unwrap().set_modified(long_ago).unwrap();
    }
    let (_first, first) = fixture::release(one.path(), &[]).unwrap();
    let umask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let (_second, second) = fixture::release(other.path(), &[]).unwrap();
    rustix::process::umask(umask);
    let (first_files, second_files) = (fixture::files(&first), fixture::files(&second));
    assert!(first_files.contains_key("SHA256SUMS") && first_files.contains_key("provenance.json"));
    let names: Vec<&String> = first_files.keys().collect();
    assert_eq!(names, second_files.keys().collect::<Vec<&String>>());
    for (name, bytes) in &first_files {
        assert!(second_files[name] == *bytes, "{name} differs");
        let mode = |of: &Path| std::fs::metadata(of.join(name)).unwrap().permissions().mode();
        assert_eq!(mode(&first), mode(&second), "{name}");
    }
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
