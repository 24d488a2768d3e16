//! What of the chart's values stands on the command line.

use std::io::Read as _;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::kubeedge_flags::{NoKubeEdgeFlags, OfInit};

/// How KubeEdge's profile names a version.
const VERSION_PROFILE: &str = "version=";

/// Values of KubeEdge's chart that are not here, and what does their work.
const OF_KUBEEDGE: [(&str, &str); 12] = [
    (
        "/iptablesManager",
        "leave it out: CloudCore is the kubelet endpoint of its nodes, and changes no host's tables",
    ),
    (
        "/controllerManager",
        "leave it out: CloudCore does its work, but for NodeGroups and EdgeApplications, which are not here",
    ),
    (
        "/admission",
        "leave it out: the definitions of Devices and Rules refuse by themselves what makes no sense",
    ),
    ("/mosquitto", "leave it out: edgecore has a broker of its own"),
    ("/appVersion", "leave it out: the version is the chart's"),
    ("/cloudCore/securityContext", "leave it out: CloudCore needs no rights on its machine"),
    ("/cloudCore/strategy", "leave it out: it follows from cloudCore.hostNetWork and hostPorts"),
    ("/cloudCore/featureGates", "leave it out: a node is never given what it may not have"),
    ("/cloudCore/modules/dynamicController", "leave it out: MetaServer is not here yet"),
    (
        "/cloudCore/modules/cloudHub/quic/enable",
        "leave it out: nodes use QUIC, and WebSocket where UDP is blocked",
    ),
    (
        "/cloudCore/service/cloudstreamNodePort",
        "leave it out: API servers reach the pods of CloudCore themselves",
    ),
    ("/cloudCore/service/tunnelNodePort", "leave it out: streams go over the one link"),
];

/// Without one CloudCore's certificate is for nobody.
pub(crate) const NO_ADDRESS: &str = "--advertise-address is missing: name the addresses at which nodes reach CloudCore, of the load balancer or of the machines with its NodePorts";

/// The objects of the chart, and what its own refusal of missing addresses means for whoever has never seen a value of it.
///
/// # Errors
/// What the chart refuses.
pub(crate) fn rendered(
    values: &Value,
    capabilities: &helmchart::Capabilities,
    namespace: &str,
) -> Result<Vec<Value>> {
    helmchart::render(values, capabilities, namespace).map_err(|error| {
        let error = anyhow::Error::from(error);
        match format!("{error:#}").contains("advertiseAddress is empty") {
            true => anyhow::anyhow!("{NO_ADDRESS}"),
            false => error,
        }
    })
}

/// What CloudCore is installed with.
#[derive(Debug, Args)]
pub struct ChartArgs {
    /// The namespace of CloudCore, its CA and its account. Another one than KubeEdge's (`kubeedge`) stands beside KubeEdge's CloudCore
    #[arg(short = 'n', long, default_value = helmchart::NAMESPACE, value_parser = namespace)]
    pub namespace: String,
    /// IP addresses at which nodes reach CloudCore, separated by commas: its certificate is made for them
    #[arg(long, value_delimiter = ',')]
    pub advertise_address: Vec<IpAddr>,
    /// A value of the chart as with helm (a.b=c,d={e,f}); `keadm config values` shows them all. Can be given several times
    #[arg(long)]
    pub set: Vec<String>,
    /// A file of values of the chart, or version=vX as with KubeEdge
    #[arg(long)]
    pub profile: Option<String>,
    /// Where the images are: registry.example.com/kubeedge
    #[arg(long)]
    pub image_repository: Option<String>,
    /// The version to install: this program's own, and no other
    #[arg(long)]
    pub kubeedge_version: Option<String>,
    /// Flags of KubeEdge's.
    #[command(flatten)]
    pub of_kubeedge: NoKubeEdgeFlags<OfInit>,
}

impl Default for ChartArgs {
    fn default() -> Self {
        ChartArgs {
            namespace: helmchart::NAMESPACE.to_owned(),
            advertise_address: Vec::new(),
            set: Vec::new(),
            profile: None,
            image_repository: None,
            kubeedge_version: None,
            of_kubeedge: NoKubeEdgeFlags::default(),
        }
    }
}

/// A namespace, as the API server takes one.
///
/// # Errors
/// When it is none.
pub fn namespace(text: &str) -> Result<String, String> {
    if contract::ids::is_dns1123_label(text) {
        Ok(text.to_owned())
    } else {
        Err("a namespace has 1 to 63 of a-z, 0-9 and -, and a letter or a digit at both ends".to_owned())
    }
}

impl ChartArgs {
    /// The values: those of --profile, over them what the flags say, over them --set. They are whole, and held against the chart's
    /// schema.
    ///
    /// # Errors
    /// A sentence about what is not understood, and for what is KubeEdge's alone the cure.
    pub(crate) fn values(&self) -> Result<Value> {
        let given = self.given()?;
        let not_here = OF_KUBEEDGE.iter().filter(|(pointer, _)| given.pointer(pointer).is_some());
        let not_here: Vec<String> = not_here
            .map(|(pointer, cure)| {
                format!("there is no value `{}` here: {cure}", pointer[1..].replace('/', "."))
            })
            .collect();
        if !not_here.is_empty() {
            bail!("{}", not_here.join("\n"));
        }
        Ok(helmchart::with_defaults(&given)?)
    }

    fn given(&self) -> Result<Value> {
        let mut given = json!({});
        if let Some(profile) = self.profile.as_deref() {
            match profile.strip_prefix(VERSION_PROFILE) {
                Some(version) => check_version("--profile", version)?,
                None => given = read_profile(Path::new(profile))?,
            }
        }
        if let Some(version) = self.kubeedge_version.as_deref() {
            check_version("--kubeedge-version", version)?;
        }
        let mut put = |pair: &str| helmchart::set(&mut given, pair);
        if let Some(repository) = self.image_repository.as_deref() {
            put(&format!(
                "cloudCore.image.repository={}",
                escaped(&in_repository(repository, "cloudcore")?)
            ))?;
        }
        if !self.advertise_address.is_empty() {
            let addresses: Vec<String> = self.advertise_address.iter().map(IpAddr::to_string).collect();
            put(&format!("cloudCore.modules.cloudHub.advertiseAddress={{{}}}", addresses.join(",")))?;
        }
        for pairs in &self.set {
            put(pairs).context("--set")?;
        }
        Ok(given)
    }
}

fn escaped(word: &str) -> String {
    word.replace('\\', "\\\\").replace(',', "\\,")
}

/// The image of this name in a repository, as `registry.example.com:5000/mirror`.
pub(crate) fn in_repository(repository: &str, image: &str) -> Result<String> {
    let repository = repository.trim_end_matches('/');
    let is_usable = |letter: char| letter.is_ascii_alphanumeric() || "-._/:".contains(letter);
    if repository.is_empty() || !repository.chars().all(is_usable) || repository.contains("//") {
        bail!(
            "--image-repository {}: write it as registry.example.com/kubeedge, without https:// and without an image's name",
            repository.escape_debug()
        );
    }
    Ok(format!("{repository}/{image}"))
}

/// A chart and its programs belong together.
pub(crate) fn check_version(flag: &str, version: &str) -> Result<()> {
    if version.trim_start_matches('v') == helmchart::VERSION {
        return Ok(());
    }
    bail!(
        "{flag}: this keadm installs v{}, not {}: take the keadm of that version; an image with another tag is --set cloudCore.image.tag=TAG",
        helmchart::VERSION,
        version.escape_debug()
    )
}

fn read_profile(path: &Path) -> Result<Value> {
    let at = || format!("--profile {}", path.display());
    // Asked before it is opened: a pipe would wait for its writer.
    if !std::fs::metadata(path).with_context(at)?.is_file() {
        bail!("{} is no file of values", at());
    }
    // One byte more, so that what is too long is seen to be.
    let most = helmchart::VALUES_MAX as u64 + 1;
    let mut text = String::new();
    std::fs::File::open(path).and_then(|file| file.take(most).read_to_string(&mut text)).with_context(at)?;
    helmchart::parse(&text).with_context(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(change: impl FnOnce(&mut ChartArgs)) -> ChartArgs {
        let mut args = ChartArgs::default();
        change(&mut args);
        args
    }

    #[test]
    fn without_an_address_the_flag_is_named_that_gives_one() {
        let capabilities = helmchart::Capabilities { version: "1.33".to_owned(), kinds: Vec::new() };
        let values = ChartArgs::default().values().unwrap();
        let told = rendered(&values, &capabilities, "kubeedge").unwrap_err().to_string();
        assert!(told.starts_with("--advertise-address is missing"), "{told}");
    }

    #[test]
    fn flags_and_sets_become_values_of_the_chart() {
        let values = args(|args| {
            args.advertise_address = vec!["192.0.2.10".parse().unwrap(), "2001:db8::1".parse().unwrap()];
            args.image_repository = Some("registry.example:5000/mirror/".to_owned());
            args.kubeedge_version = Some(format!("v{}", helmchart::VERSION));
            args.set = vec!["cloudCore.replicaCount=3,policies.keepPods=false".to_owned()];
        })
        .values()
        .unwrap();
        assert_eq!(
            values["cloudCore"]["modules"]["cloudHub"]["advertiseAddress"],
            json!(["192.0.2.10", "2001:db8::1"])
        );
        assert_eq!(
            helmchart::image(&values),
            format!("registry.example:5000/mirror/cloudcore:v{}", helmchart::VERSION)
        );
        assert_eq!(
            (&values["cloudCore"]["replicaCount"], &values["policies"]["keepPods"]),
            (&json!(3), &json!(false))
        );
    }

    #[test]
    fn a_profile_is_a_file_of_values_below_the_sets_or_a_version() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("values.yaml");
        std::fs::write(&path, "cloudCore: {replicaCount: 4, log: debug}").unwrap();
        let with = |profile: String| {
            args(|args| {
                args.profile = Some(profile);
                args.set = vec!["cloudCore.replicaCount=5".to_owned()];
            })
            .values()
        };
        let values = with(path.display().to_string()).unwrap();
        assert_eq!(
            (&values["cloudCore"]["replicaCount"], &values["cloudCore"]["log"]),
            (&json!(5), &json!("debug"))
        );
        assert!(with(format!("version=v{}", helmchart::VERSION)).is_ok());
        for bad in ["version=v1.23.0".to_owned(), folder.path().display().to_string(), "nowhere".to_owned()] {
            let told = format!("{:#}", with(bad).unwrap_err());
            assert!(told.contains("--profile"), "{told}");
        }
    }

    #[test]
    fn values_and_versions_of_kubeedge_are_refused_with_their_cure() {
        let told = |set: &str| args(|args| args.set = vec![set.to_owned()]).values().unwrap_err().to_string();
        for (pointer, cure) in OF_KUBEEDGE {
            let told = told(&format!("{}.x=1", pointer[1..].replace('/', ".")));
            assert!(told.contains(cure), "{told}");
        }
        assert!(told("cloudCore.replicas=2").contains("no value `cloudCore.replicas`"));
        let told =
            args(|args| args.kubeedge_version = Some("v1.23.0".to_owned())).values().unwrap_err().to_string();
        assert!(told.contains("not v1.23.0") && told.contains("cloudCore.image.tag"), "{told}");
        for bad in ["", "https://x/y", "a b", "a//b"] {
            assert!(args(|args| args.image_repository = Some(bad.to_owned())).values().is_err(), "{bad}");
        }
    }
}
