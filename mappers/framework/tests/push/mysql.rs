//! `dbMethod.mysql`, against MariaDB.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use dmi::v1beta1::{DbMethod, DbMethodMySql, MySqlClientConfig, PushMethod};

use crate::edgecore::eventually;
use crate::pushing::{Database, LARGE, Pushing, comes_after_cuts, device, distinct};

struct Server {
    port: u16,
    folder: tempfile::TempDir,
    child: Child,
}

impl Server {
    /// With a database `plant` and a user `pump`.
    async fn start() -> Self {
        let [port] = testhost::free_ports().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let made = Command::new("mariadb-install-db")
            .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
            .arg(format!("--datadir={}", folder.path().join("data").display()))
            .env("TMPDIR", folder.path())
            .output()
            .expect("mariadb-install-db is needed (Debian: mariadb-server)");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let child = run(port, &folder);
        let mut server = Server { port, folder, child };
        server.is_up().await;
        server.ask("CREATE DATABASE plant CHARACTER SET utf8mb4");
        server.ask("CREATE USER 'pump'@'%' IDENTIFIED BY 'pass''word'");
        server.ask("GRANT ALL ON plant.* TO 'pump'@'%'");
        server
    }

    async fn is_up(&mut self) {
        eventually("mariadbd", async || self.ask("SELECT 1").trim() == "1").await;
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn ask(&self, sql: &str) -> String {
        let output = Command::new("mariadb")
            .args(["--no-defaults", "-u", "root", "-N", "-r", "--default-character-set=utf8mb4", "-e", sql])
            .arg(format!("--socket={}", self.socket().display()))
            .output()
            .expect("mariadb is needed (Debian: mariadb-client)");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Database for Server {
    fn stop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    async fn again(&mut self) {
        self.child = run(self.port, &self.folder);
        self.is_up().await;
    }

    fn values(&self, property: &str) -> Vec<String> {
        let table = format!("plant.`default/one/{property}`");
        let said = self.ask(&format!("SELECT HEX(field) FROM {table} ORDER BY id"));
        let text = |hex: &str| {
            let bytes: Vec<u8> = (0..hex.len() / 2)
                .map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).unwrap())
                .collect();
            String::from_utf8(bytes).unwrap()
        };
        distinct(said.lines().map(text))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(port: u16, folder: &tempfile::TempDir) -> Child {
    let at = |name: &str| folder.path().join(name).display().to_string();
    Command::new("mariadbd")
        .args(["--no-defaults", "--user=root", "--bind-address=127.0.0.1", "--skip-name-resolve"])
        .args([
            format!("--port={port}"),
            format!("--datadir={}", at("data")),
            format!("--socket={}", at("socket")),
        ])
        .arg(format!("--pid-file={}", at("pid")))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("mariadbd is needed (Debian: mariadb-server)")
}

fn to(port: u16, database: &str) -> Option<PushMethod> {
    let config = MySqlClientConfig {
        addr: format!("127.0.0.1:{port}"),
        database: database.to_owned(),
        user_name: "pump".to_owned(),
    };
    let mysql = DbMethodMySql { mysql_client_config: Some(config) };
    let database = DbMethod { mysql: Some(mysql), ..Default::default() };
    Some(PushMethod { db_method: Some(database), ..Default::default() })
}

#[tokio::test]
async fn readings_are_rows_of_a_propertys_table_and_no_text_is_sql() {
    let server = Server::start().await;
    let mut pushing = Pushing::start(device(to(server.port, "plant"), to(server.port, "plant"))).await;
    let strange = "x'); DROP DATABASE plant; -- \\' \"\n\t\u{fc}🐝";
    pushing.level(LARGE).await;
    pushing.label(strange).await;
    pushing.level(9).await;
    eventually("the last ones", async || {
        server.values("level").last().is_some_and(|last| last == "9")
            && server.values("label").last().is_some_and(|last| last == strange)
    })
    .await;
    assert_eq!(server.values("level"), ["7", "9007199254740993", "9"]);
    let row = server.ask("SELECT ts FROM plant.`default/one/level` LIMIT 1");
    assert_eq!(row.trim().len(), "2006-01-02 15:04:05".len(), "{row}");
    // What no column holds is refused and said, and the next one goes.
    server.ask("ALTER TABLE plant.`default/one/label` MODIFY field VARCHAR(40)");
    let long = "long ".repeat(20);
    pushing.label(&long).await;
    pushing.until_said("label", "Data too long").await;
    pushing.label("short").await;
    eventually("the next one", async || server.values("label").last().is_some_and(|last| last == "short"))
        .await;
    pushing.until_well("label").await;
    pushing.update(device(to(server.port, "another"), None)).await;
    pushing.until_said("level", "Access denied").await;
    let said = pushing.edgecore.heard().fault("one", "level").unwrap();
    assert!(!said.contains("pass'word"), "{said}");
    pushing.mapper.stop().await;
}

#[tokio::test]
async fn what_waits_for_a_server_that_is_away_comes_in_order_and_its_restart_heals() {
    let mut server = Server::start().await;
    let pushing = comes_after_cuts(&mut server, |server| to(server.port, "plant")).await;
    // A table that somebody has dropped is made anew.
    server.ask("DROP TABLE plant.`default/one/level`");
    pushing.level(11).await;
    eventually("in a new table", async || server.values("level").contains(&"11".to_owned())).await;
    pushing.mapper.stop().await;
}
