//! Rule 5: what makes a run differ from the next, or ends it, is called in a few files, each with a reason.
//!
//! The rule looks at shipped code. Free of it are tests (`tests/`, `benches/`, `#[cfg(test)]`) and build scripts, and
//! for what a program decides for itself (threads, clock, exit, randomness) the `main.rs` files and the mappers, which
//! are programs of their own. No one is exempt from the ban on shells, and only tests are free to use an unbounded queue.

use crate::masked;
use crate::{File, Finding};

/// Which code is exempt from a rule, beside the files on its list.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Exempt {
    /// Tests, build scripts, `main.rs` and mappers.
    Programs,
    /// Tests and build scripts.
    Tests,
}

/// A file that may make the call, and why.
type AllowedFile = (&'static str, &'static str);

struct RestrictedCall {
    what: &'static str,
    /// Each with a word's boundary before it.
    calls: &'static [&'static str],
    exempt: Exempt,
    cure: &'static str,
    allowed: &'static [AllowedFile],
}

const RESTRICTED_CALLS: &[RestrictedCall] = &[
    RestrictedCall {
        what: "a thread of its own",
        calls: &["thread::spawn", "thread::Builder", "thread::scope"],
        exempt: Exempt::Programs,
        cure: "use the hive's spawner, or beehive::Thread, whose end its owner hears",
        allowed: &[("beehive/src/thread.rs", "the door itself: whoever owns a thread hears of its end")],
    },
    RestrictedCall {
        what: "a clock",
        calls: &["Instant::now", "SystemTime::now", "Timestamp::now", "Zoned::now", "Utc::now"],
        exempt: Exempt::Programs,
        cure: "take the time from the Context's or Env's clock, or as an argument",
        allowed: &[("beehive/src/env.rs", "the clock that everyone is handed")],
    },
    RestrictedCall {
        what: "unseeded randomness",
        calls: &["from_os_rng", "try_from_os_rng", "thread_rng", "rand::rng()", "OsRng", "Uuid::new_v4"],
        exempt: Exempt::Programs,
        cure: "take it from Env, or say here which secret needs the machine's own",
        allowed: &[("beehive/src/env.rs", "the seed of a daemon")],
    },
    RestrictedCall {
        what: "an unbounded queue",
        calls: &["unbounded_channel", "unbounded()", "unbounded::<", "mpsc::channel()", "mpsc::channel::<"],
        exempt: Exempt::Tests,
        cure: "give the queue a bound, and the bound a reason",
        allowed: &[],
    },
    RestrictedCall {
        what: "an end of the process",
        calls: &["process::exit", "process::abort"],
        exempt: Exempt::Programs,
        cure: "return an error; the daemon's main decides",
        allowed: &[("modules/daemon/src/run.rs", "a blocked hive cannot end its daemon in order")],
    },
];

const SHELLS: [&str; 6] = ["sh", "bash", "dash", "ash", "zsh", "busybox"];

/// Calls in files that are not on their list.
pub fn outside(files: &[File]) -> Vec<Finding> {
    files
        .iter()
        .filter(|file| file.is_rust() && !is_test(&file.path))
        .flat_map(|file| {
            let code = masked::code(&file.text);
            let tests = masked::test_ranges(&code);
            let mut found = Vec::new();
            for restricted in RESTRICTED_CALLS {
                let exempt = restricted.exempt == Exempt::Programs && is_program(&file.path);
                if exempt || restricted.allowed.iter().any(|(path, _)| *path == file.path) {
                    continue;
                }
                for at in calls(&code, restricted).filter(|at| !tests.iter().any(|range| range.contains(at)))
                {
                    let what = format!(
                        "{} (rule 5): {}; the list is in tests/tidy/src/restricted_calls.rs",
                        restricted.what, restricted.cure
                    );
                    found.push(Finding::new(&file.path, masked::line_of(&code, at), what));
                }
            }
            found
        })
        .collect()
}

/// Listed files that make the call no more: a list that only grows holds nothing.
pub fn unused(files: &[File]) -> Vec<Finding> {
    let mut found = Vec::new();
    for restricted in RESTRICTED_CALLS {
        for (path, reason) in restricted.allowed {
            let used = files
                .iter()
                .find(|file| file.path == *path)
                .is_some_and(|file| calls(&masked::code(&file.text), restricted).next().is_some());
            if !used || reason.is_empty() {
                let what = format!(
                    "listed for {} without using it, or without a reason: take it off the list",
                    restricted.what
                );
                found.push(Finding::new(path, 1, what));
            }
        }
    }
    found
}

/// Shells that are started, in tests and mappers too: a program gets its arguments as a list.
pub fn shells(files: &[File]) -> Vec<Finding> {
    const CALL: &str = "Command::new(";
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let code = masked::code(&file.text);
        for (at, _) in code.match_indices(CALL) {
            let argument = file.text[at + CALL.len()..].trim_start();
            let Some(literal) = argument.strip_prefix('"').and_then(|rest| rest.split('"').next()) else {
                continue;
            };
            let program = literal.rsplit('/').next().unwrap_or(literal);
            if SHELLS.contains(&program) {
                let what = format!(
                    "`{literal}` is a shell (rule 5): start the program itself, with its arguments as a list"
                );
                found.push(Finding::new(&file.path, masked::line_of(&code, at), what));
            }
        }
    }
    found
}

fn calls<'a>(code: &'a str, restricted: &'a RestrictedCall) -> impl Iterator<Item = usize> + 'a {
    restricted.calls.iter().flat_map(move |call| {
        code.match_indices(call).map(|(at, _)| at).filter(move |at| {
            let bytes = code.as_bytes();
            let before = at.checked_sub(1).is_some_and(|before| masked::is_word(bytes[before]));
            let end = at + call.len();
            let open_end = call.ends_with(|last: char| last.is_ascii_alphanumeric());
            let after = open_end && bytes.get(end).is_some_and(|byte| masked::is_word(*byte));
            !before && !after
        })
    })
}

/// Crates of `tests/`, a crate's own `tests/` and `benches/`, and the file of a `mod tests;`.
pub(crate) fn is_test(path: &str) -> bool {
    let mut parts = path.split('/');
    let file = parts.next_back().unwrap_or_default();
    file == "tests.rs" || file == "build.rs" || parts.any(|part| part == "tests" || part == "benches")
}

fn is_program(path: &str) -> bool {
    path.starts_with("mappers/") || path.ends_with("src/main.rs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(found: &[Finding]) -> Vec<usize> {
        found.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn every_restricted_call_is_found() {
        for restricted in RESTRICTED_CALLS {
            for call in restricted.calls {
                let file = File::new("modules/x/src/actor.rs", &format!("fn f() {{\n    std::{call};\n}}\n"));
                let found = outside(&[file]);
                assert!(!found.is_empty() && found.iter().all(|finding| finding.line == 2), "{call}");
            }
        }
    }

    #[test]
    fn comments_strings_tests_and_other_words_are_no_calls() {
        let text = "// Instant::now\nlet a = \"thread::spawn\";\nMyInstant::now();\nInstant::nowhere();\n\
                    #[cfg(test)]\nmod tests { fn f() { Instant::now(); } }\n";
        assert_eq!(lines(&outside(&[File::new("modules/x/src/plan.rs", text)])), [] as [usize; 0]);
        let after = format!("{text}fn g() {{ Instant::now(); }}\n");
        assert_eq!(lines(&outside(&[File::new("modules/x/src/plan.rs", &after)])), [7]);
    }

    #[test]
    fn programs_are_exempt_from_some_rules_and_tests_from_all() {
        let text = "fn f() { process::exit(1); Instant::now(); mpsc::unbounded_channel(); }";
        for path in ["cloud/src/main.rs", "mappers/modbus/src/lib.rs"] {
            assert_eq!(outside(&[File::new(path, text)]).len(), 1, "{path}");
        }
        for path in
            ["tests/harness/src/lib.rs", "modules/x/tests/y.rs", "benches/src/lib.rs", "modules/x/build.rs"]
        {
            assert!(outside(&[File::new(path, text)]).is_empty(), "{path}");
        }
        assert_eq!(outside(&[File::new("cloud/src/lib.rs", text)]).len(), 3);
    }

    #[test]
    fn a_listed_file_that_does_not_call_is_found() {
        assert!(unused(&[]).iter().any(|finding| finding.path == "beehive/src/env.rs"));
        let used = File::new("beehive/src/env.rs", "Instant::now(); StdRng::from_os_rng();");
        assert!(unused(&[used]).iter().all(|finding| finding.path != "beehive/src/env.rs"));
    }

    #[test]
    fn a_shell_is_found_everywhere_and_only_in_code() {
        let text = "f(\"Command::new(\\\"sh\\\")\");\nCommand::new(\"sh\");\nstd::process::Command::new(\n  \"/bin/bash\");\nCommand::new(\"ip\");";
        assert_eq!(lines(&shells(&[File::new("tests/demo/src/main.rs", text)])), [2, 3]);
    }
}
