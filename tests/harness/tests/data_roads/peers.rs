//! The four ways with peers that are not ours: curl, Python's http.server, mosquitto's clients.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use harness::{LinkTransport, run};
use serde_json::json;

use crate::fixture::{self, TOKEN, broker, endpoint, free_port, rule};

/// Writes what is posted, a line each, and answers with its length.
const SERVER: &str = r#"
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers['content-length']))
        with open(sys.argv[2], 'ab') as file:
            file.write(body + b'\n')
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'python took %d bytes' % len(body))
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()
"#;

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn output(command: &mut Command) -> String {
    let mut command = tokio::process::Command::from(std::mem::replace(command, Command::new("none")));
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn all_four_ways_serve_peers_that_are_not_ours() {
    run(async || {
        let mut cluster = fixture::cluster(LinkTransport::Quic, true).await;
        let (applications, python) = (free_port(), free_port());
        let mut node = cluster.node("edge-1").await;
        node.reconfigure(|settings| {
            settings.modules.service_bus.enable = true;
            settings.modules.service_bus.port = applications;
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        let (script, taken) = (folder.path().join("server.py"), folder.path().join("taken"));
        std::fs::File::create(&script).unwrap().write_all(SERVER.as_bytes()).unwrap();
        let mut server = Command::new("python3");
        server.arg(&script).arg(python.to_string()).arg(&taken).stdout(Stdio::null());
        let _server = Ended(server.spawn().expect("python3 is needed"));
        let lines = || std::fs::read_to_string(&taken).unwrap_or_default();

        endpoint(&cluster, "python", "servicebus", json!({"service_port": python.to_string()})).await;
        let url = json!({"resource": format!("http://127.0.0.1:{python}/")});
        rule(
            &cluster,
            "published",
            ("eventbus", json!({"topic": "t", "node_name": "edge-1"})),
            ("rest", url.clone()),
        )
        .await;
        rule(
            &cluster,
            "called",
            ("servicebus", json!({"target_url": "http://x/", "node_name": "edge-1"})),
            ("rest", url),
        )
        .await;
        rule(
            &cluster,
            "publish",
            ("rest", json!({"path": "mqtt"})),
            ("eventbus", json!({"topic": "from/cloud"})),
        )
        .await;
        rule(&cluster, "call", ("rest", json!({"path": "http"})), ("python", json!({"path": "/"}))).await;
        let mqtt = broker(&cluster, &node, 1).await.to_string();

        let mut publisher = Command::new("mosquitto_pub");
        publisher.args(["-h", "127.0.0.1", "-p", &mqtt, "-q", "1", "-t", "default/t", "-m", "by mosquitto"]);
        output(&mut publisher).await;
        cluster.until("Python has what mosquitto published", || lines().contains("by mosquitto\n")).await;

        let door = cluster.rule_door();
        let curl = |path: &str, body: &str| {
            let mut command = Command::new("curl");
            command.args(["--silent", "--fail-with-body", "--data-binary", body, "--header"]);
            command
                .arg(format!("Authorization: Bearer {TOKEN}"))
                .arg(format!("http://{door}/edge-1/default{path}"));
            command
        };
        assert_eq!(output(&mut curl("/http", "by curl")).await, "python took 7 bytes");

        let mut subscriber = Command::new("mosquitto_sub");
        subscriber.args([
            "-h",
            "127.0.0.1",
            "-p",
            &mqtt,
            "-q",
            "1",
            "-C",
            "1",
            "-t",
            "from/#",
            "-F",
            "%t %p",
        ]);
        let subscriber = subscriber.stdout(Stdio::piped()).spawn().expect("mosquitto_sub is needed");
        cluster
            .until_async("the subscriber is there", async || {
                node.snapshot("edge-eventbus").await["subscriptions"].as_u64() >= Some(1)
            })
            .await;
        assert_eq!(output(&mut curl("/mqtt/a", "to mosquitto")).await, "message delivered");
        let heard =
            tokio::task::spawn_blocking(move || subscriber.wait_with_output().unwrap()).await.unwrap();
        assert_eq!(String::from_utf8(heard.stdout).unwrap(), "from/cloud/a to mosquitto\n");

        let asked = r#"{"method":"POST","targetURL":"http://x/","payload":"by curl"}"#;
        let mut application = Command::new("curl");
        application
            .args(["--silent", "--fail", "--data-binary", asked])
            .arg(format!("http://127.0.0.1:{applications}/"));
        let said = output(&mut application).await;
        assert!(said.contains(&format!("python took {} bytes", asked.len())), "{said}");
    });
}
