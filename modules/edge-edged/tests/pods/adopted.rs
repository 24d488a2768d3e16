//! Containers that KubeEdge's edged made, which is a kubelet: Edged takes them up as they are, and ends none that it does not know.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use contract::rows::{ADOPTED_PODS_FACT, IMPORTED_STORE_FACT};
use cri::v1::{ContainerFilter, ContainerState};
use cri::{Grpc, Runtime};
use edge_store::{Options, Store, Table, Write};
use serde_json::json;
use testnode::{kubelet_hash, made_by_a_kubelet};

use crate::node::{Machine, Node, SOON, WAITS, container_id, eventually, first, pod, put, run, text};

fn fact(key1: &str, key2: &str) -> Write {
    let (key1, key2) = (key1.to_owned(), key2.to_owned());
    Write::PutRow { table: Table::Facts, key1, key2, value: Vec::new() }
}

/// The containers that run, by id, with their labels.
async fn running(runtime: &dyn Runtime) -> HashMap<String, HashMap<String, String>> {
    let all = runtime.list_containers(ContainerFilter::default()).await.unwrap();
    let running = all.into_iter().filter(|one| one.state() == ContainerState::ContainerRunning);
    running.map(|one| (one.id.clone(), one.labels)).collect()
}

#[test]
fn they_go_on_with_their_ids_and_what_could_not_be_imported_runs_until_the_cloud_speaks_of_it() {
    run(async {
        let host = Machine::new("adopted");
        let runtime = Grpc::new(&host.endpoint(), &host.endpoint(), SOON).unwrap();
        let (known, lost) = (pod("known", WAITS, json!({})), pod("lost", WAITS, json!({})));
        let (known_id, lost_id) = (
            made_by_a_kubelet(&host, &runtime, &known).await,
            made_by_a_kubelet(&host, &runtime, &lost).await,
        );
        let lost_folder = host.dir().join("kubelet/pods/uid-of-lost");
        fs::create_dir_all(&lost_folder).unwrap();
        let store = Store::open(host.dir().join("edge.db"), Options::new([1; 16])).unwrap();
        store
            .commit(vec![fact(IMPORTED_STORE_FACT, ""), fact(ADOPTED_PODS_FACT, "uid-of-known")])
            .await
            .unwrap();
        put(&store, std::slice::from_ref(&known)).await;
        drop(store);

        let node = Node::start(&host);
        let status = node.until_ready("known").await;
        assert_eq!(
            (container_id(&status), first(&status)["restartCount"].as_i64()),
            (known_id.clone(), Some(0))
        );
        // Its row was damaged: it is left alone, and its folder.
        let kept = eventually(async || {
            (node.hive.inspector().report(SOON).await.counter("edged_orphans_kept") > 0).then_some(())
        });
        kept.await.expect("the pod that is not in the store is left alone");
        let both = running(node.runtime.as_ref()).await;
        assert!(both.contains_key(&known_id) && both.contains_key(&lost_id) && both.len() == 2, "{both:?}");
        assert!(lost_folder.exists());
        let is_imported = || node.store.get_row(Table::Facts, IMPORTED_STORE_FACT, "").unwrap().is_some();
        assert!(is_imported());
        node.apply(std::slice::from_ref(&lost)).await;
        let status = node.until_ready("lost").await;
        assert_eq!(
            (container_id(&status), first(&status)["restartCount"].as_i64()),
            (lost_id.clone(), Some(0))
        );
        let done = eventually(async || (!is_imported()).then_some(()));
        done.await.expect("all that runs is known");

        // An end of one is seen, and the next is Edged's, with words that a kubelet knows, too.
        node.runtime.stop_container(&known_id, Duration::ZERO).await.unwrap();
        let status = node
            .until("known", "runs again", |status| {
                first(status)["restartCount"] == 1 && first(status)["ready"] == true
            })
            .await;
        let next = node.runtime.container_status(&container_id(&status)).await.unwrap();
        let image = text(&known["spec"]["containers"][0]["image"]);
        assert_eq!(next.annotations["io.kubernetes.container.hash"], kubelet_hash("c", &image));
        assert_eq!(next.metadata.unwrap().attempt, 1);
        let sandboxes = node.runtime.list_sandboxes(Default::default()).await.unwrap();
        assert_eq!(sandboxes.len(), 2, "no sandbox was made anew");

        // They end as any others, and nothing of the move is left.
        node.forget("known").await;
        node.forget("lost").await;
        let ended = eventually(async || {
            let left = node.runtime.list_sandboxes(Default::default()).await.unwrap();
            (left.is_empty() && !lost_folder.exists()).then_some(())
        });
        ended.await.expect("nothing of them is left");
        let adopted = || node.store.list_rows(Table::Facts, Some(ADOPTED_PODS_FACT)).unwrap();
        let forgotten = eventually(async || adopted().is_empty().then_some(()));
        forgotten.await.expect("nobody needs to know whose they were");
        assert!(running(node.runtime.as_ref()).await.is_empty());
    });
}
