//! Folders of programs that hold something else: each is refused by name, and no release comes of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::path::Path;

use dist::parts::PROGRAMS;
use dist::programs::PROGRAM_MAX;

/// What is said of a folder in which `spoil` was done to `keadm`.
fn refused(spoil: impl FnOnce(&Path), more: &[&str]) -> String {
    let programs = fixture::programs();
    let keadm = programs.path().join("keadm");
    spoil(&keadm);
    let error = fixture::release(programs.path(), more).unwrap_err();
    assert!(error.contains("keadm"), "it is not named: {error}");
    error
}

fn replace(path: &Path, bytes: &[u8]) {
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn what_is_no_regular_file_is_refused() {
    let link = |path: &Path| {
        std::fs::remove_file(path).unwrap();
        std::os::unix::fs::symlink("edgecore", path).unwrap();
    };
    assert!(refused(link, &[]).contains("symbolic link"));
    let folder = |path: &Path| {
        std::fs::remove_file(path).unwrap();
        std::fs::create_dir(path).unwrap();
    };
    assert!(refused(folder, &[]).contains("not a regular file"));
    let pipe = |path: &Path| {
        std::fs::remove_file(path).unwrap();
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    };
    assert!(refused(pipe, &[]).contains("not a regular file"));
    assert!(refused(|path| std::fs::remove_file(path).unwrap(), &[]).contains("--only"));
}

#[test]
fn a_huge_file_is_not_read() {
    let huge = |path: &Path| {
        std::fs::File::options().write(true).open(path).unwrap().set_len(PROGRAM_MAX + 1).unwrap();
    };
    assert!(refused(huge, &[]).contains("more than 256 MiB"));
}

#[test]
fn what_is_no_program_for_an_image_is_refused() {
    assert!(refused(|path| replace(path, b"#!/bin/true\n"), &[]).contains("no ELF file"));
    let half = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        replace(path, &bytes[..40]);
    };
    assert!(refused(half, &[]).contains("no ELF file"));
    let of_another = |path: &Path| {
        let mut bytes = std::fs::read(path).unwrap();
        // RISC-V's, whatever this machine is.
        bytes[18..20].copy_from_slice(&243_u16.to_le_bytes());
        replace(path, &bytes);
    };
    let error = refused(of_another, &[]);
    assert!(error.contains("is for riscv64") && error.contains("--target"), "{error}");
    // The tests' own program is linked with the machine's C library.
    let dynamic = |path: &Path| replace(path, &std::fs::read(std::env::current_exe().unwrap()).unwrap());
    let error = refused(dynamic, &[]);
    assert!(error.contains("ld-linux") && error.contains("cargo dist"), "{error}");
}

#[test]
fn what_is_not_of_one_version_and_commit_is_refused() {
    let saying = |said: &str| {
        let bytes = fixture::program(said);
        move |path: &Path| replace(path, &bytes)
    };
    let commit = "b".repeat(40);
    let older = refused(saying(&format!("0.0.1 (commit {commit})")), &[]);
    assert!(older.contains(fixture::VERSION), "{older}");
    let other = refused(saying(&format!("{} (commit {commit})", fixture::VERSION)), &[]);
    assert!(other.contains(&commit) && other.contains("a release is of one"), "{other}");
    let silent = saying(&format!("{} (commit unknown)", fixture::VERSION));
    assert!(refused(&silent, &[]).contains("--revision"));
    // Whoever vouches for it may.
    let programs = fixture::programs();
    silent(&programs.path().join("keadm"));
    let (_folder, out) =
        fixture::release(programs.path(), &["--only", "keadm", "--revision", fixture::OTHER]).unwrap();
    assert!(out.join("SHA256SUMS").is_file());
}

#[test]
fn a_part_that_is_asked_for_is_all_that_is_looked_at() {
    let programs = fixture::programs();
    for program in PROGRAMS.iter().filter(|program| program.name != "virtual-mapper") {
        replace(&programs.path().join(program.name), b"");
    }
    let (_folder, out) =
        fixture::release(programs.path(), &["--only", "virtual-mapper", "--tag", "v9"]).unwrap();
    let files = fixture::files(&out);
    let archives: Vec<&String> =
        files.keys().filter(|name| name.ends_with(".tar") || name.ends_with(".deb")).collect();
    assert_eq!(archives.len(), 1);
    assert!(archives[0].starts_with("images/virtual-mapper_v9_linux-"), "{archives:?}");
}
