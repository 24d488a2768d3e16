//! A program that is an edgecore as far as an upgrade sees one: it says its version, has the store's lock, and answers at its socket.
//! `rustc` alone compiles it, with the version and what it does wrong in the environment.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

const VERSION: &str = env!("STANDIN_VERSION");
const BEHAVIOUR: &str = env!("STANDIN_BEHAVIOUR");

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--version"] if BEHAVIOUR == "mute" => loop {
            std::thread::park();
        },
        ["--version"] if BEHAVIOUR == "keadm" => println!("keadm {VERSION} (commit unknown)"),
        ["--version"] => println!("edgecore {VERSION} (commit unknown)"),
        ["--config", config] => run(Path::new(config)),
        other => panic!("{other:?}"),
    }
}

fn run(config: &Path) {
    let folder = config.parent().unwrap();
    let settings = fs::read_to_string(config).unwrap();
    let store = folder.join("edgecore.db");
    let lock = OpenOptions::new().write(true).create(true).truncate(false).open(store.with_extension("db.lock")).unwrap();
    if lock.try_lock().is_err() {
        eprintln!("the store is in use");
        std::process::exit(1);
    }
    // A full disk is no reason not to run.
    if let Ok(mut runs) = OpenOptions::new().create(true).append(true).open(folder.join("runs")) {
        let _ = writeln!(runs, "{VERSION}");
    }
    // What every version looks at, and SQLite does not.
    if fs::read(&store).unwrap()[POISON] == 7 {
        std::thread::sleep(std::time::Duration::from_secs(1));
        std::process::exit(4);
    }
    // Settings that keep an edgecore from the cloud, and such that it ends by.
    if settings.contains("heartbeat: 77\n") {
        std::process::exit(3);
    }
    let behaviour = if settings.contains("heartbeat: 66\n") { "unlinked" } else { BEHAVIOUR };
    match BEHAVIOUR {
        "dies" => std::process::exit(3),
        "spoils" => spoil(&store),
        "poisons" => poison(&store),
        "anew" => begin_anew(&store),
        "silent" => loop {
            std::thread::park();
        },
        _ => {}
    }
    serve(folder.join("kubelet.sock"), behaviour);
}

/// A byte of the file's head that means nothing to SQLite.
const POISON: usize = 80;

/// What the release before takes for sound, and ends by.
fn poison(store: &Path) {
    let mut bytes = fs::read(store).unwrap();
    bytes[POISON] = 7;
    fs::write(store, bytes).unwrap();
}

/// Sets the store aside, and goes on with another one, which somebody has put there.
fn begin_anew(store: &Path) {
    fs::rename(store, store.with_extension("db.broken-1")).unwrap();
    fs::rename(store.with_extension("db.anew"), store).unwrap();
}

/// What the release before cannot read.
fn spoil(store: &Path) {
    let mut bytes = fs::read(store).unwrap();
    bytes[4096..].fill(7);
    fs::write(store, bytes).unwrap();
    File::open(store).unwrap().sync_all().unwrap();
}

fn serve(socket: PathBuf, behaviour: &str) {
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).unwrap();
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
            head.push(byte[0]);
        }
        let page = match (head.starts_with(b"GET /metrics "), behaviour) {
            (false, _) => "ok".to_owned(),
            (true, "unlinked" | "spoils" | "poisons" | "anew") => event("edged_node_became_ready", 1),
            (true, "unready") => {
                event("edgehub_linked", 1) + &event("edged_node_became_ready", 2) + &event("edged_node_became_unready", 2)
            }
            (true, _) => {
                event("edgehub_linked", 2) + &event("edgehub_link_ended", 1) + &event("edged_node_became_ready", 1)
            }
        };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", page.len());
        let _ = stream.write_all((head + &page).as_bytes());
    }
}

fn event(name: &str, count: u32) -> String {
    format!("kubehive_edge_events_total{{event=\"{name}\"}} {count}\n")
}
