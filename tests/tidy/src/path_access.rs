//! Rule 10: below a folder that a container can reach, `edgecore` does nothing by path.
//!
//! A container is root, or in the right group, inside its mounts: whatever is looked up there by path can be a link to
//! anywhere at the next step. So in `modules/edge-edged` only `src/disk/beneath` touches files, in `modules/edge-stream`, which reads
//! logs, only `src/beneath.rs`, and for the folder of the mappers'
//! sockets (`modules/dmi`, `modules/unixsocket`, `modules/edge-devicetwin`) only `src/folder.rs` of `unixsocket`; what the others do with the host's own
//! files stands in the list, call by call, with a reason. Tests are free.

use crate::masked;
use crate::{File, Finding};

/// Crates that work in such folders.
const CRATES: [&str; 5] = [
    "modules/edge-edged/src/",
    "modules/edge-stream/src/",
    "modules/dmi/src/",
    "modules/unixsocket/src/",
    "modules/edge-devicetwin/src/",
];
/// Where they do.
const ALLOWED_FILES: [&str; 3] = [
    "modules/edge-edged/src/disk/beneath/",
    "modules/edge-stream/src/beneath.rs",
    "modules/unixsocket/src/folder.rs",
];

/// Whatever takes a path and looks it up. Each with a word's boundary before it.
const CALLS: &[&str] = &[
    "fs",
    "File",
    "OpenOptions",
    "DirBuilder",
    "symlink",
    "chown",
    "lchown",
    "mount",
    "unmount",
    "Command",
    "exists",
    "try_exists",
    "is_file",
    "is_dir",
    "is_symlink",
    "metadata",
    "symlink_metadata",
    "read_dir",
    "read_link",
    "canonicalize",
];

struct Allowed {
    path: &'static str,
    calls: &'static [&'static str],
    reason: &'static str,
}

const ALLOWED: &[Allowed] = &[
    Allowed {
        path: "modules/edge-edged/src/runtime/cgroup.rs",
        calls: &["fs", "exists", "read_dir", "is_dir"],
        reason: "the kernel's tree of cgroups, in which nobody can put a link",
    },
    Allowed {
        path: "modules/edge-edged/src/runtime/kubepods.rs",
        calls: &["fs", "is_dir"],
        reason: "the kernel's tree of cgroups, in which nobody can put a link",
    },
    Allowed {
        path: "modules/edge-edged/src/torn_networks.rs",
        calls: &["fs", "File", "symlink_metadata", "metadata", "is_file", "read_dir"],
        reason: "CNI's own folder of the host, which no pod has but one that installs CNI, and that has the host",
    },
    Allowed {
        path: "modules/edge-edged/src/node/machine.rs",
        calls: &["fs", "File", "exists"],
        reason: "/proc, /sys and /etc of the host, and which disk rootDirectory is on",
    },
    Allowed {
        path: "modules/edge-edged/src/runs/record.rs",
        calls: &["fs"],
        reason: "the machine's boot id, where the administrator says it is, and /proc/uptime",
    },
    Allowed {
        path: "modules/edge-edged/src/runtime/huge_pages.rs",
        calls: &["fs", "read_dir"],
        reason: "/sys/kernel/mm/hugepages, in which nobody can put a link",
    },
    Allowed {
        path: "modules/edge-edged/src/runtime/swap.rs",
        calls: &["exists"],
        reason: "the kernel's tree of cgroups, in which nobody can put a link",
    },
    Allowed {
        path: "modules/edge-edged/src/runtime/dns.rs",
        calls: &["fs", "metadata"],
        reason: "the host's resolver file, where the administrator says it is",
    },
    Allowed {
        path: "modules/edge-edged/src/runtime/security.rs",
        calls: &["fs", "read_dir", "is_dir", "is_file"],
        reason: "/sys/devices/system/cpu, and whether a seccomp profile of the administrator is there",
    },
    Allowed {
        path: "modules/edge-edged/src/static_pods/folder.rs",
        calls: &["fs", "File", "metadata", "read_dir", "is_dir", "is_file"],
        reason: "files of static pods, where the administrator says they are: what others than root can write there is refused, and the settings refuse a place below the mappers' folder",
    },
    Allowed {
        path: "modules/edge-edged/src/static_pods/watch.rs",
        calls: &["fs", "is_file"],
        reason: "which folder the kernel watches for those files: nothing is read by it",
    },
    Allowed {
        path: "modules/edge-edged/src/shutdown/logind.rs",
        calls: &["fs"],
        reason: "logind's own folder of settings on the host, /etc/systemd/logind.conf.d",
    },
    Allowed {
        path: "modules/edge-edged/src/volumes/host.rs",
        calls: &["fs", "metadata", "is_dir", "is_file"],
        reason: "what kind of thing a hostPath is, and the folder above it",
    },
    Allowed {
        path: "modules/edge-edged/src/volumes/hosts_file.rs",
        calls: &["fs", "File"],
        reason: "the host's own /etc/hosts",
    },
    Allowed {
        path: "modules/edge-edged/src/runtime/app_armor.rs",
        calls: &["fs"],
        reason: "/sys/module/apparmor, which says whether the host has it",
    },
    Allowed {
        path: "modules/edge-stream/src/stats/cgroup.rs",
        calls: &["fs", "File", "exists", "is_dir"],
        reason: "the kernel's tree of cgroups, in which nobody can put a link",
    },
    Allowed {
        path: "modules/edge-stream/src/stats/proc.rs",
        calls: &["fs", "File"],
        reason: "/proc, /sys and /etc of the host, and which disk a folder of the settings is on",
    },
    Allowed {
        path: "modules/edge-stream/src/stats/process.rs",
        calls: &["fs", "read_dir"],
        reason: "edgecore's own entries in the kernel's /proc",
    },
    Allowed {
        path: "modules/edge-stream/src/stats/processes.rs",
        calls: &["fs", "read_dir", "read_link"],
        reason: "the kernel's /proc: what a process has open is counted by the words of its links, and never followed",
    },
    Allowed {
        path: "modules/edge-stream/src/stats/cadvisor.rs",
        calls: &["fs", "canonicalize"],
        reason: "the name of a block device in the host's /dev",
    },
    Allowed {
        path: "modules/edge-stream/src/stats/collect.rs",
        calls: &["fs"],
        reason: "the kind of an entry that beneath.rs listed",
    },
    Allowed {
        path: "modules/edge-stream/src/token.rs",
        calls: &["fs", "OpenOptions"],
        reason: "the token's file, where the administrator says it is; a link there is not followed",
    },
    Allowed {
        path: "modules/edge-stream/src/node_logs.rs",
        calls: &["fs", "metadata"],
        reason: "the kind of an entry, and the length of a file, that beneath.rs opened",
    },
    Allowed {
        path: "modules/edge-edged/src/volumes/external.rs",
        calls: &["fs", "is_dir", "metadata"],
        reason: "a disk of the host that an administrator names in a PersistentVolume",
    },
    Allowed {
        path: "modules/edge-edged/src/volumes/mount_program.rs",
        calls: &["exists", "Command"],
        reason: "mount(8) of the host, with its helpers",
    },
    Allowed {
        path: "modules/edge-stream/src/answer.rs",
        calls: &["fs"],
        reason: "a file that beneath.rs opened",
    },
    Allowed {
        path: "modules/edge-stream/src/link_calls.rs",
        calls: &["fs"],
        reason: "a file that beneath.rs opened",
    },
    Allowed {
        path: "modules/edge-stream/src/log/copy.rs",
        calls: &["fs", "metadata"],
        reason: "a file that beneath.rs opened, and its length",
    },
    Allowed {
        path: "modules/edge-stream/src/log/tail.rs",
        calls: &["fs"],
        reason: "a file that beneath.rs opened",
    },
    Allowed {
        path: "modules/edge-stream/src/log/changes.rs",
        calls: &["fs"],
        reason: "the kernel's watch, by the descriptor of a folder that beneath.rs opened",
    },
    Allowed {
        path: "modules/edge-devicetwin/src/mapper_socket.rs",
        calls: &["fs"],
        reason: "a mapper's socket, which is opened by openat2 beneath the folder and without links",
    },
    Allowed {
        path: "modules/edge-devicetwin/src/peer.rs",
        calls: &["fs", "File"],
        reason: "the kernel's /proc, in which nobody can put a link",
    },
    Allowed { path: "modules/dmi/src/notes.rs", calls: &["metadata"], reason: "the metadata of a gRPC call" },
];

/// Calls by path in files that are not listed.
pub fn by_path(files: &[File]) -> Vec<Finding> {
    let is_in = |file: &&File, places: &[&str]| places.iter().any(|place| file.path.starts_with(place));
    let ours = files.iter().filter(|file| file.is_rust() && is_in(file, &CRATES));
    let others =
        ours.filter(|file| !is_in(file, &ALLOWED_FILES) && !crate::restricted_calls::is_test(&file.path));
    let mut found = Vec::new();
    for file in others {
        for (call, line) in calls(file) {
            let allowed = |entry: &Allowed| entry.path == file.path && entry.calls.contains(&call);
            if !ALLOWED.iter().any(allowed) {
                let what = format!(
                    "`{call}` looks something up by its path (rule 10): go through beneath::Folder or unixsocket's folder.rs, or say in \
                     tests/tidy/src/path_access.rs why no container can reach it"
                );
                found.push(Finding::new(&file.path, line, what));
            }
        }
    }
    found
}

/// Entries of the list that no one needs any more.
pub fn unused(files: &[File]) -> Vec<Finding> {
    let mut found = Vec::new();
    for entry in ALLOWED {
        let used = files.iter().find(|file| file.path == entry.path).map(calls).unwrap_or_default();
        for call in entry.calls {
            if entry.reason.is_empty() || !used.iter().any(|(own, _)| own == call) {
                let what = format!(
                    "listed for `{call}` without using it, or without a reason: take it off the list"
                );
                found.push(Finding::new(entry.path, 1, what));
            }
        }
    }
    found
}

/// What a file calls of the list, and where. A field or a variable of such a name is none: a call is followed by `(`,
/// a module or type by `::`.
fn calls(file: &File) -> Vec<(&'static str, usize)> {
    let code = masked::code(&file.text);
    let tests = masked::test_ranges(&code);
    let bytes = code.as_bytes();
    let mut found = Vec::new();
    for call in CALLS {
        for (at, _) in code.match_indices(call) {
            let before = at.checked_sub(1).is_some_and(|before| masked::is_word(bytes[before]));
            let rest = &code[at + call.len()..];
            let is_call = rest.starts_with('(') || rest.starts_with("::");
            if !before
                && is_call
                && !tests.iter().any(|range| range.contains(&at))
                && !is_own(&code, at, call)
            {
                found.push((*call, masked::line_of(&code, at)));
            }
        }
    }
    found
}

/// A function or closure of this name that is declared in the same file.
fn is_own(code: &str, at: usize, call: &str) -> bool {
    let bare = !code[..at].ends_with(['.', ':']);
    bare && [format!("fn {call}("), format!("let {call} = |")].iter().any(|own| code.contains(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<usize> {
        by_path(&[File::new(path, text)]).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn whatever_takes_a_path_is_found() {
        for call in [
            "std::fs::write(p, b)",
            "tokio::fs::read(p)",
            "rustix::fs::open(p)",
            "fs::remove_dir_all(p)",
            "File::open(p)",
            "std::os::unix::fs::symlink(a, b)",
            "symlink(a, b)",
            "path.exists()",
            "path.is_dir()",
            "path.metadata()",
            "chown(p, None, None)",
            "mount(a, b)",
            "rustix::mount::unmount(p)",
            "Command::new(x)",
        ] {
            for file in [
                "modules/edge-edged/src/pod/worker.rs",
                "modules/dmi/src/socket.rs",
                "modules/edge-devicetwin/src/server.rs",
            ] {
                let lines = found(file, &format!("fn f() {{\n    {call};\n}}\n"));
                assert!(!lines.is_empty() && lines.iter().all(|line| *line == 2), "{file}: {call}");
            }
        }
    }

    #[test]
    fn listed_files_tests_other_crates_and_words_are_free() {
        let text = "fn f() { std::fs::write(p, b); }";
        for path in [
            "modules/edge-edged/src/disk/beneath/file.rs",
            "modules/unixsocket/src/folder.rs",
            "modules/edge-edged/src/volumes/tests.rs",
            "edge/src/x.rs",
        ] {
            assert!(found(path, text).is_empty(), "{path}");
        }
        let free = "// std::fs::write\nlet metadata = pod.metadata.clone(); offs::x(); let fs = 1;\n\
                    #[cfg(test)]\nmod tests { fn f() { std::fs::write(p, b); } }\n";
        assert_eq!(found("modules/edge-edged/src/pod/plan.rs", free), [] as [usize; 0]);
        // A function of one's own hides no call of another.
        let own = "fn mount(a: A) {}\nlet metadata = |a| a;\nmount(a);\nmetadata(a);\na.metadata();\nx::mount(a);\n";
        assert_eq!(found("modules/edge-edged/src/pod/plan.rs", own), [6, 5]);
    }

    #[test]
    fn the_list_holds_for_its_calls_only_and_does_not_outlive_them() {
        let path = "modules/edge-edged/src/node/machine.rs";
        assert_eq!(found(path, "fs::read(p);\nFile::open(p);\np.is_symlink();"), [3]);
        assert!(unused(&[]).iter().any(|finding| finding.path == path));
        let used = File::new(path, "fs::read(p); File::open(p); p.exists();");
        assert!(unused(&[used]).iter().all(|finding| finding.path != path));
    }
}
