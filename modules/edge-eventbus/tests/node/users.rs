//! Users with passwords and rights, and clients that say what they may and what they may not.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use config::edge::EventBus as Settings;
use contract::rows;
use edge_store::Store;

use super::{Node, RawClient, SOON, connect_as, publish, subscribe};

/// What only `edgecore` says (section 3.2 of the contracts), and what it would take from the cloud.
pub(crate) const EDGECORES: [&str; 13] = [
    "$hw/events/device/default/sensor-1/twin/update/delta",
    "$hw/events/device/default/sensor-1/twin/update/result",
    "$hw/events/device/default/sensor-1/twin/update/document",
    "$hw/events/device/default/sensor-1/twin/get/result",
    "$hw/events/device/default/sensor-1/twin/cloud_updated",
    "$hw/events/device/default/sensor-1/twin/edge_updated",
    "$hw/events/device/default/sensor-1/state/update/result",
    "$hw/events/device/default/sensor-1/updated",
    "$hw/events/node/edge-1/membership/updated",
    "$hw/events/node/edge-1/membership/get/result",
    "$hw/events/node/edge-1/authInfo/get/result",
    "$hw/events/connected/x",
    // Not one of the figures that are really there.
    "$SYS/broker/spoofed/connected",
];

/// Users of mosquitto_passwd 2.0.11: `plc` with `s3cret pässword`, `plc2` with `alpha`, in the older form `plc3` with `beta`.
pub(crate) const MOSQUITTOS: &str = "plc:$7$101$J+sztkJ5MvbqwC5W$UGUZDqcVOj4sK9We0X2dVki1YjbCX2KWfG8k7uys3qan7T1E9J2/7CiUlw6SfCrnclfB8oimzqeG7ra396WFKg==\n\
plc2:$7$101$SK+en7NDuaw9SQJD$f5g1D1btrcHAtFm98KRsCzRKrhDw2DdOibkp5uS9jI5+iuSkeWiWl1OG00i3OSndaOeJYP3OcfaNz8XYv7dLGQ==\n\
plc3:$6$+oLQkeWk8BBZlKIj$f83jXf1Zo3w2/jZTJ8tU/0TclFawEXswGgpGtNSFOY3r6KxIES8fG3K7ZfpuG/l2uPkbTY3EqBvR9AokkcN5Gw==\n";
pub(crate) const SECRET: &str = "s3cret pässword";

pub(crate) const WELCOME: [u8; 4] = [0x20, 2, 0, 0];
pub(crate) const UNAVAILABLE: [u8; 4] = [0x20, 2, 0, 3];
pub(crate) const BAD_PASSWORD: [u8; 4] = [0x20, 2, 0, 4];
pub(crate) const NOT_AUTHORIZED: [u8; 4] = [0x20, 2, 0, 5];

/// Files of settings, in a folder of their own.
pub(crate) struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    pub(crate) fn new() -> Files {
        Files { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// As an administrator's editor does it: whole or not at all.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let fresh = self.path("fresh");
        std::fs::write(&fresh, text).unwrap();
        std::fs::rename(fresh, self.path(name)).unwrap();
        self.path(name)
    }

    pub(crate) fn settings(&self, acl: Option<&str>) -> Settings {
        let acl_file = acl.map(|acl| self.write("acl", acl)).unwrap_or_default();
        Settings { password_file: self.write("passwords", MOSQUITTOS), acl_file, ..Settings::default() }
    }
}

/// What a CONNECT is answered.
pub(crate) async fn answer(node: &Node, bytes: &[u8]) -> Vec<u8> {
    let mut client = node.raw().await;
    client.send(bytes).await;
    client.rest().await
}

pub(crate) async fn login(node: &Node, id: &str, user: &str, password: &str) -> RawClient {
    let mut client = node.raw().await;
    client.send(&connect_as(id, user, Some(password.as_bytes()))).await;
    client.expect(&WELCOME).await;
    client
}

/// Publishes, and takes the whole handshake of the QoS.
pub(crate) async fn say(client: &mut RawClient, topic: &str, payload: &str, qos: u8, retain: bool) {
    let mut bytes = publish(topic, payload, qos, 7);
    *bytes.first_mut().unwrap() |= u8::from(retain);
    client.send(&bytes).await;
    match qos {
        0 => {}
        1 => client.expect(b"\x40\x02\x00\x07").await,
        _ => {
            client.expect(b"\x50\x02\x00\x07").await;
            client.send(b"\x62\x02\x00\x07").await;
            client.expect(b"\x70\x02\x00\x07").await;
        }
    }
}

pub(crate) async fn granted(client: &mut RawClient, filter: &str, code: u8) {
    client.send(&subscribe(filter, 0)).await;
    client.expect(&[0x90, 3, 0, 9, code]).await;
}

pub(crate) fn kept(topic: &str, payload: &str) -> Vec<u8> {
    let mut bytes = publish(topic, payload, 0, 0);
    *bytes.first_mut().unwrap() |= 1;
    bytes
}

pub(crate) async fn byte(client: &mut RawClient) -> u8 {
    let read = tokio::time::timeout(SOON, tokio::io::AsyncReadExt::read_u8(&mut client.socket)).await;
    read.unwrap().unwrap()
}

/// Publishes until the broker has read that this is forbidden now.
pub(crate) async fn until_refused(node: &Node, client: &mut RawClient, topic: &str) {
    let before = node.view().await["refusedPublishes"].as_u64().unwrap();
    let until = Instant::now() + SOON;
    while node.view().await["refusedPublishes"] == before {
        assert!(Instant::now() < until, "still allowed");
        say(client, topic, "not yet", 1, false).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The clients by which the cloud would know what is in the outbox.
pub(crate) fn sources(store: &Store) -> Vec<String> {
    let rows = store.outbox_head(usize::MAX, usize::MAX).unwrap();
    rows.iter().map(|row| rows::decode_telemetry(&row.body).unwrap().client).collect()
}
