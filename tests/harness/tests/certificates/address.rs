//! The cloud moves, and a node that was told so finds it.

use edge_hub::plan::NAMED_AFTER;
use harness::run;
use serde_json::json;

use super::{NODE, cluster, session};

#[test]
fn a_node_follows_the_cloud_to_an_address_that_it_was_told_before() {
    run(async || {
        let mut cluster = cluster(3600, 60).await;
        let names = vec!["localhost".to_owned()];
        let named = names.clone();
        cluster.reconfigure_cloud(move |settings| settings.modules.cloud_hub.dns_names = named).await;
        let mut node = cluster.node(NODE).await;
        cluster.until_ready(&node).await;
        cluster
            .until_async("the node knows it", async || session(&cluster).await["trustTaken"] == json!(true))
            .await;
        // The address in the node's settings is the cloud's no more: its certificate does not name it.
        cluster
            .reconfigure_cloud(move |settings| {
                let hub = &mut settings.modules.cloud_hub;
                (hub.advertise_address, hub.dns_names) = (vec!["127.0.0.9".to_owned()], names);
            })
            .await;
        cluster.env().sleep(NAMED_AFTER).await;
        let server = async || node.snapshot("edge-hub").await["server"].clone();
        cluster.until_async("the node is linked there", async || server().await == json!("localhost")).await;
        node.stop().await;
    });
}
