//! Images from a registry that asks who comes.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use contract::edged::EdgedMsg;
use serde_json::{Value, json};
use testhost::{BUSYBOX, Entry, Image, Repository};

use crate::node::{
    Machine, Node, SOON, WAITS, container, container_id, deleted, eventually, first, pod, run, text,
};

const REGISTRY: &str = "registry.local:5000";
const PRIVATE: &str = "registry.local:5000/team/app:1";

fn repository(path: &str, users: &[&str]) -> Repository {
    let image = Image::busybox(BUSYBOX).unwrap();
    Repository { path: path.to_owned(), image, users: users.iter().map(|user| (*user).to_owned()).collect() }
}

fn secret(name: &str, kind: &str, key: &str, file: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "type": kind,
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-of-{name}")},
        "data": {key: STANDARD.encode(file.to_string())}})
}

/// As `kubectl create secret docker-registry --docker-server=SERVER` writes it.
fn by_kubectl(name: &str, server: &str, user: &str, password: &str) -> Value {
    let auth = STANDARD.encode(format!("{user}:{password}"));
    let entry = json!({"username": user, "password": password, "auth": auth});
    secret(name, "kubernetes.io/dockerconfigjson", ".dockerconfigjson", &json!({"auths": {server: entry}}))
}

fn pulls(name: &str, image: &str, policy: &str, secrets: &[&str]) -> Value {
    let mut main = container("c", WAITS);
    main["image"] = json!(image);
    main["imagePullPolicy"] = json!(policy);
    let secrets: Vec<Value> = secrets.iter().map(|name| json!({"name": name})).collect();
    pod(name, "", json!({"containers": [main], "imagePullSecrets": secrets}))
}

fn waits(status: &Value) -> String {
    text(&first(status)["state"]["waiting"]["reason"])
}

async fn until_told(node: &Node, pod: &str, reason: &str, part: &str) {
    let told = || node.events(pod).into_iter().any(|(own, text)| own == reason && text.contains(part));
    let found = eventually(async || told().then_some(())).await;
    assert!(found.is_some(), "{pod}: no {reason} with `{part}` in {:#?}", node.events(pod));
}

#[test]
fn pull_secrets_work_as_kubectl_and_docker_write_them() {
    run(async {
        let host = Machine::new("pullsecret");
        let registry = host.registry(REGISTRY, vec![repository("team/app", &["u:p"])]).unwrap();
        let node = Node::start(&host);
        let plain = json!({"username": "u", "password": "p"});
        let config = |server: &str| json!({"auths": {server: plain}});
        let kind = "kubernetes.io/dockerconfigjson";
        node.apply(&[
            by_kubectl("kubectl", REGISTRY, "u", "p"),
            secret("https", kind, ".dockerconfigjson", &config("https://registry.local:5000")),
            secret("path", kind, ".dockerconfigjson", &config("registry.local:5000/team")),
            secret("glob", kind, ".dockerconfigjson", &config("*.local:5000")),
            secret("v1", kind, ".dockerconfigjson", &config("https://registry.local:5000/v1/")),
            secret("older", "kubernetes.io/dockercfg", ".dockercfg", &json!({REGISTRY: plain})),
            by_kubectl("wrong", REGISTRY, "u", "stale"),
        ])
        .await;
        let names = ["kubectl", "https", "path", "glob", "v1", "older"];
        let pods: Vec<Value> = names.iter().map(|name| pulls(name, PRIVATE, "Always", &[name])).collect();
        node.apply(&pods).await;
        for name in names {
            node.until_ready(name).await;
            until_told(&node, name, "Pulling", "Pulling image \"registry.local:5000/team/app:1\"").await;
            until_told(
                &node,
                name,
                "Pulled",
                "Successfully pulled image \"registry.local:5000/team/app:1\" in ",
            )
            .await;
        }
        // One after the other, until one is right.
        let before = registry.asked().len();
        node.apply(&[pulls("several", PRIVATE, "Always", &["absent", "wrong", "kubectl"])]).await;
        node.until_ready("several").await;
        until_told(&node, "several", "FailedToRetrieveImagePullSecret", "secrets (absent)").await;
        let mut users: Vec<String> =
            registry.asked()[before..].iter().filter_map(|(_, user)| user.clone()).collect();
        // The runtime asks more than once.
        users.dedup();
        assert_eq!(users, ["u:stale", "u:p"]);
    });
}

#[test]
fn an_image_that_cannot_be_had_is_told_in_the_kubelets_words_and_comes_with_its_secret() {
    run(async {
        let host = Machine::new("pullwords");
        let private = repository("team/app", &["u:p"]);
        let registry = host.registry(REGISTRY, vec![private, repository("open/app", &[])]).unwrap();
        let node = Node::start(&host);
        node.apply(&[
            pulls("late", PRIVATE, "IfNotPresent", &["late"]),
            pulls("invalid", "registry.local:5000/Team/app", "IfNotPresent", &[]),
            pulls("never", "registry.local:5000/open/app:1", "Never", &[]),
        ])
        .await;
        // The pause follows the failure, and the newest status is the one that is there to be read.
        let failed = |status: &Value| ["ErrImagePull", "ImagePullBackOff"].contains(&waits(status).as_str());
        let status = node.until("late", "a failed pull", failed).await;
        let said = text(&first(&status)["state"]["waiting"]["message"]);
        let paused = "Back-off pulling image \"registry.local:5000/team/app:1\": ErrImagePull: ";
        let message = said.strip_prefix(paused).unwrap_or(&said);
        assert!(message.starts_with("failed to pull and unpack image"), "{message}");
        let told = "Failed to pull image \"registry.local:5000/team/app:1\": failed to pull and unpack";
        until_told(&node, "late", "Failed", told).await;
        until_told(&node, "late", "Failed", "Error: ErrImagePull").await;
        let status = node.until("late", "a pause", |status| waits(status) == "ImagePullBackOff").await;
        assert_eq!(text(&first(&status)["state"]["waiting"]["message"]), format!("{paused}{message}"));
        until_told(&node, "late", "BackOff", "Back-off pulling image \"registry.local:5000/team/app:1\"")
            .await;

        let status = node.until("invalid", "no name", |status| waits(status) == "InvalidImageName").await;
        assert_eq!(
            text(&first(&status)["state"]["waiting"]["message"]),
            "Failed to apply default image tag \"registry.local:5000/Team/app\": couldn't parse image name \"registry.local:5000/Team/app\": invalid reference format: repository name (Team/app) must be lowercase"
        );
        until_told(&node, "invalid", "InspectFailed", "Failed to apply default image tag").await;
        node.until("never", "its refusal", |status| waits(status) == "ErrImageNeverPull").await;
        let absent =
            "Container image \"registry.local:5000/open/app:1\" is not present with pull policy of Never";
        until_told(&node, "never", "ErrImageNeverPull", absent).await;

        // The pause ends when the Secret comes.
        node.apply(&[by_kubectl("late", REGISTRY, "u", "p")]).await;
        node.until_ready("late").await;
        // Present, and not for everybody: the registry is asked, and refuses.
        let before = registry.asked().len();
        node.apply(&[pulls("stranger", PRIVATE, "IfNotPresent", &[])]).await;
        node.until("stranger", "a failed pull", failed).await;
        assert!(registry.asked().len() > before);
        // Who has the Secret needs no registry.
        drop(registry);
        node.apply(&[pulls("friend", PRIVATE, "IfNotPresent", &["late"])]).await;
        node.until_ready("friend").await;
        let present = "Container image \"registry.local:5000/team/app:1\" already present on machine and can be accessed by the pod";
        until_told(&node, "friend", "Pulled", present).await;
    });
}

#[test]
fn a_container_whose_image_changes_runs_in_the_other_one() {
    run(async {
        let host = Machine::new("newimage");
        let mut other = Image::busybox("kubehive.test/other:2").unwrap();
        other.env.push("VERSION=2".to_owned());
        host.import(&other).unwrap();
        let node = Node::start(&host);
        let with = |image: &str| {
            let mut main = container("c", WAITS);
            main["image"] = json!(image);
            pod("web", "", json!({"containers": [main]}))
        };
        node.apply(&[with(BUSYBOX)]).await;
        let before = node.until_ready("web").await;
        assert!(!node.exec(&before, &["env"]).await.contains("VERSION=2"));
        // A name that is nowhere, and then the right one: neither holds the other up.
        node.apply(&[with("registry.local:5000/typo:2")]).await;
        let failed =
            |status: &Value| waits(status).starts_with("ErrImage") || waits(status) == "ImagePullBackOff";
        node.until("web", "a failed pull", failed).await;
        node.apply(&[with("kubehive.test/other:2")]).await;
        let is_other = |status: &Value| {
            first(status)["image"] == "kubehive.test/other:2" && first(status)["ready"] == true
        };
        let after = node.until("web", "the other image", is_other).await;
        assert!(node.exec(&after, &["env"]).await.contains("VERSION=2"));
        assert_eq!(first(&after)["restartCount"], 1);
        // The name stays, and another image has it by then.
        let mut newer = other;
        newer.env.push("BUILD=7".to_owned());
        host.import(&newer).unwrap();
        node.runtime.stop_container(&container_id(&after), Duration::ZERO).await.unwrap();
        let again = |status: &Value| first(status)["restartCount"] == 2 && first(status)["ready"] == true;
        let again = node.until("web", "a restart", again).await;
        assert!(node.exec(&again, &["env"]).await.contains("BUILD=7"));
    });
}

#[test]
fn a_pod_that_is_deleted_before_it_has_run_is_told_to_have_failed() {
    run(async {
        let host = Machine::new("unborn");
        let node = Node::start(&host);
        let pulls = pulls("pulls", "registry.local:5000/none:1", "IfNotPresent", &[]);
        let mut waits_for_map =
            pod("mounts", WAITS, json!({"volumes": [{"name": "v", "configMap": {"name": "none"}}]}));
        waits_for_map["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
        let fails = "trap 'exit 3' TERM; while true; do sleep 0.1; done";
        let init = pod("inits", WAITS, json!({"initContainers": [container("i", fails)]}));
        node.apply(&[pulls.clone(), waits_for_map.clone(), init.clone()]).await;
        node.until_event("pulls", "Failed", "Failed to pull image").await;
        node.until_event("mounts", "FailedMount", "none").await;
        let runs = |status: &Value| status["initContainerStatuses"][0]["state"]["running"].is_object();
        node.until("inits", "its init container", runs).await;
        node.apply(&[deleted(&pulls, 30), deleted(&waits_for_map, 30), deleted(&init, 30)]).await;
        for name in ["pulls", "mounts", "inits"] {
            node.until_gone(name).await;
            assert_eq!(node.status(name).unwrap()["phase"], "Failed", "{name}");
        }
        for name in ["pulls", "mounts"] {
            let end = first(&node.status(name).unwrap())["state"]["terminated"].clone();
            assert_eq!((&end["exitCode"], &end["reason"]), (&json!(137), &json!("ContainerStatusUnknown")));
        }
        assert!(first(&node.status("inits").unwrap())["state"]["waiting"].is_object());
    });
}

/// `ctr images import` of an image whose pull is under way, and edgecore ends before the pull does.
#[test]
fn an_image_that_is_loaded_by_hand_while_it_is_pulled_is_theirs_who_could_pull_it() {
    const FREE: &str = "registry.local:5000/team/free:1";
    run(async {
        let host = Machine::new("sideload");
        let registry = host.silent_registry(REGISTRY).unwrap();
        let node = Node::start(&host);
        node.apply(&[
            by_kubectl("own", "registry.local:5000", "u", "p"),
            by_kubectl("others", "registry.local:5000", "v", "q"),
            pulls("free", FREE, "IfNotPresent", &[]),
            pulls("owner", PRIVATE, "IfNotPresent", &["own"]),
        ])
        .await;
        let begun = node.settings.root.join("image_manager/pulling");
        let both = || std::fs::read_dir(&begun).map(Iterator::count).is_ok_and(|words| words == 2);
        eventually(async || both().then_some(())).await.expect("both pulls are under way");
        for image in [FREE, PRIVATE] {
            host.import(&Image::busybox(image).unwrap()).unwrap();
        }
        // While they are, whoever has the right to it uses what is there.
        let users = |run: &str| {
            vec![
                pulls(&format!("anybody-{run}"), FREE, "Never", &[]),
                pulls(&format!("sharer-{run}"), PRIVATE, "Never", &["own"]),
                pulls(&format!("stranger-{run}"), PRIVATE, "Never", &["others"]),
                pulls(&format!("nobody-{run}"), PRIVATE, "Never", &[]),
            ]
        };
        let check = async |node: &Node, run: &str| {
            node.apply(&users(run)).await;
            node.until_ready(&format!("anybody-{run}")).await;
            node.until_ready(&format!("sharer-{run}")).await;
            for other in ["stranger", "nobody"] {
                let refused = format!("{other}-{run}");
                node.until(&refused, "its refusal", |status| waits(status) == "ErrImageNeverPull").await;
            }
        };
        check(&node, "before").await;
        let node = node.restart(&host, async |_, _| {}).await;
        node.until_ready("free").await;
        node.until_ready("owner").await;
        check(&node, "after").await;
        drop(registry);
    });
}

/// What jobs have pulled comes from a registry that sends layers byte by byte.
#[test]
fn the_pulls_of_jobs_end_with_who_asked_and_hold_up_no_pod() {
    run(async {
        let host = Machine::new("jobpull");
        // Layers of their own: of one layer containerd has no two fetched at once.
        let slow = |name: &str| {
            let mut slow = repository(&format!("slow/{name}"), &[]);
            slow.image.entries.push(Entry::Link(format!("bin/{name}"), "busybox".to_owned()));
            slow
        };
        let names = ["a", "b", "c", "d"];
        let dripping = host.dripping_registry("slow.local:5000", names.map(slow).into()).unwrap();
        let _good = host.registry(REGISTRY, vec![repository("open/app", &[])]).unwrap();
        let node = Node::start(&host);
        let asked = names.map(|name| {
            let (edged, image) = (node.edged.clone(), format!("slow.local:5000/slow/{name}:1"));
            actix_rt::spawn(async move {
                let day = Duration::from_secs(86_400);
                edged.ask(day, |reply| EdgedMsg::PullImage { image, secret: None, reply }).await
            })
        });
        let until = async |layers: (usize, usize)| {
            let found = eventually(async || (dripping.layers() == layers).then_some(())).await;
            assert!(found.is_some(), "{:?} and no {layers:?}", dripping.layers());
        };
        until((2, 0)).await;
        node.apply(&[pulls("web", "registry.local:5000/open/app:1", "Always", &[])]).await;
        node.until_ready("web").await;
        assert_eq!(dripping.layers(), (2, 0), "two go on, and the others wait for them");
        // Whoever asked goes: those that wait begin no more, and the runtime leaves the registry.
        for ask in asked.into_iter().rev() {
            ask.abort();
        }
        until((2, 2)).await;
        let (edged, image) = (node.edged.clone(), "registry.local:5000/open/app:2".to_owned());
        let pulled = edged.ask(SOON, |reply| EdgedMsg::PullImage { image, secret: None, reply }).await;
        assert_eq!(pulled, Ok(Ok(())), "their turns are free");
        assert_eq!(dripping.layers(), (2, 2));
    });
}

#[test]
fn the_nodes_own_credentials_are_every_pods() {
    run(async {
        let host = Machine::new("pullnode");
        let registry = host.registry(REGISTRY, vec![repository("team/app", &["node:p"])]).unwrap();
        let node = Node::start(&host);
        std::fs::create_dir_all(&node.settings.root).unwrap();
        let entry = json!({"auth": STANDARD.encode("node:p")});
        let file = json!({"auths": {"registry.local:5000": entry}}).to_string();
        std::fs::write(node.settings.root.join("config.json"), file).unwrap();
        node.apply(&[pulls("one", PRIVATE, "IfNotPresent", &[])]).await;
        node.until_ready("one").await;
        drop(registry);
        node.apply(&[pulls("two", PRIVATE, "IfNotPresent", &[])]).await;
        node.until_ready("two").await;
    });
}
