//! Rules 2 to 4: which crate may see which.

use crate::masked;
use crate::{File, Finding, Package};

/// Modules without an actor, and what they hold instead. Every module may use them.
const SHARED: [(&str, &str); 31] = [
    ("apimachinery", "keys, kinds, quantities and reasons of Kubernetes' API"),
    ("buildinfo", "which version and commit a program is of"),
    ("contract", "the words of the mailboxes"),
    ("crd", "the custom resources as types"),
    ("daemon", "how a daemon starts and ends"),
    ("elf", "the head of a program"),
    ("fairshare", "what one node may have of CloudCore"),
    ("helmchart", "what CloudCore is installed with"),
    ("httpclient", "HTTP/1.1 to peers that nobody trusts"),
    ("https", "bounded servers of HTTPS"),
    ("kubeapi", "the rules of the REST API, over a trait"),
    ("kubeconfig", "whose token a client shows"),
    ("kubeletapi", "the wire of plugins and agents on a node"),
    ("kubewatch", "caches that the cloud's controllers read"),
    ("mountinfo", "the kernel's table of mounts"),
    ("nodecalls", "HTTP over a node's byte streams, for whoever serves it"),
    ("nodechecks", "what stops a machine from being a node, pure but for the look at it"),
    ("noderegistry", "whose a Node is, and the objects where it stands"),
    ("nodeupgrade", "how a node's programs are exchanged, outside of edgecore"),
    ("otlp", "the messages of traces and metrics"),
    ("trustedfiles", "files that root trusts"),
    ("slips", "which known name was meant"),
    ("targets", "where another one's wish may lead, pure"),
    ("pki", "certificates and tokens, pure"),
    ("pkcs11key", "a key in a token, by a program of the machine's"),
    ("cri", "the container runtime's wire"),
    ("csi", "the CSI drivers' wire"),
    ("dmi", "the device mappers' wire"),
    ("edge-store", "the node's one file"),
    ("unixsocket", "sockets in folders that others write to"),
    ("unixgrpc", "gRPC on such sockets"),
];
/// Features that turn `kubeapi` from reading into writing.
const WRITING_FEATURES: [&str; 3] = ["default", "testing", "write"];
/// Features that turn `kube` from types into a client.
const CLIENT_FEATURES: [&str; 3] = ["client", "runtime", "ws"];

/// Rule 2: modules speak by messages, so that none depends on another. Tests count: what needs two modules
/// belongs to the harness.
pub fn between_modules(packages: &[Package]) -> Vec<Finding> {
    let actors: Vec<&Package> = packages.iter().filter(|package| is_actor(package)).collect();
    let mut found = Vec::new();
    for package in &actors {
        for dependency in &package.dependencies {
            if actors.iter().any(|other| other.name == dependency.name) {
                let what = format!(
                    "`{}` must not depend on the actor `{}` (rule 2): send it a message, or test both in tests/harness",
                    package.name, dependency.name
                );
                found.push(Finding::new(
                    &package.manifest,
                    package.line_of_dependency(&dependency.name),
                    what,
                ));
            }
        }
    }
    found
}

/// The other half of rule 2: what everyone may use holds no actor, so that nobody reaches one by import.
pub fn actors_in_shared(files: &[File]) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let Some((module, _)) = file.path.strip_prefix("modules/").and_then(|rest| rest.split_once("/src/"))
        else {
            continue;
        };
        if !is_on_the_shared_list(module) {
            continue;
        }
        let code = masked::code(&file.text);
        let tests = masked::test_ranges(&code);
        for (at, _) in
            code.match_indices("Actor for ").filter(|(at, _)| !tests.iter().any(|range| range.contains(at)))
        {
            let what = format!(
                "an actor in `{module}`, which every module may use (rule 2): give it a module of its own"
            );
            found.push(Finding::new(&file.path, masked::line_of(&code, at), what));
        }
    }
    found
}

/// Imports go one way: nothing that modules stand on may depend on a module, and no module on a daemon.
pub fn one_way(packages: &[Package]) -> Vec<Finding> {
    let mut found = Vec::new();
    for package in packages {
        let base = package.name == "beehive" || package.name == "config" || is_shared(package);
        for dependency in package.dependencies.iter().filter(|dependency| !dependency.only_for_tests) {
            let Some(other) = packages.iter().find(|other| other.name == dependency.name) else {
                continue;
            };
            let daemon = other.name == "cloud" || other.name == "edge";
            let upwards = (base && is_actor(other))
                || (package.name == "beehive")
                || (daemon && (base || is_actor(package)));
            if upwards {
                let what = format!(
                    "`{}` must not depend on `{}`: imports go from config and beehive up to the daemons, never down",
                    package.name, other.name
                );
                found.push(Finding::new(&package.manifest, package.line_of_dependency(&other.name), what));
            }
        }
    }
    found
}

/// Rule 3: the edge has no Kubernetes client, and the cloud neither broker nor container runtime. Followed through our
/// own crates; `crd` may bring kube's types, not its client.
pub fn sides(packages: &[Package]) -> Vec<Finding> {
    let mut found = Vec::new();
    for package in packages {
        let edge = package.name.starts_with("edge-") || package.name == "edge";
        let cloud = package.name.starts_with("cloud-") || package.name == "cloud";
        if !edge && !cloud {
            continue;
        }
        for seen in reachable(packages, package) {
            for dependency in seen.dependencies.iter().filter(|dependency| !dependency.only_for_tests) {
                let itself = seen.name == package.name;
                let forbidden = if edge {
                    is_client(&dependency.name, &dependency.features, itself)
                } else {
                    is_edge_only(&dependency.name)
                };
                if forbidden {
                    let through = if itself { String::new() } else { format!(" through `{}`", seen.name) };
                    let reason = if edge {
                        "the edge speaks to the cloud by the link alone"
                    } else {
                        "broker and container runtime belong to the edge"
                    };
                    let what = format!(
                        "`{}` must not depend on `{}`{through} (rule 3): {reason}",
                        package.name, dependency.name
                    );
                    found.push(Finding::new(&seen.manifest, seen.line_of_dependency(&dependency.name), what));
                }
            }
        }
    }
    found
}

/// Rule 4: bytes for the wire are made in `contract` alone, so that golden files can hold them all.
pub fn wire_codec(packages: &[Package], files: &[File]) -> Vec<Finding> {
    let mut found = Vec::new();
    for package in packages.iter().filter(|package| package.name != "contract") {
        for dependency in package.dependencies.iter().filter(|dependency| is_wire_codec(&dependency.name)) {
            let what = format!(
                "`{}` in `{}` (rule 4): only `contract` encodes for the wire",
                dependency.name, package.name
            );
            found.push(Finding::new(&package.manifest, package.line_of_dependency(&dependency.name), what));
        }
    }
    for file in files.iter().filter(|file| file.is_rust() && !file.path.starts_with("modules/contract/")) {
        let code = masked::code(&file.text);
        for (at, _) in code.match_indices("bincode::") {
            let what = "`bincode` in code (rule 4): only `contract` encodes for the wire";
            found.push(Finding::new(&file.path, masked::line_of(&code, at), what));
        }
    }
    found
}

/// What stays in one program, by the beginning of its name, where, and why.
const CONFINED: [(&str, &str, &str); 2] = [
    ("async-opcua", "opcuadevice", "its RSA is open to measurements (RUSTSEC-2023-0071)"),
    ("rsa", "opcuadevice", "it is open to measurements (RUSTSEC-2023-0071)"),
];

/// Dependencies that only one program may have, and programs that would have them through it.
pub fn confined(packages: &[Package]) -> Vec<Finding> {
    let mut found = Vec::new();
    for package in packages {
        for dependency in &package.dependencies {
            for (begins, home, reason) in CONFINED {
                let is_it = dependency.name == begins || dependency.name.starts_with(&format!("{begins}-"));
                if (is_it || dependency.name == home) && package.name != home {
                    let what = format!(
                        "`{}` must not depend on `{}`: {reason}, so that it stays in `{home}`",
                        package.name, dependency.name
                    );
                    found.push(Finding::new(
                        &package.manifest,
                        package.line_of_dependency(&dependency.name),
                        what,
                    ));
                }
            }
        }
    }
    found
}

fn is_shared(package: &Package) -> bool {
    package.manifest.starts_with("modules/") && is_on_the_shared_list(&package.name)
}

fn is_on_the_shared_list(name: &str) -> bool {
    SHARED.iter().any(|(shared, _)| *shared == name)
}

fn is_actor(package: &Package) -> bool {
    package.manifest.starts_with("modules/") && !is_on_the_shared_list(&package.name)
}

fn is_client(name: &str, features: &[String], itself: bool) -> bool {
    match name {
        // The node's crates ask for nothing of kube by themselves; `crd` may ask for its types.
        "kube" => itself || features.iter().any(|feature| CLIENT_FEATURES.contains(&feature.as_str())),
        "kube-core" | "kube-derive" => itself,
        // A node serves what it has been sent, and forwards writes.
        "kubeapi" => features.iter().any(|feature| WRITING_FEATURES.contains(&feature.as_str())),
        other => other.starts_with("kube-"),
    }
}

fn is_edge_only(name: &str) -> bool {
    matches!(name, "rumqttd" | "rumqttc" | "cri" | "containerd-client" | "k8s-cri")
}

fn is_wire_codec(name: &str) -> bool {
    matches!(name, "bincode" | "wincode" | "postcard")
}

/// The package and all crates of the workspace below it.
fn reachable<'a>(packages: &'a [Package], from: &'a Package) -> Vec<&'a Package> {
    let mut seen = vec![from];
    let mut at = 0;
    while at < seen.len() {
        for dependency in seen[at].dependencies.iter().filter(|dependency| !dependency.only_for_tests) {
            let Some(next) = packages.iter().find(|package| package.name == dependency.name) else {
                continue;
            };
            if !seen.iter().any(|package| package.name == next.name) {
                seen.push(next);
            }
        }
        at += 1;
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dependency;

    fn package(name: &str, dependencies: &[&str]) -> Package {
        let folder = match name {
            "beehive" | "config" | "cloud" | "edge" => String::new(),
            _ => "modules/".to_owned(),
        };
        Package {
            name: name.to_owned(),
            manifest: format!("{folder}{name}/Cargo.toml"),
            manifest_text: dependencies.iter().map(|name| format!("{name}.workspace = true\n")).collect(),
            dependencies: dependencies
                .iter()
                .map(|name| Dependency { name: (*name).to_owned(), ..Dependency::default() })
                .collect(),
            entries: Vec::new(),
        }
    }

    fn shown(found: &[Finding]) -> Vec<String> {
        found.iter().map(|finding| format!("{}:{}", finding.path, finding.line)).collect()
    }

    #[test]
    fn an_actor_that_imports_another_is_found_at_its_line() {
        let packages = [
            package("edge-hub", &["beehive", "edge-store", "edge-metamanager"]),
            package("edge-metamanager", &["contract"]),
            package("edge-store", &[]),
        ];
        assert_eq!(shown(&between_modules(&packages)), ["modules/edge-hub/Cargo.toml:3"]);
    }

    #[test]
    fn an_actor_in_a_shared_module_is_found() {
        let bad = "use beehive::Actor;\nimpl Actor for Watch {}\n";
        let files = [
            File::new("modules/kubewatch/src/lib.rs", bad),
            File::new("modules/edge-hub/src/actor.rs", bad),
            File::new("modules/pki/src/lib.rs", "#[cfg(test)]\nmod tests { impl Actor for Probe {} }"),
        ];
        assert_eq!(shown(&actors_in_shared(&files)), ["modules/kubewatch/src/lib.rs:2"]);
    }

    #[test]
    fn an_import_downwards_is_found() {
        let packages = [
            package("beehive", &["config"]),
            package("config", &[]),
            package("contract", &["edge-hub"]),
            package("edge-hub", &["edge"]),
            package("edge", &["edge-hub", "beehive"]),
        ];
        assert_eq!(
            shown(&one_way(&packages)),
            ["beehive/Cargo.toml:1", "modules/contract/Cargo.toml:1", "modules/edge-hub/Cargo.toml:1"]
        );
    }

    #[test]
    fn a_client_on_the_edge_is_found_even_behind_another_crate() {
        let mut kubeapi = package("kubeapi", &["kube"]);
        kubeapi.dependencies[0].features = vec!["client".to_owned()];
        let crd = package("crd", &["kube"]);
        let packages = [
            kubeapi,
            crd,
            package("edge-hub", &["kubeapi"]),
            package("edge-edged", &["kube"]),
            package("edge-x", &["crd"]),
        ];
        assert_eq!(
            shown(&sides(&packages)),
            ["modules/kubeapi/Cargo.toml:1", "modules/edge-edged/Cargo.toml:1"]
        );
    }

    #[test]
    fn the_half_of_the_api_that_writes_is_found_on_the_edge() {
        let mut writes = package("edge-metaserver", &["kubeapi"]);
        writes.dependencies[0].features = vec!["write".to_owned()];
        let packages = [package("kubeapi", &[]), writes, package("edge-x", &["kubeapi"])];
        assert_eq!(shown(&sides(&packages)), ["modules/edge-metaserver/Cargo.toml:1"]);
    }

    #[test]
    fn a_broker_or_runtime_in_the_cloud_is_found() {
        let packages =
            [package("cloud-hub", &["rumqttd", "kube"]), package("cloud-x", &["cri"]), package("cri", &[])];
        assert_eq!(
            shown(&sides(&packages)),
            ["modules/cloud-hub/Cargo.toml:1", "modules/cloud-x/Cargo.toml:1"]
        );
    }

    #[test]
    fn what_stays_in_one_program_is_found_elsewhere() {
        let packages = [
            package("opcuadevice", &["async-opcua-client", "rsa"]),
            package("edge", &["rustls", "async-opcua-types"]),
            package("demo", &["opcuadevice"]),
            package("pki", &["rsa"]),
        ];
        let found = shown(&confined(&packages));
        assert!(found.iter().all(|at| !at.contains("opcuadevice/")), "{found:?}");
        for at in ["edge/Cargo.toml:2", "modules/demo/Cargo.toml:1", "modules/pki/Cargo.toml:1"] {
            assert!(found.iter().any(|found| found == at), "{at}: {found:?}");
        }
    }

    #[test]
    fn the_wire_codec_outside_contract_is_found() {
        let packages = [package("contract", &["bincode"]), package("edge-hub", &["bincode"])];
        let files = [
            File::new("modules/contract/src/wire.rs", "bincode::serialize(x)"),
            File::new("beehive/src/link/frame.rs", "// bincode::x\nlet y = bincode::serialize(x);"),
        ];
        assert_eq!(
            shown(&wire_codec(&packages, &files)),
            ["modules/edge-hub/Cargo.toml:1", "beehive/src/link/frame.rs:2"]
        );
    }
}
