//! A mosquitto of the test's own.

use std::process::{Child, Command, Stdio};

use crate::edgecore::eventually;

/// It ends with this.
pub(crate) struct Mosquitto(Child);

impl Mosquitto {
    /// On that port of loopback, for everybody, or for a user with a password alone.
    pub(crate) async fn start(port: u16, login: Option<(&str, &str)>) -> Self {
        // It has read its files before it listens.
        let folder = tempfile::tempdir().unwrap();
        let (path, users) = (folder.path().join("mosquitto.conf"), folder.path().join("users"));
        let access = match login {
            Some((user, password)) => {
                let mut made = Command::new("mosquitto_passwd");
                let made = made.args(["-c", "-b"]).arg(&users).args([user, password]).output();
                assert!(made.expect("mosquitto_passwd is needed (Debian: mosquitto)").status.success());
                format!("allow_anonymous false\npassword_file {}\n", users.display())
            }
            None => "allow_anonymous true\n".to_owned(),
        };
        std::fs::write(&path, format!("user root\nlistener {port} 127.0.0.1\n{access}")).unwrap();
        let child = Command::new("mosquitto")
            .arg("-c")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto is needed (Debian: mosquitto)");
        eventually("a broker", async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok())
            .await;
        Mosquitto(child)
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
