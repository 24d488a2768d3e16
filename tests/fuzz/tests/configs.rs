//! Config files: an operator's, or what a broken disk or editor has made of one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use config::cloud::CloudCore;
use config::edge::EdgeCore;
use config::{ChangedBy, EdgeUpdate};
use fuzz::{SplitMix64, endure};

const EDGE: &str = "apiVersion: edgecore.config.kubeedge.io/v1alpha2\nkind: EdgeCore\ndatabase: {dataSource: /var/lib/x.db}\n\
modules:\n  edgeHub:\n    heartbeat: 15\n    quic: {enable: true, server: '10.0.0.1:10001'}\n    websocket:\n      enable: true\n      server: 10.0.0.1:10000\n\
\x20 edged:\n    tailoredKubeletConfig:\n      evictionHard: {memory.available: 100Mi, nodefs.available: 10%}\n";
const CLOUD: &str = "apiVersion: cloudcore.config.kubeedge.io/v1alpha1\nkind: CloudCore\n\
modules:\n  cloudHub:\n    nodeLimit: 1000\n    advertiseAddress: [10.0.0.1, 10.0.0.2]\n    quic: {address: 0.0.0.0, port: 10001}\n\
\x20   https: {enable: true, port: 10002}\n";
const ODD: &str = "a: &a [1, 2]\nb: *a\n<<: {c: !!str d}\n? [x, y]\n: z\n--- # next\n- |\n  text\n- >-\n  folded\n- \"\\u0000\\x41\"\n";

/// What a parser may choke on, beyond damage.
fn bomb(random: &mut SplitMix64) -> String {
    let depth = 1 + random.below(3000);
    match random.below(7) {
        0 => "[".repeat(depth),
        1 => "{a: ".repeat(depth),
        2 => "- ".repeat(depth),
        3 => {
            // Each line is nine times the one before.
            let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
            for level in 1..1 + depth % 30 {
                let alias = vec![format!("*a{}", level - 1); 9].join(", ");
                let _ = writeln!(text, "a{level}: &a{level} [{alias}]");
            }
            text
        }
        4 => format!("kind: '{}'\n", "x".repeat(depth * 10)),
        5 => format!("modules: {{edgeHub: {{heartbeat: {}}}}}\n", "9".repeat(depth)),
        _ => (0..depth / 10).fold(String::new(), |mut text, line| {
            let _ = writeln!(text, "{}k{line}:", " ".repeat(line));
            text
        }),
    }
}

fn input(random: &mut SplitMix64) -> Vec<u8> {
    match random.below(50) {
        0 => bomb(random).into_bytes(),
        1..6 => random.bytes(300),
        6..12 => random.text(300).into_bytes(),
        _ => random.damaged(&[EDGE.as_bytes(), CLOUD.as_bytes(), ODD.as_bytes()]),
    }
}

fn load(path: &Path) {
    // Whatever is taken has been looked through for wrong values.
    let _ = EdgeCore::load(path);
    let _ = CloudCore::load(path);
}

/// What a job may name, and what it may not.
const KEYS: [&[u8]; 5] = [
    b"modules.edgeHub.heartbeat",
    b"modules.edged.tailoredKubeletConfig.evictionHard.memory\\.available",
    b"modules.edged.tailoredKubeletConfig.systemReserved.cpu",
    b"modules.edgeHub",
    b"modules.edgeHub.quic.server",
];
const VALUES: [&[u8]; 4] =
    [b"20", b"5%", br#"{"heartbeat": 20, "quic": {"server": "evil.example:1"}}"#, ODD.as_bytes()];

/// Whatever a job wants, and whatever the file is: the node is nobody else's by it.
fn update(path: &Path, random: &mut SplitMix64) {
    let mut one = |valid: &[&[u8]]| {
        let bytes = if random.below(2) == 0 { random.of(valid).to_vec() } else { random.damaged(valid) };
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let (key, value) = (one(&KEYS), one(&VALUES));
    let updated = EdgeUpdate::of_file(path, [(key.as_str(), value.as_str())], ChangedBy::Job);
    let Ok(Some(EdgeUpdate { settings: mut after, text, .. })) = updated else { return };
    let before = EdgeCore::load(path).unwrap();
    std::fs::write(path, text).unwrap();
    assert_eq!(EdgeCore::load(path).unwrap(), after);
    after.modules.edge_hub.heartbeat = before.modules.edge_hub.heartbeat;
    after.modules.edged.tailored_kubelet_config = before.modules.edged.tailored_kubelet_config.clone();
    assert_eq!(after, before, "{key:?} {value:?}");
}

#[test]
fn a_config_file_is_taken_or_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let path = folder.path().join("config.yaml");
    let mut slowest = Duration::ZERO;
    let left = endure(3, |random| {
        std::fs::write(&path, input(random)).unwrap();
        let begun = Instant::now();
        load(&path);
        update(&path, random);
        slowest = slowest.max(begun.elapsed());
    });
    println!("{} KiB are left; the slowest took {} ms", left.unwrap(), slowest.as_millis());
}

#[test]
fn the_largest_bombs_are_refused_soon() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    let repeat = |piece: &str| piece.repeat((1 << 20) / piece.len());
    let long_alias = format!("a: &a '{}'\nb: [{}]\n", "x".repeat(1000), repeat("*a, "));
    for bomb in ["[", "{a: ", "- ", "&a ", "!!x ", "? ", "'", "a: b\n", "---\n"]
        .map(repeat)
        .into_iter()
        .chain([long_alias])
    {
        std::fs::write(&path, &bomb.as_bytes()[..bomb.len().min(1 << 20)]).unwrap();
        load(&path);
    }
}
