//! Certificates that live for minutes, for hours: renewed again and again, the CA replaced, an address added, a node away past the end of
//! its certificate. No link is lost for it, and nobody joins again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::log::{Log, NODE_UNLINKED};
use crate::testbed::{LONG, NODE};
use crate::{Console, Outcome, Testbed};

/// What CloudCore says when a node has a new certificate on its disk.
const RENEWED: &str = "the node has its new certificate";
/// What it says of its own.
const SERVER_RENEWED: &str = "CloudCore's own certificate is renewed";
/// A second address for the certificate, of nobody (RFC 5737).
const ADDED_ADDRESS: &str = "192.0.2.9";
/// 5 s between looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How it is done.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long in all.
    pub length: Duration,
    /// How long a certificate lives; the CA is replaced over seven of its lives.
    pub life: Duration,
}

impl Options {
    /// What CloudCore is told in its settings.
    pub fn hub_settings(&self) -> String {
        let life = self.life.as_secs();
        format!(
            "edgeCertSigningDuration: {life}s\n    serverCertSigningDuration: {life}s\n    caLeadDuration: {life}s\n    \
             edgeCertGraceDuration: {}s\n    ",
            2 * life
        )
    }
}

/// Runs it.
pub async fn run(testbed: &mut Testbed, options: &Options, console: &Console) -> Outcome {
    let title = format!("certificates of {} s for {} s", options.life.as_secs(), options.length.as_secs());
    Outcome::of(&title, async |outcome| story(testbed, options, console, outcome).await).await
}

/// What has been seen.
#[derive(Default)]
struct Counts {
    renewed: usize,
    server_renewed: usize,
    lost: Vec<String>,
}

impl Counts {
    fn read(&mut self, cloud: &mut Log, node: &mut Log, is_ours: bool) -> Result<()> {
        for line in cloud.lines()? {
            self.renewed += usize::from(line.contains(RENEWED));
            self.server_renewed += usize::from(line.contains(SERVER_RENEWED));
        }
        // Those that this scenario itself brings about are none.
        let lost = node.lines()?.into_iter().filter(|line| line.contains(NODE_UNLINKED) && !is_ours);
        self.lost.extend(lost);
        Ok(())
    }
}

async fn story(
    testbed: &mut Testbed,
    options: &Options,
    console: &Console,
    outcome: &mut Outcome,
) -> Result<()> {
    let begun = Instant::now();
    let (mut cloud, mut node) = testbed.words()?;
    let mut counts = Counts::default();
    let third = options.length / 3;
    quiet(testbed, begun + third, &mut counts, (&mut cloud, &mut node)).await?;

    console.at("a new CA is asked for");
    let first = signing(testbed).await?;
    let wish = r#"{"stringData":{"rotate":"now"}}"#;
    testbed.kubectl.run(&["-n", "kubeedge", "patch", "secret", "casecret", "-p", wish]).await?;
    let rotated = begun + third + 6 * options.life;
    quiet(testbed, rotated.max(begun + 2 * third), &mut counts, (&mut cloud, &mut node)).await?;
    if signing(testbed).await? == first {
        outcome.violation("the CA was not replaced");
    }
    console.at("an address is added to CloudCore's certificate");
    testbed.kill_cloudcore();
    testbed.advertise(ADDED_ADDRESS)?;
    testbed.start_cloudcore()?;
    testbed.until("the node is Ready", LONG, async |testbed| testbed.ready().await).await?;
    named(testbed).await?;
    counts.read(&mut cloud, &mut node, true)?;

    console.at("the node is away past the end of its certificate");
    testbed.kill_edgecore();
    tokio::time::sleep(options.life + options.life / 3).await;
    let back = Instant::now();
    testbed.start_edgecore()?;
    let away = until_renewed(testbed).await?;
    counts.read(&mut cloud, &mut node, true)?;
    outcome.row("away past the end → linked with a new certificate", format!("{:.1} s", away.as_secs_f64()));
    let rest = (begun + options.length).max(back + 2 * options.life);
    quiet(testbed, rest, &mut counts, (&mut cloud, &mut node)).await?;

    let least = usize::try_from(options.length.as_secs() / options.life.as_secs()).unwrap_or(usize::MAX) / 2;
    outcome.row("node certificates renewed", format!("{}, at least {least}", counts.renewed));
    outcome.row("CloudCore's own renewed", counts.server_renewed.to_string());
    outcome.row("links lost", format!("{}, bar 0", counts.lost.len()));
    if counts.renewed < least || counts.server_renewed == 0 {
        outcome.violation(format!(
            "{} node certificates and {} of CloudCore's own were renewed",
            counts.renewed, counts.server_renewed
        ));
    }
    for lost in counts.lost {
        outcome.violation(format!("a link was lost: {lost}"));
    }
    Ok(())
}

/// Nothing happens but what happens by itself.
async fn quiet(
    testbed: &mut Testbed,
    until: Instant,
    counts: &mut Counts,
    (cloud, node): (&mut Log, &mut Log),
) -> Result<()> {
    while Instant::now() < until {
        tokio::time::sleep(LOOK_EVERY.min(until.saturating_duration_since(Instant::now()))).await;
        testbed.check()?;
        counts.read(cloud, node, false)?;
        if testbed.ready().await?.is_none() {
            bail!("the node is not Ready");
        }
    }
    Ok(())
}

/// The CA that signs.
async fn signing(testbed: &Testbed) -> Result<String> {
    let words = ["-n", "kubeedge", "get", "secret", "casecret", "-o", "jsonpath={.data.cadata}"];
    testbed.kubectl.run(&words).await
}

/// Waits until the register has a newer certificate of the node's than now, and the node is Ready.
async fn until_renewed(testbed: &mut Testbed) -> Result<Duration> {
    let serial = |object: Option<Value>| {
        object.and_then(|object| object["spec"]["serial"].as_str().map(str::to_owned))
    };
    let before =
        serial(testbed.kubectl.get("edgenode", NODE).await?).context("the node is in no register")?;
    let renewed = testbed.until("another certificate is used", LONG, async |testbed| {
        let now = serial(testbed.kubectl.get("edgenode", NODE).await?);
        Ok(now.filter(|now| *now != before))
    });
    let (_, took) = renewed.await?;
    testbed.until("the node is Ready", LONG, async |testbed| testbed.ready().await).await?;
    Ok(took)
}

/// Whether CloudCore's certificate names the address that was added, as openssl sees it.
async fn named(testbed: &mut Testbed) -> Result<()> {
    let port = testbed.enrolment_port();
    testbed
        .until("CloudCore's certificate names the added address", LONG, async |_| {
            let output = tokio::process::Command::new("openssl")
                .args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-verify_ip", ADDED_ADDRESS])
                .stdin(std::process::Stdio::null())
                .output()
                .await?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            Ok((!text.contains("IP address mismatch") && text.contains("BEGIN CERTIFICATE")).then_some(()))
        })
        .await
        .map(drop)
}
