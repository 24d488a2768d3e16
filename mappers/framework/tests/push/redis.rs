//! `dbMethod.redis`, against redis-server.

use std::process::{Child, Command, Stdio};

use dmi::v1beta1::{DbMethod, DbMethodRedis, PushMethod, RedisClientConfig};
use serde_json::Value as Json;

use crate::edgecore::eventually;
use crate::pushing::{Database, LARGE, Pushing, comes_after_cuts, device, distinct};

struct Server {
    port: u16,
    folder: tempfile::TempDir,
    child: Child,
}

impl Server {
    async fn start() -> Self {
        let [port] = testhost::free_ports().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let child = run(port, &folder);
        let mut server = Server { port, folder, child };
        server.is_up().await;
        server
    }

    async fn is_up(&mut self) {
        eventually("redis-server", async || self.ask(&["PING"]).trim() == "PONG").await;
    }

    fn ask(&self, command: &[&str]) -> String {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string(), "-n", "3", "--no-auth-warning"])
            .env("REDISCLI_AUTH", "pass'word")
            .args(command)
            .output()
            .expect("redis-cli is needed (Debian: redis-tools)");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What is in the sorted set of the device, in its order.
    fn members(&self) -> Vec<Json> {
        let said = self.ask(&["ZRANGE", "one", "0", "-1"]);
        said.lines()
            .filter(|line| line.starts_with('{'))
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

impl Database for Server {
    fn stop(&mut self) {
        self.ask(&["SAVE"]);
        drop(self.child.kill());
        drop(self.child.wait());
    }

    async fn again(&mut self) {
        self.child = run(self.port, &self.folder);
        self.is_up().await;
    }

    fn values(&self, property: &str) -> Vec<String> {
        let members = self.members();
        let of_it = members.iter().filter(|member| member["PropertyName"] == property);
        distinct(of_it.map(|member| member["Value"].as_str().unwrap().to_owned()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn run(port: u16, folder: &tempfile::TempDir) -> Child {
    Command::new("redis-server")
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--requirepass",
            "pass'word",
            "--save",
            "",
            "--dir",
        ])
        .arg(folder.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is needed (Debian: redis-server)")
}

fn to(port: u16, db: i32) -> Option<PushMethod> {
    let config = RedisClientConfig { addr: format!("127.0.0.1:{port}"), db, poolsize: 0, min_idle_conns: 0 };
    let redis = DbMethodRedis { redis_client_config: Some(config) };
    let database = DbMethod { redis: Some(redis), ..Default::default() };
    Some(PushMethod { db_method: Some(database), ..Default::default() })
}

#[tokio::test]
async fn readings_are_members_of_the_devices_sorted_set() {
    let server = Server::start().await;
    let mut pushing = Pushing::start(device(to(server.port, 3), to(server.port, 3))).await;
    let strange = "a\"b\\ \r\n*1\r\n$8\r\nFLUSHALL\r\n'ü";
    pushing.level(LARGE).await;
    pushing.label(strange).await;
    pushing.level(9).await;
    eventually("the last ones", async || {
        server.values("level").last().is_some_and(|last| last == "9")
            && server.values("label").last().is_some_and(|last| last == strange)
    })
    .await;
    assert_eq!(server.values("level"), ["7", "9007199254740993", "9"]);
    let member = server.members().into_iter().find(|member| member["PropertyName"] == "level").unwrap();
    assert_eq!(
        (&member["DeviceName"], &member["Namespace"], &member["Type"]),
        (&"one".into(), &"default".into(), &"int".into())
    );
    let score = server.ask(&["ZSCORE", "one", &serde_json::to_string(&member).unwrap()]);
    let stamp = member["TimeStamp"].as_u64().unwrap();
    assert!(score.trim().is_empty() || score.trim() == stamp.to_string(), "{score} {stamp}");
    pushing.update(device(to(server.port, 99), None)).await;
    pushing.until_said("level", "out of range").await;
    // A key of another type takes nothing.
    server.ask(&["DEL", "one"]);
    server.ask(&["SET", "one", "a text"]);
    pushing.update(device(to(server.port, 3), None)).await;
    pushing.until_said("level", "WRONGTYPE").await;
    server.ask(&["DEL", "one"]);
    pushing.until_well("level").await;
    pushing.mapper.stop().await;
}

#[tokio::test]
async fn what_waits_for_a_server_that_is_away_comes_in_order_and_its_restart_heals() {
    let mut server = Server::start().await;
    let pushing = comes_after_cuts(&mut server, |server| to(server.port, 3)).await;
    pushing.mapper.stop().await;
}
