//! The machine ends: pods end in order before it, while logind waits. The bus is Debian's dbus-daemon, and what speaks on it in
//! logind's place is of a library that shares nothing with EdgeCore's own few lines.

use std::fs;
use std::io::Read as _;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use config::edge::TailoredKubeletConfig;
use rustbus::connection::Timeout;
use rustbus::{DuplexConn, MessageBuilder, MessageType, standard_messages};
use serde_json::{Value, json};
use testhost::PrivateBus;

use crate::node::{Machine, Node, WAITS, condition, container, container_id, eventually, first, pod, run};

const MANAGER: &str = "org.freedesktop.login1.Manager";

/// Somebody in logind's place: it waits as long as its configuration in `folder` says, 1 s by default.
struct FakeLogind {
    say: Sender<bool>,
    /// The other ends of the locks that it gave.
    locks: Arc<Mutex<Vec<UnixStream>>>,
}

impl FakeLogind {
    fn start(bus: &PrivateBus, folder: PathBuf) -> FakeLogind {
        let address = nix::sys::socket::UnixAddr::new(bus.socket()).unwrap();
        let mut connection = DuplexConn::connect_to_bus(address, true).unwrap();
        connection.send_hello(Timeout::Infinite).unwrap();
        for name in ["org.freedesktop.login1", "org.freedesktop.systemd1"] {
            connection.send.send_message_write_all(&standard_messages::request_name(name, 0)).unwrap();
        }
        let (say, said) = channel();
        let locks = Arc::new(Mutex::new(Vec::new()));
        let held = Arc::clone(&locks);
        thread::spawn(move || serve(connection, &said, &held, &folder));
        FakeLogind { say, locks }
    }

    fn prepare_for_shutdown(&self, begins: bool) {
        self.say.send(begins).unwrap();
    }

    /// Whether somebody has it wait.
    fn is_inhibited(&self) -> bool {
        let mut locks = self.locks.lock().unwrap();
        locks.retain_mut(|lock| {
            let mut byte = [0];
            // A lock that was let go of ends.
            !matches!(lock.read(&mut byte), Ok(0))
        });
        !locks.is_empty()
    }
}

fn delay(folder: &Path) -> u64 {
    let configured = fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|entry| {
        let text = fs::read_to_string(entry.path()).ok()?;
        text.lines().find_map(|line| line.strip_prefix("InhibitDelayMaxSec=")?.parse::<u64>().ok())
    });
    configured.max().unwrap_or(1) * 1_000_000
}

fn serve(mut connection: DuplexConn, said: &Receiver<bool>, locks: &Mutex<Vec<UnixStream>>, folder: &Path) {
    // As logind: what is configured counts once it was told to read it.
    let mut longest = delay(folder);
    loop {
        for begins in said.try_iter() {
            let mut signal = MessageBuilder::new()
                .signal(MANAGER, "PrepareForShutdown", "/org/freedesktop/login1")
                .build();
            signal.body.push_param(begins).unwrap();
            connection.send.send_message_write_all(&signal).unwrap();
        }
        let call = match connection.recv.get_next_message(Timeout::Duration(Duration::from_millis(50))) {
            Ok(message) if message.typ == MessageType::Call => message,
            Ok(_) | Err(rustbus::connection::Error::TimedOut) => continue,
            Err(_) => return,
        };
        let mut answer = call.dynheader.make_response();
        match call.dynheader.member.as_deref() {
            Some("Inhibit") => {
                let words: (String, String, String, String) = {
                    let mut parser = call.body.parser();
                    parser.get4().unwrap()
                };
                assert_eq!((words.0.as_str(), words.3.as_str()), ("shutdown", "delay"));
                let (given, kept) = UnixStream::pair().unwrap();
                kept.set_nonblocking(true).unwrap();
                answer.body.push_param(&given as &dyn AsRawFd).unwrap();
                answer.dynheader.num_fds = Some(1);
                connection.send.send_message_write_all(&answer).unwrap();
                locks.lock().unwrap().push(kept);
                continue;
            }
            Some("Get") => answer.body.push_variant(longest).unwrap(),
            Some("KillUnit") => longest = delay(folder),
            _ => {}
        }
        connection.send.send_message_write_all(&answer).unwrap();
    }
}

fn node_with(host: &Machine, bus: &PrivateBus, folder: &Path, kubelet: Value) -> Node {
    let mut configured = serde_json::to_value(TailoredKubeletConfig::default()).unwrap();
    for (key, value) in kubelet.as_object().unwrap() {
        configured[key] = value.clone();
    }
    let configured: TailoredKubeletConfig = serde_json::from_value(configured).unwrap();
    let (socket, folder) = (bus.socket().to_owned(), folder.to_owned());
    let manifests = host.dir().join("manifests");
    Node::start_set(host, |settings| {
        settings.end_by(&configured);
        settings.system_bus = socket;
        settings.logind_config = folder;
        settings.static_pods = Some(manifests);
    })
}

/// A pod that takes its time to end, and writes down when it is asked to.
fn slow(name: &str, priority: i32, folder: &Path) -> Value {
    let script = format!(
        "trap 'echo {name} >> /ends/of; sleep 1; exit 0' TERM; touch /on; while true; do sleep 0.1; done"
    );
    let mut own = pod(name, &script, json!({"priority": priority, "terminationGracePeriodSeconds": 20}));
    own["spec"]["volumes"] = json!([{"name": "ends", "hostPath": {"path": folder}}]);
    own["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "ends", "mountPath": "/ends"}]);
    own
}

#[test]
fn pods_end_in_the_order_of_their_priorities_while_logind_waits() {
    run(async {
        let host = Machine::new("shutdown");
        let bus = PrivateBus::start(host.dir()).unwrap();
        let config = host.dir().join("logind.conf.d");
        let logind = FakeLogind::start(&bus, config.clone());
        let manifests = host.dir().join("manifests");
        fs::create_dir_all(&manifests).unwrap();
        let static_pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "own"},
            "spec": {"containers": [container("c", WAITS)], "terminationGracePeriodSeconds": 2, "dnsPolicy": "Default"}});
        fs::write(manifests.join("own.json"), static_pod.to_string()).unwrap();
        let ends = host.dir().join("ends");
        fs::create_dir_all(&ends).unwrap();
        let kubelet = json!({"shutdownGracePeriod": "30s", "shutdownGracePeriodCriticalPods": "10s"});
        let node = node_with(&host, &bus, &config, kubelet);
        let inhibited = eventually(async || logind.is_inhibited().then_some(())).await;
        inhibited.expect("logind is asked to wait");
        assert_eq!(delay(&config), 30_000_000, "and for long enough");
        node.apply(&[slow("plain", 0, &ends), slow("critical", 2_000_000_000, &ends)]).await;
        for name in ["plain", "critical"] {
            let runs = node.until_ready(name).await;
            node.exec(&runs, &["sh", "-c", "until test -f /on; do sleep 0.1; done"]).await;
        }
        let running = async |name: &str| {
            let listed = node.runtime.list_containers(Default::default()).await.unwrap();
            let runs = |c: &&cri::v1::Container| {
                c.state() == cri::v1::ContainerState::ContainerRunning
                    && c.labels["io.kubernetes.pod.name"] == name
            };
            listed.iter().filter(runs).count()
        };
        eventually(async || (running("own-edge-1").await == 1).then_some(()))
            .await
            .expect("the static pod runs");

        logind.prepare_for_shutdown(true);
        let not_ready = node.until_node_is("False").await;
        let words = not_ready["status"]["conditions"].as_array().unwrap().iter();
        let ready = words.clone().find(|own| own["type"] == "Ready").unwrap();
        assert!(ready["message"].as_str().unwrap().contains("node is shutting down"), "{ready}");
        node.until_event("edge-1", "Shutdown", "Shutdown manager detected shutdown event").await;
        for name in ["plain", "critical"] {
            let ended = node.until(name, "the end", |status| status["phase"] == "Failed").await;
            assert_eq!(ended["reason"], "Terminated", "{ended:#}");
            assert_eq!(ended["message"], "Pod was terminated in response to imminent node shutdown.");
            let disrupted = condition(&ended, "DisruptionTarget");
            assert_eq!(
                (&disrupted["status"], &disrupted["reason"]),
                (&json!("True"), &json!("TerminationByKubelet"))
            );
            assert_eq!(first(&ended)["state"]["terminated"]["exitCode"], 0, "it had its grace");
        }
        assert_eq!(fs::read_to_string(ends.join("of")).unwrap(), "plain\ncritical\n");
        let released = eventually(async || (!logind.is_inhibited()).then_some(())).await;
        released.expect("logind need not wait any longer");
        node.apply(&[pod("late", WAITS, json!({}))]).await;
        let late = node.until("late", "to be refused", |status| status["phase"] == "Failed").await;
        assert_eq!(late["reason"], "NodeShutdown");
        assert!(late["message"].as_str().unwrap().contains("Pod was rejected as the node is shutting down."));

        // The machine comes up again, without a cloud: the static pod runs, what has ended has.
        let node = node.restart(&host, async |_, _| {}).await;
        let again = async || {
            let listed = node.runtime.list_containers(Default::default()).await.unwrap();
            let runs = listed.iter().filter(|c| c.state() == cri::v1::ContainerState::ContainerRunning);
            let names: Vec<&str> = runs.map(|c| c.labels["io.kubernetes.pod.name"].as_str()).collect();
            (names == ["own-edge-1"]).then_some(())
        };
        eventually(again).await.expect("the static pod runs again, and nothing else");
        node.until_node_is("True").await;
    });
}

#[test]
fn a_stop_of_edgecore_alone_ends_nothing_and_lets_logind_go() {
    run(async {
        let host = Machine::new("stops");
        let bus = PrivateBus::start(host.dir()).unwrap();
        let config = host.dir().join("logind.conf.d");
        let logind = FakeLogind::start(&bus, config.clone());
        let node = node_with(&host, &bus, &config, json!({"shutdownGracePeriod": "5s"}));
        eventually(async || logind.is_inhibited().then_some(())).await.expect("logind is asked to wait");
        let manifests = host.dir().join("manifests");
        fs::create_dir_all(&manifests).unwrap();
        let static_pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "own"},
            "spec": {"containers": [container("c", WAITS)], "terminationGracePeriodSeconds": 2, "dnsPolicy": "Default"}});
        fs::write(manifests.join("own.json"), static_pod.to_string()).unwrap();
        node.apply(&[pod("web", WAITS, json!({}))]).await;
        let before = node.until_ready("web").await;
        let stopped = node.stop(&host).await;
        let released = eventually(async || (!logind.is_inhibited()).then_some(())).await;
        released.expect("nobody holds logind up");
        let node = stopped.start();
        let after = node.until_ready("web").await;
        assert_eq!(container_id(&after), container_id(&before));
        assert_eq!(first(&after)["restartCount"], 0);
        // It begins and is called off.
        eventually(async || logind.is_inhibited().then_some(())).await.expect("logind is asked again");
        let own = async || {
            let listed = node.runtime.list_containers(Default::default()).await.unwrap();
            let runs = listed.into_iter().find(|c| {
                c.state() == cri::v1::ContainerState::ContainerRunning
                    && c.labels["io.kubernetes.pod.name"] == "own-edge-1"
            });
            runs.map(|found| found.id)
        };
        let first_own = eventually(own).await.expect("the static pod runs");
        logind.prepare_for_shutdown(true);
        node.until_node_is("False").await;
        node.until("web", "its end", |status| status["reason"] == "Terminated").await;
        let ended = async || own().await.is_none_or(|id| id != first_own).then_some(());
        eventually(ended).await.expect("the static pod ends, too");
        logind.prepare_for_shutdown(false);
        node.until_node_is("True").await;
        let again = async || own().await.filter(|id| *id != first_own);
        eventually(again).await.expect("the static pod runs again: the machine stays");
        eventually(async || logind.is_inhibited().then_some(()))
            .await
            .expect("logind waits the next time, too");
        assert_eq!(node.status("web").unwrap()["phase"], "Failed", "what has ended has ended");
    });
}
