//! The file of `keadm batch`: KubeEdge's fields, checked before anything is done.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::template;
use super::words;

/// 4 MiB of a file: some thousands of nodes.
const FILE_MAX: u64 = 4 << 20;
/// 10,000 nodes in one go.
const NODES_MAX: usize = 10_000;
/// 256 nodes at once: each is an ssh of its own.
const AT_ONCE_MAX: usize = 256;
/// 5 at once where nothing is said, as with KubeEdge.
const AT_ONCE: usize = 5;

/// What `keadm batch gen-config` writes.
pub(crate) const EXAMPLE: &str = include_str!("example.yaml");

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    #[serde(default)]
    keadm: WrittenKeadm,
    nodes: Vec<WrittenNode>,
    #[serde(default)]
    max_run_num: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenKeadm {
    #[serde(default)]
    download: Option<Download>,
    #[serde(default)]
    keadm_version: Option<String>,
    #[serde(default)]
    arch_group: Vec<String>,
    #[serde(default)]
    offline_package_dir: Option<PathBuf>,
    #[serde(default)]
    cmd_tpl_args: Option<BTreeMap<String, String>>,
    #[serde(default)]
    keadm_bin_dir: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Download {
    #[serde(default)]
    enable: Option<bool>,
    #[serde(default)]
    url: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenNode {
    node_name: String,
    #[serde(default)]
    arch: Option<String>,
    keadm_cmd: String,
    #[serde(default)]
    copy_from: Option<PathBuf>,
    #[serde(default)]
    keadm_bin_dir: Option<String>,
    ssh: WrittenSsh,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenSsh {
    ip: String,
    username: String,
    #[serde(default)]
    port: Option<u16>,
    auth: WrittenAuth,
    #[serde(default)]
    known_hosts_file: Option<PathBuf>,
    #[serde(default)]
    insecure_skip_host_key_check: bool,
}

/// Nothing of it is for a log.
impl std::fmt::Debug for WrittenSsh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.username, self.ip)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenAuth {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    password_auth: Option<PasswordAuth>,
    #[serde(default)]
    private_key_auth: Option<PrivateKeyAuth>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PasswordAuth {
    password: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PrivateKeyAuth {
    private_key_path: PathBuf,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) nodes: Vec<BatchNode>,
    /// How many nodes at once.
    pub(crate) at_once: usize,
    /// Where keadm lies for those that are brought one.
    pub(crate) packages: Option<Packages>,
}

/// A folder with keadm for each architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packages {
    pub(crate) folder: PathBuf,
    /// Of a package of KubeEdge's layout.
    pub(crate) version: Option<String>,
    /// Which architectures it is for; all that it has if empty.
    pub(crate) architectures: BTreeSet<String>,
}

/// One node, and what is done there.
#[derive(Debug, Clone)]
pub(crate) struct BatchNode {
    pub(crate) name: String,
    /// keadm's arguments.
    pub(crate) words: Vec<String>,
    /// The token that `join` has, which no command line shows.
    pub(crate) token: Option<String>,
    /// What it has to be, if the file says so.
    pub(crate) architecture: Option<String>,
    /// A folder of files that are brought there.
    pub(crate) copy_from: Option<PathBuf>,
    /// Where keadm lies there; `None`: it is brought.
    pub(crate) keadm_folder: Option<String>,
    pub(crate) ssh: Ssh,
}

/// How a machine is reached.
#[derive(Clone)]
pub(crate) struct Ssh {
    pub(crate) host: String,
    pub(crate) user: String,
    pub(crate) port: u16,
    pub(crate) login: Login,
    pub(crate) host_key: HostKey,
}

impl std::fmt::Debug for Ssh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{} port {}", self.user, self.host, self.port)
    }
}

#[derive(Clone)]
pub(crate) enum Login {
    Password(String),
    Key(PathBuf),
}

/// Whose word is taken for a machine's being itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HostKey {
    /// That of this user's known hosts.
    Known,
    /// That of a file.
    KnownIn(PathBuf),
    /// Nobody's.
    Unchecked,
}

/// Reads the file. Answers warnings, too.
///
/// # Errors
/// When it cannot be read, or something in it cannot be done: named with its node.
pub(crate) fn read(path: &Path) -> Result<(Batch, Vec<String>)> {
    let shown = path.display();
    let about = std::fs::metadata(path).with_context(|| format!("cannot read {shown}"))?;
    if about.len() > FILE_MAX {
        bail!("{shown} has {} bytes, and 4 MiB at the most", about.len());
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    // What is wrong may be a line with a password: only where it is wrong is said.
    let written: Written = serde_saphyr::from_str(&text)
        .map_err(|error| anyhow::anyhow!("{shown}: {}", without_values(&error.to_string())))?;
    let (batch, mut warnings) = checked(written, shown.to_string().as_str())?;
    let has_password =
        batch.nodes.iter().any(|node| matches!(node.ssh.login, Login::Password(_)) || node.token.is_some());
    if has_password && about.permissions().mode() & 0o077 != 0 {
        warnings.push(format!("{shown} holds passwords or tokens, and other users of this machine can read it: chmod 600 {shown}"));
    }
    Ok((batch, warnings))
}

/// The first line of what is said of wrong YAML, without the text that stands there in place of another thing.
fn without_values(said: &str) -> String {
    let line = said.lines().next().unwrap_or_default();
    match line.split_once("string \"").and_then(|(before, rest)| Some((before, rest.rsplit_once('"')?.1))) {
        Some((before, after)) => format!("{before}a string{after}"),
        None => line.to_owned(),
    }
}

fn checked(written: Written, shown: &str) -> Result<(Batch, Vec<String>)> {
    let Written { keadm, nodes, max_run_num } = written;
    if nodes.is_empty() || nodes.len() > NODES_MAX {
        bail!("{shown}: `nodes` has {} nodes, and has 1 to {NODES_MAX}", nodes.len());
    }
    // 0 is KubeEdge's way to say nothing.
    let at_once = max_run_num.filter(|number| *number > 0).unwrap_or(AT_ONCE);
    if at_once > AT_ONCE_MAX {
        bail!("{shown}: `maxRunNum` is {at_once}, and {AT_ONCE_MAX} at the most");
    }
    let arguments = keadm.cmd_tpl_args.clone().unwrap_or_default();
    let (mut names, mut read, mut warnings) = (BTreeSet::new(), Vec::new(), Vec::new());
    for node in nodes {
        let name = node.node_name.clone();
        let of = || format!("{shown}: node `{}`", name.escape_debug());
        if !names.insert(name.clone()) {
            bail!("{}: it is there twice", of());
        }
        let own = checked_node(node, &keadm, &arguments).with_context(of)?;
        if own.ssh.host_key == HostKey::Unchecked {
            warnings.push(format!(
                "node {name}: its host key is not checked (insecureSkipHostKeyCheck): whoever answers at {} is taken for it",
                own.ssh.host
            ));
        }
        read.push(own);
    }
    let brings = read.iter().any(|node| node.keadm_folder.is_none());
    let packages = if brings { Some(packages(keadm).with_context(|| shown.to_owned())?) } else { None };
    Ok((Batch { nodes: read, at_once, packages }, warnings))
}

fn packages(keadm: WrittenKeadm) -> Result<Packages> {
    let download = keadm.download.is_some_and(|own| {
        own.enable == Some(true) || (own.enable.is_none() && own.url.is_some_and(|url| !url.is_empty()))
    });
    if download {
        bail!(
            "`keadm.download` is not done here: no release is published to be downloaded. Set keadm.download.enable: false and offlinePackageDir \
             (the target/dist of `cargo dist`), or keadmBinDir where the nodes have keadm already"
        );
    }
    let Some(folder) = keadm.offline_package_dir.filter(|folder| !folder.as_os_str().is_empty()) else {
        bail!(
            "no keadm for the nodes: set keadm.offlinePackageDir (the target/dist of `cargo dist`), or keadmBinDir where the nodes have keadm already"
        );
    };
    let folder = std::path::absolute(&folder)?;
    Ok(Packages {
        folder,
        version: keadm.keadm_version.filter(|version| !version.is_empty()),
        architectures: keadm.arch_group.into_iter().collect(),
    })
}

fn checked_node(
    node: WrittenNode,
    keadm: &WrittenKeadm,
    arguments: &BTreeMap<String, String>,
) -> Result<BatchNode> {
    let WrittenNode { node_name, arch, keadm_cmd, copy_from, keadm_bin_dir, ssh } = node;
    if node_name.is_empty()
        || node_name.len() > 253
        || node_name.chars().any(|letter| letter.is_control() || letter == '/')
    {
        bail!("`nodeName` is empty, has more than 253 bytes, a `/` or a control character");
    }
    let command = template::filled(&keadm_cmd, arguments).context("`keadmCmd`")?;
    let mut words = words::read(&command).context("`keadmCmd`")?;
    if words.first().is_some_and(|first| first == "keadm") {
        bail!("`keadmCmd` begins behind `keadm`: write `{}`", words.get(1).map_or("join", String::as_str));
    }
    if words.is_empty() {
        bail!("`keadmCmd` is empty");
    }
    let token = take_token(&mut words).context("`keadmCmd`")?;
    // Where the keadm on the nodes is KubeEdge's own key for "all nodes", and the node's for itself.
    let folder = keadm_bin_dir.or_else(|| keadm.keadm_bin_dir.clone()).filter(|folder| !folder.is_empty());
    if let Some(folder) = &folder
        && (!folder.starts_with('/') || folder.chars().any(char::is_control))
    {
        bail!("`keadmBinDir` is no absolute path");
    }
    if let Some(arch) = arch.as_deref().filter(|_| !keadm.arch_group.is_empty())
        && !keadm.arch_group.iter().any(|own| own == arch)
    {
        bail!("`arch` is {}, which is not in keadm.archGroup", arch.escape_debug());
    }
    let copy_from = copy_from.filter(|folder| !folder.as_os_str().is_empty()).map(|folder| {
        let folder =
            std::fs::canonicalize(&folder).with_context(|| format!("`copyFrom` {}", folder.display()))?;
        if folder.is_dir() { Ok(folder) } else { bail!("`copyFrom` {} is no folder", folder.display()) }
    });
    Ok(BatchNode {
        name: node_name,
        words,
        token,
        architecture: arch,
        copy_from: copy_from.transpose()?,
        keadm_folder: folder,
        ssh: checked_ssh(ssh)?,
    })
}

/// Takes the token of `join` out, which is handed to keadm at its standard input: so it stands in no list of processes.
fn take_token(words: &mut Vec<String>) -> Result<Option<String>> {
    if words.first().is_none_or(|verb| verb != "join") {
        return Ok(None);
    }
    let mut token = None;
    let mut kept = Vec::new();
    let mut rest = std::mem::take(words).into_iter();
    while let Some(word) = rest.next() {
        let inline = word.strip_prefix("--token=").or_else(|| word.strip_prefix("-t=")).map(str::to_owned);
        let short = word
            .strip_prefix("-t")
            .filter(|more| !more.is_empty() && !word.starts_with("--"))
            .map(str::to_owned);
        let found = match word.as_str() {
            "--token" | "-t" => Some(rest.next().unwrap_or_default()),
            _ => inline.or(short),
        };
        match found {
            None => kept.push(word),
            Some(found) if found.is_empty() => bail!("the token is empty"),
            Some(found) => {
                if token.replace(found).is_some() {
                    bail!("there are two tokens");
                }
                kept.push("--token-file=-".to_owned());
            }
        }
    }
    *words = kept;
    Ok(token)
}

fn checked_ssh(ssh: WrittenSsh) -> Result<Ssh> {
    let WrittenSsh { ip, username, port, auth, known_hosts_file, insecure_skip_host_key_check } = ssh;
    // Neither may be taken for an option, or for more than one word.
    let fits = |text: &str, more: &str| {
        let own = |letter: char| letter.is_ascii_alphanumeric() || more.contains(letter);
        !text.is_empty() && text.len() <= 253 && !text.starts_with('-') && text.chars().all(own)
    };
    if ip.parse::<std::net::IpAddr>().is_err() && !fits(&ip, ".-") {
        bail!("`ssh.ip` is no address and no host's name: `{}`", ip.escape_debug());
    }
    if !fits(&username, "._-") {
        bail!("`ssh.username` is no user's name: `{}`", username.escape_debug());
    }
    let login = match (auth.kind.as_str(), auth.password_auth, auth.private_key_auth) {
        ("password", Some(own), _)
            if !own.password.is_empty() && !own.password.contains(['\n', '\r', '\0']) =>
        {
            Login::Password(own.password)
        }
        ("password", ..) => {
            bail!("`ssh.auth.passwordAuth.password` is missing, empty, or has more than one line")
        }
        ("privateKey", _, Some(own)) if own.private_key_path.is_file() => {
            Login::Key(std::path::absolute(own.private_key_path)?)
        }
        ("privateKey", _, Some(own)) => {
            bail!("`ssh.auth.privateKeyAuth.privateKeyPath` {} is no file", own.private_key_path.display())
        }
        ("privateKey", _, None) => bail!("`ssh.auth.privateKeyAuth` is missing"),
        (other, ..) => bail!("`ssh.auth.type` is `{}`; it is password or privateKey", other.escape_debug()),
    };
    let host_key = match (insecure_skip_host_key_check, known_hosts_file) {
        (true, None) => HostKey::Unchecked,
        (true, Some(_)) => {
            bail!("`ssh.insecureSkipHostKeyCheck` and `ssh.knownHostsFile` do not go together")
        }
        (false, None) => HostKey::Known,
        (false, Some(file)) if file.is_file() => HostKey::KnownIn(std::path::absolute(file)?),
        (false, Some(file)) => bail!("`ssh.knownHostsFile` {} is no file", file.display()),
    };
    Ok(Ssh { host: ip, user: username, port: port.unwrap_or(22), login, host_key })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "keadm: {keadmBinDir: /usr/local/bin, cmdTplArgs: {cmd: 'join -e h:1', token: abc.def}}\nnodes:\n";

    fn node(name: &str, command: &str, more: &str) -> String {
        format!(
            "- {{nodeName: {name}, keadmCmd: '{command}', ssh: {{ip: 192.0.2.1, username: root, auth: {{type: password, passwordAuth: {{password: x y}}}}{more}}}}}\n"
        )
    }

    fn of(text: &str) -> Result<(Batch, Vec<String>), String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("batch.yaml");
        std::fs::write(&path, text).unwrap();
        read(&path).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_file_of_kubeedges_is_read_and_the_token_leaves_the_command() {
        let text = format!(
            "{HEAD}{}{}maxRunNum: 3\n",
            node("a", "{{.cmd}} -i a --token={{.token}}", ""),
            node("b", "reset edge --force", ", port: 2222")
        );
        let (batch, warnings) = of(&text).unwrap();
        assert_eq!((batch.nodes.len(), batch.at_once, &batch.packages), (2, 3, &None));
        let [a, b] = &batch.nodes[..] else { panic!() };
        assert_eq!(a.words, ["join", "-e", "h:1", "-i", "a", "--token-file=-"]);
        assert_eq!((a.token.as_deref(), a.ssh.port, &a.ssh.host_key), (Some("abc.def"), 22, &HostKey::Known));
        assert_eq!((b.words.len(), b.token.as_deref(), b.ssh.port), (3, None, 2222));
        assert!(warnings.iter().any(|own| own.contains("chmod 600")), "{warnings:?}");
        let shown = format!("{batch:?}");
        assert!(!shown.contains("x y"), "no password: {shown}");
    }

    #[test]
    fn what_cannot_be_done_is_named_before_anything_is_done() {
        let one = |command: &str, more: &str| of(&format!("{HEAD}{}", node("a", command, more))).unwrap_err();
        for (error, said) in [
            (one("{{.x}}", ""), "node `a`: `keadmCmd`: keadm.cmdTplArgs has no `x`"),
            (one("join; reboot", ""), "meant for a shell"),
            (one("keadm join", ""), "begins behind `keadm`"),
            (one("join --token a -t b", ""), "two tokens"),
            (one("join", ", insecureSkipHostKeyCheck: true, knownHostsFile: /x"), "do not go together"),
            (one("join", ", shell: sh"), "unknown field"),
            (
                of(&format!("{HEAD}{}{}", node("a", "join", ""), node("a", "join", ""))).unwrap_err(),
                "it is there twice",
            ),
            (
                of(&format!("{HEAD}{}maxRunNum: 1000\n", node("a", "join", ""))).unwrap_err(),
                "256 at the most",
            ),
            (of(&format!("nodes:\n{}", node("a", "join", ""))).unwrap_err(), "no keadm for the nodes"),
            (
                of(&format!(
                    "keadm: {{download: {{enable: true}}, offlinePackageDir: /x}}\nnodes:\n{}",
                    node("a", "join", "")
                ))
                .unwrap_err(),
                "no release is published",
            ),
            (of("nodes: []\n").unwrap_err(), "1 to 10000"),
        ] {
            assert!(error.contains(said), "{error} / {said}");
        }
        for (from, to, said) in [
            ("192.0.2.1", "'-oProxyCommand=x'", "no address"),
            ("username: root", "username: '-x'", "no user's name"),
            ("type: password", "type: agent", "password or privateKey"),
            ("password: x y", "password: ''", "missing, empty"),
        ] {
            let error = of(&format!("{HEAD}{}", node("a", "join", "").replace(from, to))).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        let misplaced = node("a", "join", "").replace("{password: x y}", "hunter2");
        let wrong = of(&format!("{HEAD}{misplaced}")).unwrap_err();
        assert!(!wrong.contains("hunter2"), "{wrong}");
    }

    #[test]
    fn the_example_is_a_file_but_for_what_has_to_be_written() {
        let error = of(EXAMPLE).unwrap_err();
        assert!(error.contains("ssh.ip") || error.contains("keadmCmd"), "{error}");
        let (batch, _) = of(&EXAMPLE
            .replace("ip: \"\"", "ip: 192.0.2.1")
            .replace("password: \"\"", "password: x")
            .replace("token: \"\"", "token: t"))
        .unwrap();
        assert_eq!(batch.nodes[0].words[0], "join");
    }
}
