//! Flags of KubeEdge's `keadm` that this one does not take, each with what does its work here.

use std::marker::PhantomData;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};

/// Name, short form, and the cure.
type Flag = (&'static str, Option<char>, &'static str);

/// A verb, with the flags of KubeEdge's that it does not take.
pub trait Verb {
    /// The flags.
    const FLAGS: &'static [(&'static str, Option<char>, &'static str)];
}

/// `keadm join`.
#[derive(Debug, Clone, Copy)]
pub struct OfJoin;

impl Verb for OfJoin {
    const FLAGS: &'static [Flag] = &JOIN;
}

/// `keadm init` and `keadm manifest`.
#[derive(Debug, Clone, Copy)]
pub struct OfInit;

impl Verb for OfInit {
    const FLAGS: &'static [Flag] = &INIT;
}

/// `keadm upgrade edge`.
#[derive(Debug, Clone, Copy)]
pub struct OfUpgrade;

impl Verb for OfUpgrade {
    const FLAGS: &'static [Flag] = &UPGRADE;
}

/// `keadm upgrade` without a side, as releases of KubeEdge's before 1.20 had it.
#[derive(Debug, Clone, Copy)]
pub struct OfUpgradeAlone;

impl Verb for OfUpgradeAlone {
    const FLAGS: &'static [Flag] = &UPGRADE_ALONE;
}

/// `keadm reset` and `keadm reset edge`.
#[derive(Debug, Clone, Copy)]
pub struct OfReset;

impl Verb for OfReset {
    const FLAGS: &'static [Flag] = &RESET;
}

const OF_EDGE: &str = "it is one of `keadm upgrade edge`, with --from FILE or --image-archive FILE";
const RUN_BEFORE: &str = "run the program yourself before";
const RUN_AFTER: &str = "run the program yourself after";

const UPGRADE_ALONE: [Flag; 12] = [
    ("toVersion", None, OF_EDGE),
    ("config", None, OF_EDGE),
    ("force", None, OF_EDGE),
    ("image-digest", None, OF_EDGE),
    (
        "image",
        None,
        "nothing is pulled here: `keadm upgrade edge --image-archive FILE` takes what `skopeo copy docker://REGISTRY/installation-package:TAG oci-archive:FILE` wrote",
    ),
    ("pre-run", None, RUN_BEFORE),
    ("post-run", None, RUN_AFTER),
    ("upgradeID", None, "leave it out: `keadm upgrade edge --status` tells how the last one went"),
    ("historyID", None, "leave it out: `keadm upgrade edge --status` tells how the last one went"),
    ("fromVersion", None, "leave it out: edgecore says which version runs"),
    ("type", None, "write `keadm upgrade edge`, or `keadm rollback edge`"),
    ("disable-backup", None, "leave it out: the way back needs the backup; the newest three are kept"),
];

const RESET: [Flag; 4] = [
    (
        "remote-runtime-endpoint",
        None,
        "leave it out: no container is ended; `crictl rmp -fa` does that where nobody else has pods",
    ),
    ("pre-run", None, RUN_BEFORE),
    ("post-run", None, RUN_AFTER),
    ("kube-config", None, "`keadm reset cloud --kube-config FILE` is for a cluster"),
];

const UPGRADE: [Flag; 8] = [
    (
        "image",
        None,
        "nothing is pulled here: `skopeo copy docker://REGISTRY/installation-package:TAG oci-archive:FILE` where the registry is, then --image-archive FILE",
    ),
    ("pre-run", None, "run the program yourself before `keadm upgrade edge`"),
    ("post-run", None, "run the program yourself after `keadm upgrade edge`"),
    ("upgradeID", None, "leave it out: the journal of the upgrade is the node's own (--status)"),
    ("historyID", None, "leave it out: the journal of the upgrade is the node's own (--status)"),
    ("fromVersion", None, "leave it out: edgecore says which version runs"),
    ("type", None, "leave it out: `keadm rollback edge` goes back"),
    ("disable-backup", None, "leave it out: the way back needs the backup; the newest three are kept"),
];

const INIT: [Flag; 7] = [
    (
        "domainname",
        None,
        "--set 'cloudCore.modules.cloudHub.dnsNames={NAME}' has the name in CloudCore's certificate, beside --advertise-address",
    ),
    ("master", None, "leave it out: the API server is that of --kube-config"),
    ("tarballpath", None, "leave it out: nothing is downloaded; the chart is within keadm"),
    ("manifests", None, "apply files of yours with kubectl, before or after"),
    (
        "files",
        Some('f'),
        "apply files of yours with kubectl, before or after; --profile FILE takes values of the chart",
    ),
    (
        "external-helm-root",
        None,
        "the chart is within keadm: `helm upgrade --install cloudcore FOLDER --namespace kubeedge` installs one of yours",
    ),
    (
        "image-archive",
        None,
        "load the archive on each machine that may run CloudCore (`ctr -n k8s.io images import FILE`), or push it to a registry and name that with --image-repository",
    ),
];

const JOIN: [Flag; 14] = [
    ("kubeedge-version", None, "the version is that of the programs: copy keadm and edgecore of one release"),
    ("cgroupdriver", None, "--set modules.edged.tailoredKubeletConfig.cgroupDriver=systemd (or cgroupfs)"),
    (
        "certPath",
        None,
        "--set modules.edgeHub.tlsCaFile=PATH, --set modules.edgeHub.tlsCertFile=PATH and --set modules.edgeHub.tlsPrivateKeyFile=PATH",
    ),
    (
        "remote-runtime-endpoint",
        Some('p'),
        "--set modules.edged.tailoredKubeletConfig.containerRuntimeEndpoint=unix:///run/containerd/containerd.sock",
    ),
    ("runtimetype", None, "leave it out: any runtime is used that speaks CRI v1"),
    ("tarballpath", None, "leave it out: nothing is downloaded; copy edgecore to /usr/local/bin"),
    ("labels", Some('l'), "--set 'modules.edged.nodeLabels={\"KEY\":\"VALUE\"}'"),
    ("image-repository", None, "leave it out: joining pulls no image"),
    (
        "with-mqtt",
        None,
        "leave it out: edgecore has a broker of its own at 127.0.0.1:1883, or is a client of one that is there (--set modules.eventBus.mqttMode=2)",
    ),
    (
        "domainname",
        None,
        "name CloudCore in --cloudcore-ipport, as modules.cloudHub.dnsNames of cloudcore.yaml says it",
    ),
    ("node-ip", None, "--set modules.edged.nodeIP=192.0.2.30"),
    ("sets", None, "--set KEY=VALUE, once for each value"),
    ("pre-run", None, "run the program yourself before `keadm join`"),
    ("post-run", None, "run the program yourself after `keadm join`"),
];

/// None of them was given: else parsing ends with the cure.
#[derive(Debug, Clone, Copy)]
pub struct NoKubeEdgeFlags<Of>(PhantomData<Of>);

impl<Of> Default for NoKubeEdgeFlags<Of> {
    fn default() -> Self {
        NoKubeEdgeFlags(PhantomData)
    }
}

impl<Of: Verb> FromArgMatches for NoKubeEdgeFlags<Of> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let given = Of::FLAGS.iter().filter(|(name, ..)| matches.contains_id(name));
        let words: String =
            given.map(|(name, _, cure)| format!("there is no --{name} here: {cure}\n")).collect();
        match words.is_empty() {
            true => Ok(NoKubeEdgeFlags(PhantomData)),
            false => Err(Error::raw(ErrorKind::UnknownArgument, words)),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        Self::from_arg_matches(matches).map(drop)
    }
}

impl<Of: Verb> Args for NoKubeEdgeFlags<Of> {
    fn augment_args(command: Command) -> Command {
        // A value may be missing, and the flag be given twice: that there is no such flag comes first.
        let flag = |(name, short, _): &Flag| {
            let flag = Arg::new(*name).long(*name).num_args(0..=1).action(ArgAction::Append).hide(true);
            match short {
                Some(short) => flag.short(*short),
                None => flag,
            }
        };
        command.args(Of::FLAGS.iter().map(flag))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli<Of: Verb + std::fmt::Debug + Clone + Send + Sync + 'static> {
        #[command(flatten)]
        _none: NoKubeEdgeFlags<Of>,
        #[arg(long)]
        set: Vec<String>,
    }

    fn refused<Of: Verb + std::fmt::Debug + Clone + Send + Sync + 'static>() {
        for (name, short, cure) in Of::FLAGS {
            let long = format!("--{name}");
            let with_value = vec!["keadm".to_owned(), format!("{long}=x")];
            let mut lines = vec![with_value, vec!["keadm".to_owned(), long]];
            lines.extend(
                short.iter().map(|short| vec!["keadm".to_owned(), format!("-{short}"), "x".to_owned()]),
            );
            for line in lines {
                let told = Cli::<Of>::try_parse_from(&line).unwrap_err().to_string();
                assert!(told.contains(&format!("there is no --{name} here: {cure}")), "{line:?}: {told}");
            }
        }
    }

    #[test]
    fn each_flag_of_kubeedge_is_refused_with_its_cure() {
        refused::<OfJoin>();
        refused::<OfInit>();
        refused::<OfUpgrade>();
        refused::<OfUpgradeAlone>();
        refused::<OfReset>();
        let line = ["keadm", "-l", "a=b", "--labels=c=d", "--with-mqtt"];
        let told = Cli::<OfJoin>::try_parse_from(line).unwrap_err().to_string();
        assert!(told.contains("no --labels") && told.contains("no --with-mqtt"), "{told}");
        assert_eq!(Cli::<OfJoin>::try_parse_from(["keadm", "--set", "a=b"]).unwrap().set, ["a=b"]);
    }

    /// Whoever follows a cure with --set finds the key.
    #[test]
    fn the_settings_that_cures_name_are_there() {
        let settings = serde_json::to_value(config::edge::EdgeCore::default()).unwrap();
        let mut named = 0;
        for (name, _, cure) in OfJoin::FLAGS {
            for word in cure.split([' ', '\'', ',', '(', ')']).filter(|word| word.starts_with("modules.edge"))
            {
                let key = word.split('=').next().unwrap_or_default();
                let pointer = format!("/{}", key.replace('.', "/"));
                assert!(settings.pointer(&pointer).is_some(), "--{name}: {key}");
                named += 1;
            }
        }
        assert_eq!(named, 7);
    }
}
