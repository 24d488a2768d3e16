//! The archive of `keadm debug collect`, taken apart: nothing in it opens a door.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::Node;
use super::store::{WORD, fill};

fn files_of(archive: &Path) -> BTreeMap<String, String> {
    let packed = std::fs::File::open(archive).unwrap();
    let mut unpacked = tar::Archive::new(flate2::read::GzDecoder::new(packed));
    let entries = unpacked.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (entry.path().unwrap().display().to_string(), text)
    });
    entries.collect()
}

#[actix_rt::test]
async fn it_has_what_is_needed_and_no_key_no_token_and_no_secret() {
    let node = Node::with(|settings| {
        settings.modules.event_bus.mqtt_mode = 2;
        settings.modules.event_bus.mqtt_username = "u".to_owned();
    });
    fill(&node);
    let key = pki::NodeRequest::new("edge-1").unwrap().key_pem;
    std::fs::write(node.at("server.key"), &key).unwrap();
    // What a careless administrator has written, and a log that has more in it than it should.
    let mut settings = std::fs::read_to_string(&node.config).unwrap();
    settings = format!(
        "# mqttPassword: {WORD}\n{}",
        settings.replace("mqttPassword: \"\"", &format!("mqttPassword: {WORD}"))
    );
    assert_eq!(settings.matches(WORD).count(), 2, "{settings}");
    std::fs::write(&node.config, settings).unwrap();
    let token = pki::TokenKey::new(&[1; 32]).unwrap().mint(b"ca", 4_000_000_000, "id", None).unwrap();
    let log = format!(
        "node has joined\nwith {token}\nAuthorization: Bearer {WORD}\n{key}\npassword={WORD}\nthe last line\n"
    );
    std::fs::write(node.at("edgecore.log"), &log).unwrap();
    let out = node.at("out");
    let (out_path, log_path) = (out.display().to_string(), node.at("edgecore.log").display().to_string());
    let collect = ["collect", "-d", "-o", &out_path, "-l", &log_path];
    let (is_well, said) = node.debug(&collect).await;
    assert!(!is_well && said.contains("make it first"), "{said}");
    std::fs::create_dir(&out).unwrap();
    let (is_well, said) = node.debug(&collect).await;
    assert!(is_well, "{said}");
    let [archive] =
        &std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>()[..]
    else {
        panic!("one file")
    };
    assert_eq!(std::fs::metadata(archive).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(said.lines().last().unwrap().starts_with(&archive.display().to_string()), "{said}");
    let files = files_of(archive);
    let body: Vec<&str> = key.lines().filter(|line| !line.starts_with("-----")).collect();
    for (name, text) in &files {
        assert!(!text.contains(WORD), "{name}");
        assert!(!text.contains("PRIVATE KEY") && !body.iter().any(|line| text.contains(line)), "{name}");
        assert!(!text.contains(token.split('.').nth(2).unwrap()), "{name}");
        assert!(said.contains(name.split_once('/').unwrap().1), "{name} is not said");
    }
    let of = |end: &str| {
        let found = files.iter().find(|(name, _)| name.ends_with(end));
        found.map(|(_, text)| text.as_str()).unwrap_or_else(|| panic!("{end}"))
    };
    assert!(
        of("logs/edgecore.log").contains("node has joined")
            && of("logs/edgecore.log").contains("the last line")
    );
    assert!(of("/edgecore.yaml").contains("mqttUsername: u") && of("/edgecore.yaml").contains("(redacted)"));
    assert!(of("store.txt").contains("shop/login") && of("store.txt").contains("default/web"));
    assert!(of("check.txt").contains("RuntimeEndpoint") && of("diagnose.txt").contains("Registered"));
    assert!(of("runtime/runtime.txt").contains("unreachable"));
    for name in [
        "system/os-release",
        "system/mounts",
        "system/disks",
        "network/listening",
        "edgecore/metrics.txt",
        "version.txt",
    ] {
        of(name);
    }
}
