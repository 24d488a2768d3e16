//! `keadm batch` with the program itself against a real sshd on loopback: it has a port, a host key and a shadow file of its own, and a stand-in for
//! keadm on the nodes writes down what it was called with.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(30);
const PASSWORD: &str = "horse battery; $(staple) 'x'";
const TOKEN: &str = "s3cr3t.t0ken";

/// Writes its arguments, its input, where it runs and what lies there into a file of the node's name; waits until three run at once, where it is told
/// to; and looks whether the token stands in any list of processes.
const STAND_IN: &str = r#"#!/bin/sh
log=LOG
name=$(printf '%s\n' "$@" | sed -n 's/^--edgenode-name=//p')
{
  for word; do printf 'word:%s\n' "$word"; done
  printf 'input:%s\n' "$(cat)"
  printf 'folder:%s\n' "$(pwd)"
  printf 'mode:%s\n' "$(stat -c %a .)"
  printf 'file:%s\n' *
  grep -la 's3cr3t[.]t0ken' /proc/[0-9]*/cmdline 2>/dev/null | sed 's/^/shown:/'
} > "$log/$name"
mkdir "$log/at.$$"
if [ "$1" = join ]; then
  n=0
  while [ ! -e "$log/three" ] && [ $n -lt 300 ]; do
    [ "$(ls -d "$log"/at.* | wc -l)" -ge 3 ] && : > "$log/three"
    n=$((n+1)); sleep 0.1
  done
fi
ls -d "$log"/at.* | wc -l >> "$log/counts"
rmdir "$log/at.$$"
printf 'says %s\033[2J\n' "$name"
case "$1" in reset) echo 'it cannot be undone' >&2; exit 7;; esac
case "$name" in hostile) printf '\033[2JREMOTE HOST IDENTIFICATION HAS CHANGED\a\n' >&2; exit 255;; esac
"#;

struct Sshd {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn must(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

fn key(path: &Path) {
    must(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path));
}

impl Sshd {
    /// In a mount namespace of its own, where root has [`PASSWORD`].
    fn start() -> Sshd {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["host", "user", "other"] {
            key(&at(name));
        }
        std::fs::copy(at("user.pub"), at("authorized")).unwrap();
        let [port] = testhost::free_ports().unwrap();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {0}/host\nAuthorizedKeysFile {0}/authorized\nPidFile none\nUsePAM no\nStrictModes no\n\
             PermitRootLogin yes\nPasswordAuthentication yes\nMaxStartups 100\nPrintMotd no\nSubsystem sftp internal-sftp\n",
            folder.path().display()
        );
        std::fs::write(at("config"), config).unwrap();
        let hash = must(Command::new("openssl").args(["passwd", "-6", PASSWORD])).stdout;
        let hash = String::from_utf8(hash).unwrap();
        std::fs::write(
            at("shadow"),
            format!("root:{}:20000:0:99999:7:::\nsshd:*:20000:0:99999:7:::\n", hash.trim()),
        )
        .unwrap();
        let script = "mount --bind \"$1/shadow\" /etc/shadow && mount -t tmpfs none /run && mkdir -m 755 /run/sshd && exec /usr/sbin/sshd -D -e -f \"$1/config\"";
        let mut sshd = Command::new("unshare");
        sshd.args(["--mount", "--propagation", "private", "/bin/sh", "-c", script, "sh"]).arg(folder.path());
        let log = std::fs::File::create(at("sshd.log")).unwrap();
        let child = sshd.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let sshd = Sshd { child, port, folder };
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            let said = std::fs::read_to_string(sshd.at("sshd.log")).unwrap_or_default();
            assert!(begun.elapsed() < LONG, "no sshd (Debian: openssh-server; as root): {said}");
            std::thread::sleep(Duration::from_millis(20));
        }
        // Its own key, as `ssh-keyscan` writes it, and another one in its place.
        for (known, key) in [("known", "host.pub"), ("changed", "other.pub")] {
            let key = std::fs::read_to_string(sshd.at(key)).unwrap();
            std::fs::write(sshd.at(known), format!("[127.0.0.1]:{port} {key}")).unwrap();
        }
        std::fs::write(sshd.at("empty"), "").unwrap();
        std::fs::create_dir_all(sshd.at("log")).unwrap();
        std::fs::create_dir_all(sshd.at("dist/linux-amd64")).unwrap();
        std::fs::create_dir_all(sshd.at("dist/linux-arm64")).unwrap();
        for machine in ["amd64", "arm64"] {
            let keadm = sshd.at(&format!("dist/linux-{machine}/keadm"));
            std::fs::write(&keadm, STAND_IN.replace("LOG", sshd.at("log").to_str().unwrap())).unwrap();
            std::fs::set_permissions(&keadm, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        sshd
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn node(&self, name: &str, command: &str, auth: &str, more: &str) -> String {
        let port = self.port;
        format!(
            "  - nodeName: {name}\n    keadmCmd: {command}\n    ssh: {{ip: 127.0.0.1, port: {port}, username: root, auth: {auth}, {more}}}\n"
        )
    }

    fn by_key(&self) -> String {
        format!("{{type: privateKey, privateKeyAuth: {{privateKeyPath: {}}}}}", self.at("user").display())
    }

    fn known(&self, file: &str) -> String {
        format!("knownHostsFile: {}", self.at(file).display())
    }

    /// What the stand-in wrote for a node.
    fn wrote(&self, name: &str) -> String {
        std::fs::read_to_string(self.at("log").join(name)).unwrap()
    }

    fn batch(&self, nodes: &str, more: &str) -> Output {
        self.write(nodes, more);
        let mut keadm = Command::new(env!("CARGO_BIN_EXE_keadm"));
        keadm.args(["batch", "-c"]).arg(self.at("batch.yaml")).output().unwrap()
    }

    /// The file.
    fn write(&self, nodes: &str, more: &str) {
        let arguments = format!("cmdTplArgs: {{cmd: 'join -e h:1', token: {TOKEN}}}");
        let file = format!(
            "keadm:\n  offlinePackageDir: {}\n  {arguments}\nnodes:\n{nodes}{more}",
            self.at("dist").display()
        );
        std::fs::write(self.at("batch.yaml"), file).unwrap();
        std::fs::set_permissions(self.at("batch.yaml"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
    }
}

fn password(text: &str) -> String {
    format!("{{type: password, passwordAuth: {{password: \"{text}\"}}}}")
}

fn text(output: &Output) -> String {
    String::from_utf8([output.stdout.as_slice(), &output.stderr].concat()).unwrap()
}

#[test]
fn ten_nodes_join_three_at_once_and_no_word_is_changed_or_shown_on_the_way() {
    let sshd = Sshd::start();
    std::fs::create_dir(sshd.at("files")).unwrap();
    std::fs::write(sshd.at("files/a b.txt"), "x").unwrap();
    let mut nodes = String::new();
    for number in 0..10 {
        let command = format!(
            r#"'{{{{.cmd}}}} --set "labels=it''s \$HOME; \`id\` & more" "" "\\" "*" -n "a  b|c>d" --edgenode-name=edge-{number} --token={{{{.token}}}}'"#
        );
        let auth = if number % 2 == 0 { sshd.by_key() } else { password(PASSWORD) };
        let node = sshd.node(&format!("edge-{number}"), &command, &auth, &sshd.known("known"));
        writeln!(nodes, "{node}    copyFrom: {}", sshd.at("files").display()).unwrap();
    }
    let output = sshd.batch(&nodes, "maxRunNum: 3\n");
    let said = text(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("10 nodes, 3 at once") && said.ends_with("10 nodes: all are done\n"), "{said}");
    assert!(!said.contains(TOKEN) && !said.contains(PASSWORD) && !said.contains('\u{1b}'), "{said}");
    for number in 0..10 {
        let name = format!("edge-{number}");
        assert!(said.contains(&format!("[{name}] | says {name}")), "{said}");
        let wrote = sshd.wrote(&name);
        let words: Vec<&str> = wrote.lines().filter_map(|line| line.strip_prefix("word:")).collect();
        let node = format!("--edgenode-name={name}");
        assert_eq!(
            words,
            [
                "join",
                "-e",
                "h:1",
                "--set",
                "labels=it's $HOME; `id` & more",
                "",
                "\\",
                "*",
                "-n",
                "a  b|c>d",
                &node,
                "--token-file=-"
            ]
        );
        assert!(wrote.contains(&format!("input:{TOKEN}\n")), "{wrote}");
        assert!(
            wrote.contains("mode:700\n")
                && wrote.contains("file:a b.txt\n")
                && wrote.contains("file:keadm\n"),
            "{wrote}"
        );
        assert!(!wrote.contains("shown:"), "the token is in a list of processes: {wrote}");
        let folder = wrote.lines().find_map(|line| line.strip_prefix("folder:")).unwrap();
        assert!(folder.starts_with("/tmp/keadm-batch.") && !Path::new(folder).exists(), "{folder}");
    }
    assert!(sshd.at("log/three").exists(), "three never ran at once");
    let counts = std::fs::read_to_string(sshd.at("log/counts")).unwrap();
    assert!(counts.lines().all(|count| count.trim().parse::<u32>().unwrap() <= 3), "{counts}");
}

#[test]
fn each_node_that_fails_is_named_with_why_and_the_others_are_done() {
    let sshd = Sshd::start();
    let [nobodys] = testhost::free_ports().unwrap();
    let (by_key, known) = (sshd.by_key(), sshd.known("known"));
    let command = |name: &str| format!("version --edgenode-name={name}");
    let mut nodes = String::new();
    for (name, auth, more) in [
        ("good", &password(PASSWORD), &known),
        ("password", &password("wrong"), &known),
        ("changed", &password(PASSWORD), &sshd.known("changed")),
        ("unknown", &by_key, &sshd.known("empty")),
        ("unchecked", &by_key, &"insecureSkipHostKeyCheck: true".to_owned()),
    ] {
        nodes += &sshd.node(name, &command(name), auth, more);
    }
    nodes += &sshd.node("fails", "reset edge --edgenode-name=fails", &by_key, &known);
    // It ends as ssh does, with ssh's words.
    nodes += &sshd.node("hostile", &command("hostile"), &by_key, &known);
    nodes += &sshd
        .node("away", &command("away"), &by_key, &known)
        .replace(&format!("port: {}", sshd.port), &format!("port: {nobodys}"));
    nodes += &format!("{}    arch: arm64\n", sshd.node("arm", &command("arm"), &by_key, &known));
    nodes += &format!(
        "{}    keadmBinDir: {}\n",
        sshd.node("own", &command("own"), &by_key, &known),
        sshd.at("dist/linux-amd64").display()
    );
    let output = sshd.batch(&nodes, "");
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for why in [
        "10 nodes: 3 done, 7 failed:",
        "  password: 127.0.0.1 refuses the password of root: ",
        "  changed: 127.0.0.1 shows another host key than ",
        "  unknown: the host key of 127.0.0.1 is not in ",
        "  fails: keadm ends with 7: it cannot be undone",
        "  hostile: keadm ends with 255: ",
        "  away: 127.0.0.1 port ",
        "  arm: it is of amd64, and the file says arm64",
        "warning: node unchecked: its host key is not checked",
        "[good] done in",
        "[own] done in",
        "[unchecked] done in",
    ] {
        assert!(said.contains(why), "{why}\n---\n{said}");
    }
    assert!(!said.contains(PASSWORD) && !said.contains("wrong"), "{said}");
    assert!(!said.contains(['\u{1b}', '\u{7}']), "{said}");
    // Of those that showed a wrong key nobody heard a password, and nothing was run.
    assert!(
        !sshd.at("log/changed").exists() && !sshd.at("log/unknown").exists() && !sshd.at("log/arm").exists()
    );
    let left = std::fs::read_dir("/tmp").unwrap().flatten().any(|entry| {
        entry.file_name().to_string_lossy().starts_with("keadm-batch.")
            && entry.path().join("keadm").exists()
            && std::fs::read_to_string(entry.path().join("keadm"))
                .is_ok_and(|text| text.contains(sshd.at("log").to_str().unwrap()))
    });
    assert!(!left, "a folder stays on a node");
}

/// keadm itself on the other machine, and CloudCore's enrolment.
#[actix_rt::test]
async fn nodes_join_by_the_real_keadm_with_a_token_that_no_command_line_has() {
    let sshd = Sshd::start();
    let env = beehive::Env::real();
    let api = harness::StandAlone::start(&env).await;
    let cloud = harness::EnrolmentCloud::start(api.client(), &env).await;
    let token = keadm::get_token(api.client(), None, 5, keadm::TOKEN_LIFE, &env).await.unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_keadm")).parent().unwrap();
    let mut nodes = String::new();
    for name in ["edge-1", "edge-2"] {
        let folder = sshd.at(name);
        let place = |of: &str| folder.join(of).display().to_string();
        let command = format!(
            "'{{{{.cmd}}}}:10000 --certport={} --edgenode-name={name} --config={} --set=modules.edgeHub.tlsCaFile={} --set=modules.edgeHub.tlsCertFile={} \
             --set=modules.edgeHub.tlsPrivateKeyFile={} --set=database.dataSource={} -t {token}'",
            cloud.server.address.port(),
            place("edgecore.yaml"),
            place("ca.crt"),
            place("server.crt"),
            place("server.key"),
            place("store/edgecore.db"),
        );
        nodes += &sshd.node(name, &command, &sshd.by_key(), &sshd.known("known"));
        nodes += &format!("    keadmBinDir: {}\n", program.display());
    }
    sshd.write(&nodes.replace("{{.cmd}}", "join -e 127.0.0.1"), "");
    let mut batch = tokio::process::Command::new(env!("CARGO_BIN_EXE_keadm"));
    let output = batch.args(["batch", "-c"]).arg(sshd.at("batch.yaml")).output().await.unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(!said.contains(&token) && !said.contains("stands in the command line"), "{said}");
    for name in ["edge-1", "edge-2"] {
        let settings = config::edge::EdgeCore::load(&sshd.at(name).join("edgecore.yaml")).unwrap();
        assert_eq!(settings.modules.edged.hostname_override, name);
        assert!(sshd.at(name).join("server.crt").exists());
    }
    cloud.server.stop().await;
}

#[test]
fn a_file_to_begin_with_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut keadm = Command::new(env!("CARGO_BIN_EXE_keadm"));
    must(keadm.args(["batch", "gen-config"]).current_dir(folder.path()));
    let written = std::fs::read_to_string(folder.path().join("config.yaml")).unwrap();
    assert!(written.contains("maxRunNum: 5") && written.contains("privateKeyAuth"), "{written}");
    let mut without = Command::new(env!("CARGO_BIN_EXE_keadm"));
    assert_eq!(without.arg("batch").output().unwrap().status.code(), Some(2), "-c is missing");
}
