//! What a camera says by itself.

use std::time::Duration;

use dmi::Scalar;
use dmi::v1beta1::DeviceProperty;
use onvifdevice::{NAME, Onvif};

use crate::camera::{Camera, on_loopback};
use crate::edgecore::{EdgeCore, Mapper, device, eventually, model, modelled, property};

const MOTION: &str = "tns1:RuleEngine/CellMotionDetector/Motion";

struct Listening {
    edgecore: EdgeCore,
    mapper: Mapper,
    camera: Camera,
    _folder: tempfile::TempDir,
}

fn heard(name: &str, topic: &str, more: &[(&'static str, &str)]) -> DeviceProperty {
    let pairs = [("topic", topic)].into_iter().chain(more.iter().copied());
    let pairs: Vec<_> = pairs.map(|(key, value)| (key, Scalar::Text(value.to_owned()))).collect();
    // A camera waits no longer than that for something to say.
    DeviceProperty { report_cycle: 1000, ..property(name, NAME, &pairs) }
}

impl Listening {
    async fn to(modes: &str) -> Self {
        Listening::with(modes, |protocol| protocol).await
    }

    async fn with(modes: &str, changed: impl Fn(Onvif) -> Onvif) -> Self {
        let camera = Camera::odd(modes);
        let folder = tempfile::tempdir().unwrap();
        let edgecore = EdgeCore::at(folder.path());
        let properties = vec![
            heard("motion", MOTION, &[("item", "IsMotion"), ("source", r#"{"Rule": "r1"}"#)]),
            heard("other", "RuleEngine/CellMotionDetector/Motion", &[("source", r#"{"Rule": "r2"}"#)]),
            heard("relay", "Device/Trigger/Relay", &[("map", r#"{"active": true, "inactive": false}"#)]),
        ];
        {
            let mut objects = edgecore.objects.lock().unwrap();
            let kinds = ["motion", "other", "relay"].map(|name| modelled(name, "BOOLEAN", "ReadOnly"));
            objects.models = vec![model("camera", kinds.to_vec())];
            objects.devices = vec![device("door", "camera", NAME, &camera.place(), properties)];
        }
        edgecore.start();
        let mapper = Mapper::start(folder.path(), changed(on_loopback(folder.path())));
        Listening { edgecore, mapper, camera, _folder: folder }
    }

    fn say(&self, topic: &str, item: &str, value: &str, rest: &str) {
        self.camera.tell(&format!("say {topic} {item} {value} {rest}"));
    }
}

#[tokio::test]
async fn what_a_camera_says_is_told_by_topic_and_what_it_is_of() {
    let listening = Listening::to("token nat").await;
    let edgecore = &listening.edgecore;
    edgecore.until_fault("door", "motion", "no message of this `topic`").await;
    listening.say(MOTION, "IsMotion", "true", "Initialized Rule=r1");
    edgecore.until_value("door", "motion", "true").await;
    listening.say("tns1:Device/Trigger/Relay", "LogicalState", "active", "Changed RelayToken=1");
    edgecore.until_value("door", "relay", "true").await;
    listening.say(MOTION, "IsMotion", "false", "Changed Rule=r1");
    edgecore.until_value("door", "motion", "false").await;
    listening.say(MOTION, "IsMotion", "1", "Changed Rule=r2");
    edgecore.until_value("door", "other", "true").await;
    assert_eq!(edgecore.heard().last("door", "motion").unwrap().1, "false", "it is of another rule");
    listening.say(MOTION, "IsMotion", "false", "Deleted Rule=r1");
    edgecore.until_fault("door", "motion", "no more").await;
    assert_eq!(listening.camera.ask("faults"), "none");
    assert_eq!(listening.camera.ask("points"), "1");
    // A mapper that ends gives its pull point back.
    listening.mapper.stop().await;
    assert_eq!(listening.camera.ask("points"), "0");
}

#[tokio::test]
async fn a_value_that_does_not_change_is_told_again_and_one_that_was_lost_is_asked_for_anew() {
    for modes in ["token", "token norenew nosync nowait closes"] {
        let listening = Listening::to(modes).await;
        let edgecore = &listening.edgecore;
        edgecore.until_fault("door", "motion", "no message").await;
        eventually("a pull point", async || listening.camera.ask("points") == "1").await;
        listening.say(MOTION, "IsMotion", "true", "Changed Rule=r1");
        edgecore.until_value("door", "motion", "true").await;
        let before = edgecore.heard().count("door", "motion");
        edgecore.until("it again", |heard| (heard.count("door", "motion") > before).then_some(())).await;
        // The camera forgets, as after a restart of its services.
        listening.camera.tell("drop");
        eventually("a new pull point", async || listening.camera.ask("points") == "1").await;
        listening.say(MOTION, "IsMotion", "false", "Changed Rule=r1");
        edgecore.until_value("door", "motion", "false").await;
        listening.mapper.stop().await;
        assert_eq!(listening.camera.ask("faults"), "none", "{modes}");
    }
}

#[tokio::test]
async fn a_camera_that_is_away_is_offline_though_it_is_never_asked_and_says_all_again_when_it_is_back() {
    let listening = Listening::to("token").await;
    let edgecore = &listening.edgecore;
    edgecore.until_fault("door", "motion", "no message").await;
    listening.say(MOTION, "IsMotion", "true", "Changed Rule=r1");
    edgecore.until_value("door", "motion", "true").await;
    listening.camera.switch(false);
    let is = |state: &str| ("door".to_owned(), state.to_owned());
    let (offline, online) = (is("offline"), is("online"));
    edgecore.until("offline", move |heard| (heard.states.last() == Some(&offline)).then_some(())).await;
    listening.camera.switch(true);
    edgecore.until("online", move |heard| (heard.states.last() == Some(&online)).then_some(())).await;
    eventually("a pull point", async || listening.camera.ask("points") == "1").await;
    listening.say(MOTION, "IsMotion", "false", "Initialized Rule=r1");
    edgecore.until_value("door", "motion", "false").await;
    listening.mapper.stop().await;
}

#[tokio::test]
async fn a_camera_that_refuses_says_why_and_is_online() {
    let listening = Listening::to("token faulty").await;
    listening.edgecore.until_fault("door", "motion", "OutofMemory (too many)").await;
    listening.camera.tell("mode token");
    eventually("a pull point", async || listening.camera.ask("points") == "1").await;
    listening.say(MOTION, "IsMotion", "true", "Changed Rule=r1");
    listening.edgecore.until_value("door", "motion", "true").await;
    listening.mapper.stop().await;
}

#[tokio::test]
async fn a_pull_point_is_renewed_or_made_anew_where_that_is_refused() {
    // The camera's own clock decides: a point that is not renewed is none after 4 s, whatever is pulled.
    let short = |protocol: Onvif| protocol.keeping(Duration::from_secs(4));
    let listening = Listening::with("token", short).await;
    eventually("three renewals", async || listening.camera.count("Renew") >= 3).await;
    assert_eq!(listening.camera.count("CreatePullPointSubscription"), 1);
    listening.mapper.stop().await;
    let listening = Listening::with("token norenew", short).await;
    eventually("a second one", async || listening.camera.count("CreatePullPointSubscription") >= 2).await;
    eventually("and it is there", async || listening.camera.ask("points") == "1").await;
    listening.say(MOTION, "IsMotion", "true", "Changed Rule=r1");
    listening.edgecore.until_value("door", "motion", "true").await;
    listening.mapper.stop().await;
    assert_eq!(listening.camera.ask("faults"), "none");
}

#[tokio::test]
async fn a_camera_that_drops_whoever_listens_is_online_and_is_soon_left_alone_with_it() {
    for mode in ["token dropcreate", "token droppull"] {
        let listening = Listening::to(mode).await;
        let edgecore = &listening.edgecore;
        edgecore.until_fault("door", "motion", "drops whoever listens").await;
        eventually("a second try", async || listening.camera.count("CreatePullPointSubscription") >= 2).await;
        // What is wrong is told again each second.
        let before = edgecore.heard().count("door", "motion");
        edgecore.until("it again", |heard| (heard.count("door", "motion") >= before + 4).then_some(())).await;
        assert_eq!(listening.camera.count("CreatePullPointSubscription"), 2, "{mode}");
        assert_eq!(listening.camera.ask("points"), "0", "{mode}: each was given back");
        assert!(!edgecore.heard().states.iter().any(|(_, state)| state == "offline"), "{mode}");
        listening.mapper.stop().await;
        assert_eq!(listening.camera.ask("faults"), "none", "{mode}");
    }
}
