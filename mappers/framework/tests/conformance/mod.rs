//! What every mapper must do, whatever its protocol: read and write each type exactly, refuse aloud, be offline and come back,
//! survive the restarts of both sides, and pass the twin both ways.
//!
//! A mapper's test brings a device ([`Peer`]) and calls [`conforms`].
#![allow(dead_code)]

use dmi::Scalar;
use dmi::v1beta1::{Device, UpdateDeviceRequest};

use crate::edgecore::{
    EdgeCore, Mapper, ReceivedReports, desiring, device, eventually, model, modelled, property,
};

/// Types of a model, a property of each, and values that must come through unchanged, both ways.
const VALUES: [(&str, &str, &[&str]); 5] = [
    ("INT", "int", &["1", "9007199254740993", "18446744073709551615"]),
    ("FLOAT", "float", &["-0.5", "0.1", "340282350000000000000000000000000000000"]),
    ("DOUBLE", "double", &["0.1", "-2.5", "0.3333333333333333"]),
    ("STRING", "string", &["room 7", "a,b:c"]),
    ("BOOLEAN", "boolean", &["true", "false"]),
];
/// A property that can be read only, and one with a maximum of 100.
const SEEN: &str = "seen";
const LEVEL: &str = "level";

/// A device of a protocol, from the far side.
pub(crate) trait Peer {
    type Protocol: framework::Protocol;

    /// The protocol of a mapper that has just been started.
    fn protocol(&self) -> Self::Protocol;
    /// `protocol.configData`.
    fn place(&self) -> Vec<(&'static str, Scalar)>;
    /// `visitors.configData` of the properties above: `int`, `float`, `double`, `string`, `boolean`, `seen`, `level`.
    fn visitors(&self, property: &str) -> Vec<(&'static str, Scalar)>;
    /// What the device has, by its own word.
    fn has(&self, property: &str) -> String;
    /// The device gets another value from somebody else.
    fn set(&self, property: &str, value: &str);
    /// Switches the device off, or on. False: it cannot be off.
    fn switch(&self, on: bool) -> impl Future<Output = bool>;
}

/// Runs the whole suite.
pub(crate) async fn conforms(peer: &impl Peer) {
    let folder = tempfile::tempdir().unwrap();
    let edgecore = EdgeCore::at(folder.path());
    let name = framework::Protocol::name(&peer.protocol()).to_owned();
    let properties = VALUES.iter().map(|(_, property, _)| *property).chain([SEEN, LEVEL]);
    let properties = properties.map(|at| property(at, &name, &peer.visitors(at))).collect();
    let all = device("one", "all", &name, &peer.place(), properties);
    let mut level = modelled(LEVEL, "INT", "ReadWrite");
    level.maximum = "100".to_owned();
    let mut modelled_ones = vec![modelled(SEEN, "INT", "ReadOnly"), level];
    modelled_ones.extend(VALUES.iter().map(|(kind, property, _)| modelled(property, kind, "ReadWrite")));
    {
        let mut objects = edgecore.objects.lock().unwrap();
        objects.models = vec![model("all", modelled_ones)];
        objects.devices = vec![all.clone()];
    }
    edgecore.start();
    let mut mapper = Mapper::start(folder.path(), peer.protocol());

    // From the device to the cloud.
    for (_, property, values) in VALUES {
        for value in values {
            peer.set(property, value);
            edgecore.until_value("one", property, value).await;
        }
    }
    // From the cloud to the device, and back as observed.
    let mut wanted = all;
    for (_, property, values) in VALUES {
        for value in values.iter().rev() {
            wanted = desiring(wanted, property, value);
            update(&mut mapper, &wanted).await;
            let both = Some(((*value).to_owned(), (*value).to_owned()));
            edgecore.until(property, |heard| (heard.last("one", property) == both).then_some(())).await;
            assert_eq!(peer.has(property), *value, "{property} by the device's own word");
        }
    }
    // What cannot be is refused, aloud, and the device keeps what it has.
    let kept = peer.has("int");
    for (property, value, said) in [
        ("int", "seven", "`seven` is not a whole number"),
        ("int", "18446744073709551616", "is not a whole number of 64 bits"),
        ("boolean", "perhaps", "`perhaps` is not true or false"),
        (LEVEL, "101", "above the model's maximum 100"),
        (SEEN, "1", "ReadOnly"),
    ] {
        update(&mut mapper, &desiring(wanted.clone(), property, value)).await;
        edgecore.until_refusal("one", property, said).await;
    }
    assert_eq!(peer.has("int"), kept);
    update(&mut mapper, &wanted).await;

    offline_and_back(peer, &edgecore).await;
    restarts(peer, &edgecore, &folder, mapper, wanted).await;
}

async fn update(mapper: &mut Mapper, device: &Device) {
    mapper.calls.update_device(UpdateDeviceRequest { device: Some(device.clone()) }).await.unwrap();
}

async fn offline_and_back(peer: &impl Peer, edgecore: &EdgeCore) {
    if !peer.switch(false).await {
        return;
    }
    let is = |state: &str| ("one".to_owned(), state.to_owned());
    let offline = is("offline");
    let reason = |heard: &ReceivedReports| heard.reasons.get("one").cloned().flatten();
    let said = edgecore
        .until("offline", |heard| (heard.states.last() == Some(&offline)).then(|| reason(heard)).flatten());
    assert!(said.await.starts_with("the device "), "why is said with the state");
    assert!(peer.switch(true).await);
    let online = is("online");
    edgecore.until("online", |heard| (heard.states.last() == Some(&online)).then_some(())).await;
    assert_eq!(reason(&edgecore.heard()), None);
    assert!(edgecore.heard().doubles, "numbers of 64 bits are read");
    peer.set(SEEN, "77");
    edgecore.until_value("one", SEEN, "77").await;
}

async fn restarts(
    peer: &impl Peer,
    edgecore: &EdgeCore,
    folder: &tempfile::TempDir,
    mapper: Mapper,
    wanted: Device,
) {
    // The mapper ends; what is desired meanwhile is there after its next start.
    mapper.stop().await;
    let wanted = desiring(wanted, LEVEL, "42");
    edgecore.objects.lock().unwrap().devices = vec![wanted];
    peer.set(SEEN, "78");
    let mapper = Mapper::start(folder.path(), peer.protocol());
    edgecore.until_value("one", LEVEL, "42").await;
    edgecore.until_value("one", SEEN, "78").await;
    eventually("42 at the device", async || peer.has(LEVEL) == "42").await;
    // edgecore ends, and is told everything again.
    edgecore.stop().await;
    let before = edgecore.heard();
    edgecore.start();
    for (_, property, _) in VALUES {
        let count = before.count("one", property);
        edgecore
            .until("everything again", |heard| (heard.count("one", property) > count).then_some(()))
            .await;
    }
    mapper.stop().await;
}
