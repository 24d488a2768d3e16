//! Rule 11: what every part shares has one home, and files do not import each other in circles.
//!
//! A second supervision loop, quantity parser, object key or HTTP server would slowly come to disagree with the first. The
//! rule looks at shipped code; tests are free.

use std::collections::{BTreeMap, BTreeSet};

use crate::masked;
use crate::restricted_calls::is_test;
use crate::{File, Finding};

struct SingleHome {
    what: &'static str,
    /// What gives another one away.
    signs: &'static [&'static str],
    /// Whether the signs stand inside of string literals.
    literal: bool,
    /// Where it may be, each with a reason.
    homes: &'static [(&'static str, &'static str)],
    cure: &'static str,
}

const HOMES: &[SingleHome] = &[
    SingleHome {
        what: "supervision",
        signs: &["catch_unwind", "AssertUnwindSafe"],
        literal: false,
        homes: &[("beehive/src/", "the cell of an actor, and tasks that an actor spawned")],
        cure: "make it an actor or a child of one (`cx.child`): the hive catches, counts and restarts",
    },
    SingleHome {
        what: "a quantity parser",
        signs: &["\"Ki\"", "\"Mi\"", "\"Gi\""],
        literal: true,
        homes: &[("modules/apimachinery/src/quantity.rs", "the parser")],
        cure: "parse `apimachinery::Quantity`",
    },
    SingleHome {
        what: "a reader of the kernel's table of mounts",
        signs: &["\"/proc/self/mountinfo\"", "\"/proc/self/mounts\"", "\"/proc/mounts\""],
        literal: true,
        homes: &[("modules/mountinfo/src/lib.rs", "the reader, which takes names that are no text")],
        cure: "use `mountinfo::here`",
    },
    SingleHome {
        what: "a log",
        signs: &["tracing_subscriber"],
        literal: false,
        homes: &[
            (
                "modules/daemon/src/log.rs",
                "the log of every program, in which no peer has more lines than its share",
            ),
            ("modules/daemon/src/cut.rs", "how long its fields are"),
            ("modules/daemon/src/journal.rs", "how grave a line is, for systemd's journal"),
        ],
        cure: "use `daemon::main` or `daemon::start_log`",
    },
    SingleHome {
        what: "an end of a program that shows its user a backtrace",
        signs: &["fn main() -> anyhow", "fn main() -> Result"],
        literal: false,
        homes: &[],
        cure: "use `daemon::main`, or print `daemon::sentence` and return an ExitCode",
    },
    SingleHome {
        what: "a mapper's program",
        signs: &["framework::run("],
        literal: false,
        homes: &[],
        cure: "use `framework::Program`, which has the arguments and the signals of all of them",
    },
    SingleHome {
        what: "an HTTP server",
        signs: &["server::conn", "auto::Builder", "HttpServer", "axum::"],
        literal: false,
        homes: &[
            ("modules/https/src/", "the helper that all HTTPS servers stand on"),
            ("modules/unixgrpc/src/connection.rs", "gRPC over Unix sockets, HTTP/2 without TLS"),
            ("mappers/framework/src/rest.rs", "a mapper has no actix system to stand on, and carries no TLS"),
        ],
        cure: "use `https`, or for gRPC on a Unix socket `unixgrpc`",
    },
    SingleHome {
        what: "a client of HTTP/1.1",
        signs: &["client::conn::", "client::legacy"],
        literal: false,
        homes: &[
            ("modules/httpclient/src/", "the one handshake, which bounds what a peer says before its answer"),
            (
                "modules/cloud-router/src/target_client.rs",
                "a pool of connections, of which `httpclient` guards each stream and request",
            ),
        ],
        cure: "use `httpclient::handshake`",
    },
    SingleHome {
        what: "a reader of the system's CAs",
        signs: &["load_native_certs"],
        literal: false,
        homes: &[("modules/httpclient/src/tls.rs", "TLS to whom a CA of the system's vouches for")],
        cure: "use `httpclient::tls`",
    },
    SingleHome {
        what: "a role of nodes",
        signs: &["\"node-role.kubernetes.io/edge", "\"node-role.kubernetes.io/agent"],
        literal: true,
        homes: &[("modules/apimachinery/src/node_label.rs", "what a node's labels may be")],
        cure: "use `apimachinery::node_label::EDGE_LABEL` or `EDGE_ROLES`",
    },
    SingleHome {
        what: "a name by which a program of ours calls",
        signs: &["\"edgecore-rules", "\"kubehive-http-mapper", "\"kubehive-onvif-mapper"],
        literal: true,
        homes: &[(
            "modules/httpclient/src/agent.rs",
            "the names that a mapper's REST interface tells from all others",
        )],
        cure: "use `httpclient::agent`",
    },
    SingleHome {
        what: "a list of where clouds keep the metadata of their machines",
        signs: &["\"fd00:ec2::", "\"168.63.129.16", "\"100.100.100.200"],
        literal: true,
        homes: &[("modules/targets/src/target_addresses.rs", "the list, by which every target is judged")],
        cure: "judge by `targets::TargetAddresses`",
    },
    SingleHome {
        what: "a client of gRPC or a way to connect one, of which each weighs a few kilobytes of `edgecore` for each method",
        signs: &[
            "connect_with_connector",
            "client::Grpc",
            "ProstCodec",
            "service_client::",
            "registration_client::",
            "plugin_client::",
            "lister_client::",
        ],
        literal: false,
        homes: &[
            ("modules/unixgrpc/src/", "the one client and the one way to connect"),
            (
                "mappers/framework/src/edgecore.rs",
                "a mapper is a program of its own, which calls three methods",
            ),
        ],
        cure: "declare the methods by `unixgrpc::methods!`, connect by `unixgrpc::Connector`, call by `unixgrpc::Client`",
    },
];

/// Where keys of objects may be, each with a reason.
const KEYS_IN: &[(&str, &str)] = &[
    ("modules/apimachinery/src/", "the keys themselves"),
    ("modules/contract/src/wire/", "frozen bytes are structs of their own, whatever a key becomes"),
];

/// What has a home elsewhere.
pub fn second_homes(files: &[File]) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.is_rust() && is_shipped(&file.path)) {
        let code = masked::code(&file.text);
        let tests = masked::test_ranges(&code);
        for home in HOMES.iter().filter(|home| !home.homes.iter().any(|(at, _)| file.path.starts_with(at))) {
            let text = if home.literal { &file.text } else { &code };
            let signs = home.signs.iter().flat_map(|sign| text.match_indices(sign));
            // A literal in a comment: the quote is blanked out in the code.
            let real = |at: &usize| !home.literal || code.as_bytes().get(*at) == Some(&b'"');
            let shipped = |at: &usize| real(at) && !tests.iter().any(|range| range.contains(at));
            if let Some(at) = signs.map(|(at, _)| at).filter(shipped).min() {
                let what = format!("{} beside the one home of it (rule 11): {}", home.what, home.cure);
                found.push(Finding::new(&file.path, masked::line_of(text, at), what));
            }
        }
        if !KEYS_IN.iter().any(|(at, _)| file.path.starts_with(at)) {
            found.extend(keys(file, &code, &tests));
        }
    }
    found
}

/// Listed homes in which there is nothing of the kind.
pub fn empty_homes(files: &[File]) -> Vec<Finding> {
    let homes = HOMES.iter().flat_map(|home| home.homes.iter().map(move |(at, reason)| (home, *at, *reason)));
    let is_used = |home: &SingleHome, at: &str| {
        let mut here = files.iter().filter(|file| file.is_rust() && file.path.starts_with(at));
        here.any(|file| home.signs.iter().any(|sign| file.text.contains(sign)))
    };
    homes
        .filter(|(home, at, reason)| reason.is_empty() || !is_used(home, at))
        .map(|(home, at, _)| {
            Finding::new(at, 1, format!("listed as home of {} and is none: take it off", home.what))
        })
        .collect()
}

/// Structs that are nothing but the name of a Kubernetes object.
fn keys(file: &File, code: &str, tests: &[std::ops::Range<usize>]) -> Vec<Finding> {
    let starts = code.match_indices("struct ").map(|(at, _)| at);
    let shipped = starts.filter(|at| !tests.iter().any(|range| range.contains(at)));
    let is_key = |at: &usize| {
        let Some(open) = code[*at..].find(['{', ';', '(']).map(|length| at + length) else { return false };
        if code.as_bytes()[open] != b'{' {
            return false;
        }
        let body = &code[open + 1..code[open..].find('}').map_or(code.len(), |length| open + length)];
        let fields = body
            .split(',')
            .filter_map(|field| field.split_once(':'))
            .map(|(name, _)| name.split_whitespace().next_back().unwrap_or_default());
        let fields: BTreeSet<&str> = fields.collect();
        let within = |allowed: &[&str]| fields.iter().all(|field| allowed.contains(field));
        fields.contains("namespace")
            && fields.contains("name")
            && within(&["namespace", "name", "resource", "kind"])
    };
    shipped
        .filter(is_key)
        .map(|at| {
            let what =
                "another key of an object (rule 11): use apimachinery's `ObjectKey` or `NamespacedName`";
            Finding::new(&file.path, masked::line_of(code, at), what)
        })
        .collect()
}

fn is_shipped(path: &str) -> bool {
    let shipped = ["beehive/", "config/", "modules/", "cloud/", "edge/", "mappers/"];
    shipped.iter().any(|root| path.starts_with(root)) && !is_test(path)
}

/// A module of a crate: its path of names, empty for the crate's root.
type Module = Vec<String>;

/// Files of one crate that import each other in a circle. What a module shares with those below it is its own business.
pub fn import_circles(files: &[File]) -> Vec<Finding> {
    let mut crates: BTreeMap<&str, BTreeMap<Module, &File>> = BTreeMap::new();
    for file in files.iter().filter(|file| file.is_rust() && is_shipped(&file.path)) {
        if let Some((root, module)) = place(&file.path) {
            crates.entry(root).or_default().insert(module, file);
        }
    }
    let mut found = Vec::new();
    for modules in crates.values() {
        let imports: BTreeMap<&Module, BTreeSet<&Module>> =
            modules.iter().map(|(module, file)| (module, imports_of(module, file, modules))).collect();
        for circle in circles(&imports) {
            let names: Vec<String> = circle.iter().map(|module| module.join("::")).collect();
            let path = circle.first().and_then(|module| modules.get(*module)).map_or("", |file| &file.path);
            let what = format!(
                "imports go in a circle: {} (rule 11): move what they share into a file of its own",
                names.join(" -> ")
            );
            found.push(Finding::new(path, 1, what));
        }
    }
    found
}

/// The crate's source folder and the module of a file.
fn place(path: &str) -> Option<(&str, Module)> {
    let (root, within) = path.split_once("/src/")?;
    let mut parts: Module = within.strip_suffix(".rs")?.split('/').map(str::to_owned).collect();
    if parts.first().is_some_and(|first| first == "bin") {
        return None;
    }
    if parts.last().is_some_and(|last| last == "mod") || matches!(within, "lib.rs" | "main.rs") {
        parts.pop();
    }
    Some((root, parts))
}

/// The modules that a file imports, but those it stands below and those below it.
fn imports_of<'a>(
    module: &Module,
    file: &File,
    modules: &'a BTreeMap<Module, &File>,
) -> BTreeSet<&'a Module> {
    let code = masked::code(&file.text);
    let tests = masked::test_ranges(&code);
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("::") {
        if tests.iter().any(|range| range.contains(&at)) {
            continue;
        }
        let begin =
            code[..at].rfind(|c: char| !c.is_ascii_alphanumeric() && c != '_').map_or(0, |end| end + 1);
        if !matches!(&code[begin..at], "crate" | "super") || code[..begin].ends_with("::") {
            continue;
        }
        for path in expand(&code[begin..]) {
            if let Some(target) = resolve(module, &path, modules)
                && !module.starts_with(target)
                && !target.starts_with(module)
            {
                found.insert(target);
            }
        }
    }
    found
}

/// The paths that begin at the start of `text`: one, or those of a `use` tree.
fn expand(text: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    expand_into(text, &[], &mut paths);
    paths
}

/// Answers how many bytes of `text` belong to the path.
fn expand_into(text: &str, before: &[String], paths: &mut Vec<Vec<String>>) -> usize {
    let mut path = before.to_vec();
    let mut at = text.len() - text.trim_start().len();
    loop {
        let rest = &text[at..];
        if rest.starts_with('{') {
            let mut inner = 1;
            while at + inner < text.len() && !text[at + inner..].starts_with('}') {
                inner += expand_into(&text[at + inner..], &path, paths).max(1);
                // What follows a path within the braces: ` as x`, a comma, blanks.
                let skip = text[at + inner..].find([',', '}', '{']).unwrap_or(0);
                inner += skip + usize::from(text[at + inner + skip..].starts_with(','));
            }
            return at + inner + 1;
        }
        let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        if length == 0 {
            paths.push(path);
            return at;
        }
        path.push(rest[..length].to_owned());
        at += length;
        if !text[at..].starts_with("::") {
            paths.push(path);
            return at;
        }
        at += 2;
    }
}

fn resolve<'a>(from: &Module, path: &[String], modules: &'a BTreeMap<Module, &File>) -> Option<&'a Module> {
    let supers = path.iter().take_while(|part| *part == "super").count();
    let mut target: Module = match supers {
        0 => Vec::new(),
        some => from[..from.len().checked_sub(some)?].to_vec(),
    };
    for part in path.iter().skip(supers.max(1)) {
        target.push(part.clone());
        if !modules.contains_key(&target) {
            target.pop();
            break;
        }
    }
    modules.get_key_value(&target).map(|(module, _)| module)
}

/// One circle of each knot, as the modules along it.
fn circles<'a>(imports: &BTreeMap<&'a Module, BTreeSet<&'a Module>>) -> Vec<Vec<&'a Module>> {
    let mut found: Vec<Vec<&Module>> = Vec::new();
    let mut done = BTreeSet::new();
    for start in imports.keys() {
        walk(start, imports, &mut Vec::new(), &mut done, &mut found);
    }
    found
}

fn walk<'a>(
    at: &'a Module,
    imports: &BTreeMap<&'a Module, BTreeSet<&'a Module>>,
    path: &mut Vec<&'a Module>,
    done: &mut BTreeSet<&'a Module>,
    found: &mut Vec<Vec<&'a Module>>,
) {
    if let Some(begin) = path.iter().position(|seen| *seen == at) {
        found.push(path[begin..].to_vec());
        return;
    }
    if done.contains(at) {
        return;
    }
    path.push(at);
    for next in imports.get(at).into_iter().flatten() {
        walk(next, imports, path, done, found);
    }
    path.pop();
    done.insert(at);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(path: &str, text: &str) -> usize {
        second_homes(&[File::new(path, text)]).len()
    }

    #[test]
    fn every_second_home_is_found_and_the_first_is_not() {
        for home in HOMES {
            for sign in home.signs {
                let text = format!("fn f() {{ x({sign}); }}\n");
                assert_eq!(second("modules/x/src/actor.rs", &text), 1, "{sign}");
                for (first, _) in home.homes.iter().take(1) {
                    let first =
                        if first.ends_with('/') { format!("{first}x.rs") } else { (*first).to_owned() };
                    assert_eq!(second(&first, &text), 0, "{sign}");
                }
                let test = format!("// {sign}\n#[cfg(test)]\nmod tests {{ {text} }}\n");
                assert_eq!(second("modules/x/src/actor.rs", &test), 0, "{sign}");
                assert_eq!(second("modules/x/tests/y.rs", &text), 0, "{sign}");
            }
        }
    }

    #[test]
    fn a_key_by_any_other_name_is_found() {
        let keys = [
            "pub struct Who { pub namespace: String, pub name: String }",
            "struct K {\n  resource: String,\n  namespace: A,\n  name: B,\n}",
        ];
        for text in keys {
            assert_eq!(second("modules/x/src/plan.rs", text), 1, "{text}");
            for (home, _) in KEYS_IN {
                assert_eq!(second(&format!("{home}key.rs"), text), 0, "{text}");
            }
        }
        for text in [
            "struct Pod { namespace: String, name: String, uid: String }",
            "struct N { name: String }",
            "struct U;",
        ] {
            assert_eq!(second("modules/x/src/plan.rs", text), 0, "{text}");
        }
    }

    fn circle_in(files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<File> = files.iter().map(|(path, text)| File::new(path, text)).collect();
        import_circles(&files).into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn a_circle_is_found_however_it_is_written() {
        let lib = ("modules/x/src/lib.rs", "mod a; mod b; mod c;");
        let straight = [
            lib,
            ("modules/x/src/a.rs", "use crate::b::B;"),
            ("modules/x/src/b.rs", "use crate::c;"),
            ("modules/x/src/c.rs", ""),
        ];
        assert!(circle_in(&straight).is_empty());
        for back in [
            "use super::a::A;",
            "use crate::{other::B, a::{A, Other}};",
            "fn f() { crate::a::g(); }",
            "use super::{\n    other,\n    a as other,\n};",
        ] {
            let round = [lib, straight[1], straight[2], ("modules/x/src/c.rs", back)];
            let found = circle_in(&round);
            assert!(
                found.len() == 1 && found.iter().all(|what| what.contains("a -> b -> c")),
                "{back}: {found:?}"
            );
        }
    }

    #[test]
    fn tests_parents_and_children_make_no_circle() {
        let files = [
            ("modules/x/src/lib.rs", "mod a; pub use a::A; use crate::a::deep::D;"),
            ("modules/x/src/a/mod.rs", "mod deep; use deep::D; use crate::a::deep::E;"),
            ("modules/x/src/a/deep.rs", "use super::A; use crate::X;"),
            ("modules/x/src/b.rs", "use crate::a::A;"),
            ("modules/x/src/a.rs", "#[cfg(test)]\nmod tests { use crate::b::B; }"),
        ];
        assert_eq!(circle_in(&files), [] as [String; 0]);
    }
}
