//! Images that nothing uses, and instances that are dead.

use std::time::Duration;

use edge_edged::ImageCollection;
use serde_json::json;
use testhost::{BUSYBOX, Image, PAUSE};

use crate::node::{Machine, Node, WAITS, eventually, pod, run};

const EXTRA: &str = "kubehive.test/extra:1";

/// An image of its own content.
fn image(name: &str) -> Image {
    let mut image = Image::busybox(name).unwrap();
    image.env.push(format!("NAME={name}"));
    image
}

async fn tags(node: &Node) -> Vec<String> {
    let images = node.runtime.list_images().await.unwrap();
    images.into_iter().flat_map(|image| image.repo_tags).collect()
}

/// A node that begins to collect images when a pod runs: what that is made of is in use from the first look on.
async fn collecting_beside_a_pod(host: &Machine, collection: ImageCollection) -> Node {
    let node = Node::start(host);
    node.apply(&[pod("user", WAITS, json!({}))]).await;
    node.until_ready("user").await;
    assert!(tags(&node).await.contains(&EXTRA.to_owned()));
    node.stop(host).await.set(|settings| settings.image_collection = collection).start()
}

#[test]
fn images_go_when_nothing_uses_them_and_the_disk_is_full() {
    run(async {
        let host = Machine::new("imagegc");
        host.import(&image(EXTRA)).unwrap();
        // Whatever is used of the disk is too much.
        let all = ImageCollection {
            high_percent: 1,
            low_percent: 0,
            min_age: Duration::from_secs(1),
            max_age: None,
            every: Duration::from_millis(200),
        };
        let node = collecting_beside_a_pod(&host, all).await;
        let gone = async || (!tags(&node).await.contains(&EXTRA.to_owned())).then_some(());
        eventually(gone).await.expect("the image goes");
        let told = async || {
            let all = node.events("edge-1");
            all.into_iter().find(|(reason, _)| reason == "FreeDiskSpaceFailed").map(|(_, text)| text)
        };
        let text = eventually(told).await.expect("images alone don't make enough room");
        assert!(text.starts_with("Insufficient free disk space on the node's image filesystem ("), "{text}");
        let again = async || node.events("edge-1").into_iter().find(|(reason, _)| reason == "ImageGCFailed");
        eventually(again).await.expect("told from the second time on");
        // What a container or a sandbox is made of stays, however often.
        let left = tags(&node).await;
        assert!(left.contains(&BUSYBOX.to_owned()) && left.contains(&PAUSE.to_owned()), "{left:?}");
    });
}

#[test]
fn images_go_for_their_age() {
    run(async {
        let host = Machine::new("imageage");
        host.import(&image(EXTRA)).unwrap();
        let old = ImageCollection {
            high_percent: 100,
            low_percent: 80,
            min_age: Duration::ZERO,
            max_age: Some(Duration::from_millis(1500)),
            every: Duration::from_millis(200),
        };
        let node = collecting_beside_a_pod(&host, old).await;
        let gone = async || (!tags(&node).await.contains(&EXTRA.to_owned())).then_some(());
        eventually(gone).await.expect("the image goes");
        assert!(tags(&node).await.contains(&BUSYBOX.to_owned()));
        let is_of_start = |reason: &str| reason == "Starting" || reason.starts_with("Node");
        let events = node.events("edge-1");
        assert!(events.iter().all(|(reason, _)| is_of_start(reason)), "{events:?}");
    });
}

#[test]
fn as_many_dead_instances_are_kept_as_the_settings_say() {
    run(async {
        let host = Machine::new("deadkept");
        let node = Node::start_set(&host, |settings| settings.dead_kept = 2);
        node.apply(&[pod("ends", "exit 0", json!({"restartPolicy": "Always"}))]).await;
        let folder = node.settings.logs.join("default_ends_uid-of-ends/c");
        // The fourth instance begins after a pause of 20 s, and the first is then the third before it.
        let fourth = async || folder.join("3.log").exists().then_some(());
        eventually(fourth).await.expect("a fourth instance");
        let kept = async || (!folder.join("0.log").exists()).then_some(());
        eventually(kept).await.expect("the first one is gone");
        assert!(folder.join("1.log").exists() && folder.join("2.log").exists());
    });
}
