//! The story: eleven steps, each observed from outside our code.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::relay::Relay;
use crate::say::Say;
use crate::setup::Tools;
use crate::stage::{NODE, Stage, said};
use testhost::Daemon;

/// A step of the story, and what `--break` does to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Step {
    /// The API server answers (broken: cloudcore is ended at once)
    Cluster,
    /// A node joins and is Ready (broken: the token is another's)
    Node,
    /// A Deployment's pod runs and has an address (broken: its image is nowhere)
    Pod,
    /// It answers over HTTP (broken: its server listens elsewhere)
    Http,
    /// The device's register shows in kubectl (broken: no mapper)
    Reported,
    /// A desired value arrives in the register (broken: the mapper is ended)
    Desired,
    /// The link is cut (broken: the relay passes everything)
    Cut,
    /// A killed container comes back without the cloud (broken: edgecore is ended)
    Restart,
    /// The twin is served on MQTT without the cloud (broken: the device is ended)
    Twin,
    /// edgecore restarts and the container is untouched (broken: the container is killed meanwhile)
    Edgecore,
    /// The link is back and the difference arrives (broken: it stays cut)
    Catchup,
}

const LONG: Duration = Duration::from_secs(60);

/// Tells the story. The stage is given back whatever happened on it, to be shown and left.
pub(crate) async fn tell<'a>(
    tools: &'a Tools,
    cluster: Option<PathBuf>,
    broken: Option<Step>,
    say: &Say,
) -> Result<(Stage<'a>, Result<()>)> {
    say.doing("making the node's host: a network namespace with a containerd of its own");
    let stage = tokio::task::block_in_place(|| Stage::new(tools, cluster))?;
    let mut story = Story { stage, broken, say, web: String::new(), address: String::new() };
    let result = story.all().await;
    Ok((story.stage, result))
}

struct Story<'a, 'b> {
    stage: Stage<'a>,
    broken: Option<Step>,
    say: &'b Say,
    /// The id of the container of the page.
    web: String,
    /// The address of its pod.
    address: String,
}

impl Story<'_, '_> {
    fn is_broken(&self, step: Step) -> bool {
        self.broken == Some(step)
    }

    async fn all(&mut self) -> Result<()> {
        let begun = Instant::now();
        self.cluster().await.context("step cluster")?;
        self.node().await.context("step node")?;
        self.pod().await.context("step pod")?;
        self.http().await.context("step http")?;
        self.reported().await.context("step reported")?;
        self.desired().await.context("step desired")?;
        self.cut().await.context("step cut")?;
        self.restart().await.context("step restart")?;
        self.twin().await.context("step twin")?;
        self.edgecore().await.context("step edgecore")?;
        self.catch_up().await.context("step catchup")?;
        self.say.line(&format!("\nEvery step was observed, in {:.1} s.", begun.elapsed().as_secs_f64()));
        Ok(())
    }

    async fn cluster(&mut self) -> Result<()> {
        let stage = &mut self.stage;
        let ports = &stage.ports;
        let config = format!(
            "apiVersion: cloudcore.config.kubeedge.io/v1alpha1\nkind: CloudCore\n\
             commonConfig: {{monitorServer: {{bindAddress: '127.0.0.1:{}'}}}}\n\
             modules:\n  cloudHub:\n    advertiseAddress: [127.0.0.1]\n    quic: {{address: 127.0.0.1, port: {}}}\n    websocket: {{enable: false}}\n    https: {{address: 127.0.0.1, port: {}}}\n",
            ports.monitor, ports.link, ports.enrolment,
        );
        let path = stage.folder.join("cloudcore.yaml");
        std::fs::write(&path, config)?;
        let mut command = stage.our("cloudcore");
        command.arg("--config").arg(&path);
        if let Some(kubeconfig) = &stage.cluster {
            command.arg("--kubeconfig").arg(kubeconfig);
        } else {
            command.arg("--standalone").arg("--standalone-dir").arg(stage.folder.join("cloud"));
            command.arg("--standalone-listen").arg(format!("127.0.0.1:{}", ports.api));
        }
        stage.cloudcore = Some(Daemon::start("cloudcore", &stage.folder, &mut command)?);
        if self.broken == Some(Step::Cluster)
            && let Some(cloudcore) = &mut stage.cloudcore
        {
            cloudcore.kill();
        }
        let (version, took) = stage
            .until("the API server answers kubectl", LONG, |stage| {
                if !stage.kubeconfig().exists() {
                    return Ok(None);
                }
                let ready = stage.kubectl(&["get", "--raw", "/readyz"])?;
                let served = stage.kubectl(&["get", "crd", "devices.devices.kubeedge.io", "-o", "name"])?;
                let version = stage.kubectl(&["get", "--raw", "/version"])?;
                let version: serde_json::Value = serde_json::from_str(&version).context("/version")?;
                let version = format!("Kubernetes API {}", version["gitVersion"].as_str().unwrap_or("?"));
                Ok((ready == "ok" && !served.is_empty()).then_some(version))
            })
            .await?;
        self.say.seen(took, &format!("cluster up: {version}"));
        Ok(())
    }

    async fn node(&mut self) -> Result<()> {
        let broken = self.is_broken(Step::Node);
        let stage = &mut self.stage;
        let relay = Relay::start(([127, 0, 0, 1], stage.ports.link).into()).await?;
        let begun = Instant::now();
        let gettoken = || {
            let mut command = stage.our("keadm");
            command.arg("gettoken").arg("--kube-config").arg(stage.kubeconfig());
            said(command.args(["--edgenode-name", NODE]), "")
        };
        // The cloud makes its keys right after its API is up.
        let mut token = gettoken();
        while token.is_err() && begun.elapsed() < LONG {
            tokio::time::sleep(Duration::from_millis(100)).await;
            token = gettoken();
        }
        let mut token = token?.trim().to_owned();
        if broken {
            token = token.replacen(|c: char| c.is_ascii_digit(), "x", 1);
        }
        let folder = stage.folder.display().to_string();
        let settings = [
            format!("database.dataSource={folder}/edgecore.db"),
            format!("modules.edged.rootDirectory={folder}/kubelet"),
            "modules.edged.nodeIP=127.0.0.1".to_owned(),
            format!("modules.edged.tailoredKubeletConfig.containerRuntimeEndpoint={}", stage.host.endpoint()),
            format!("modules.edged.tailoredKubeletConfig.podLogsDir={folder}/logs"),
            // The story needs a few megabytes, however full the disk is.
            "modules.edged.tailoredKubeletConfig.evictionHard.nodefs\\.available=64Mi".to_owned(),
            format!("modules.edgeHub.tlsCaFile={folder}/edge-ca.crt"),
            format!("modules.edgeHub.tlsCertFile={folder}/edge.crt"),
            format!("modules.edgeHub.tlsPrivateKeyFile={folder}/edge.key"),
            format!("modules.edgeHub.quic.server=127.0.0.1:{}", relay.port),
            "modules.edgeHub.websocket.enable=false".to_owned(),
            format!("modules.eventBus.mqttServerInternal=127.0.0.1:{}", stage.ports.mqtt),
            format!("modules.deviceTwin.dmiSockPath={folder}/dmi/"),
        ];
        let mut command = stage.our("keadm");
        command.arg("join").arg(format!("--cloudcore-ipport=127.0.0.1:{}", relay.port));
        command.arg(format!("--token={token}")).arg(format!("--edgenode-name={NODE}"));
        command.arg("--certport").arg(stage.ports.enrolment.to_string());
        command.arg("--config").arg(stage.edgecore_config());
        for setting in &settings {
            command.arg("--set").arg(setting);
        }
        said(&mut command, "")?;
        stage.relay = Some(relay);
        stage.start_edgecore()?;
        let (line, _) = stage
            .until("the node is Ready", LONG, |stage| {
                let line = stage.kubectl(&["get", "node", NODE, "--no-headers"])?;
                Ok(line.split_whitespace().any(|word| word == "Ready").then_some(line))
            })
            .await?;
        self.say.seen(
            begun.elapsed(),
            &format!("node joined: {}", line.split_whitespace().collect::<Vec<_>>().join(" ")),
        );
        Ok(())
    }

    async fn pod(&mut self) -> Result<()> {
        let mut manifest = include_str!("manifests/web.yaml").to_owned();
        if self.is_broken(Step::Pod) {
            manifest = manifest.replace("image: kubehive.test/busybox:1", "image: kubehive.test/nowhere:1");
        }
        if self.is_broken(Step::Http) {
            manifest = manifest.replace("-p, \"80\"", "-p, \"81\"");
        }
        let stage = &mut self.stage;
        let begun = Instant::now();
        stage.kubectl_with(&["apply", "-f", "-"], &manifest)?;
        let (address, _) = stage
            .until("the Deployment's pod is Running and has an address", LONG, |stage| {
                let path = "jsonpath={.items[0].status.phase} {.items[0].status.podIP}";
                let line = stage.kubectl(&["get", "pods", "-l", "app=web", "-o", path])?;
                let mut words = line.split_whitespace();
                Ok((words.next() == Some("Running")).then(|| words.next().map(str::to_owned)).flatten())
            })
            .await?;
        let took = begun.elapsed();
        stage
            .until("kubectl rollout status", LONG, |stage| {
                stage.kubectl(&["rollout", "status", "deployment/web", "--timeout=30s"]).map(Some)
            })
            .await?;
        let running = stage.running("web")?;
        let [web] = running.as_slice() else {
            bail!("the runtime says {running:?} instead of one container")
        };
        self.web = web.clone();
        self.say.seen(took, &format!("kubectl apply → Running at {address}, container {}", short(web)));
        self.address = address;
        Ok(())
    }

    async fn http(&mut self) -> Result<()> {
        let address = self.address.clone();
        let (page, took) = self
            .stage
            .until("an HTTP answer of the container", Duration::from_secs(20), |stage| {
                stage.page(&address).map(Some)
            })
            .await?;
        self.say.seen(took, &format!("http://{address}/ answers “{}”", page.trim()));
        Ok(())
    }

    async fn reported(&mut self) -> Result<()> {
        let broken = self.is_broken(Step::Reported);
        let stage = &mut self.stage;
        let script = stage.folder.join("device.py");
        std::fs::write(&script, include_str!("device.py"))?;
        let mut command = Command::new(&stage.tools.python);
        command.arg(&script).arg(stage.ports.device.to_string());
        stage.device = Some(Daemon::start("device", &stage.folder, &mut command)?);
        let folder = stage.folder.display();
        let config = format!(
            "grpc_server:\n  socket_path: {folder}/dmi/modbus.sock\ncommon:\n  name: modbus-mapper\n  version: v1.0.0\n  \
             api_version: v1.0.0\n  protocol: modbus\n  address: 127.0.0.1\n  edgecore_sock: {folder}/dmi/dmi.sock\n"
        );
        let path = stage.folder.join("mapper.yaml");
        std::fs::write(&path, config)?;
        if !broken {
            let mut command = stage.our("modbus-mapper");
            command.arg("--config-file").arg(&path);
            stage.mapper = Some(Daemon::start("mapper", &stage.folder, &mut command)?);
        }
        let manifest =
            include_str!("manifests/device.yaml").replace("DEVICE_PORT", &stage.ports.device.to_string());
        let begun = Instant::now();
        stage.kubectl_with(&["apply", "-f", "-"], &manifest)?;
        let (first, _) = stage.until("the device's register in kubectl", LONG, reported).await?;
        let took = begun.elapsed();
        let (second, _) = stage
            .until("another value of the register in kubectl", LONG, |stage| {
                Ok(reported(stage)?.filter(|value| *value != first))
            })
            .await?;
        self.say.seen(took, &format!("kubectl get devicestatus: temperature {first}, then {second}"));
        Ok(())
    }

    async fn desired(&mut self) -> Result<()> {
        if self.is_broken(Step::Desired) {
            self.stage.mapper = None;
        }
        self.want(321)?;
        let ((), took) = self
            .stage
            .until("the desired value in the register", Duration::from_secs(30), |stage| {
                Ok((stage.register(1)? == 321).then_some(()))
            })
            .await?;
        self.say.seen(took, "kubectl sets the setpoint to 321 → pymodbus reads 321 from the register");
        Ok(())
    }

    fn want(&self, value: i64) -> Result<()> {
        let patch =
            format!(r#"[{{"op":"replace","path":"/spec/properties/1/desired/value","value":"{value}"}}]"#);
        self.stage.kubectl(&["patch", "device", "boiler-1", "--type=json", "-p", &patch]).map(drop)
    }

    async fn cut(&mut self) -> Result<()> {
        let broken = self.is_broken(Step::Cut);
        let Some(relay) = &self.stage.relay else { bail!("there is no relay") };
        if !broken {
            relay.cut();
        }
        let before = relay.counters.crossed();
        let ((), took) = self
            .stage
            .until("packets dropped by the relay, and none passed", Duration::from_secs(20), |stage| {
                let Some(relay) = &stage.relay else { return Ok(None) };
                let dropped = relay.counters.dropped.load(Ordering::Relaxed);
                Ok((dropped >= 3 && relay.counters.crossed() == before).then_some(()))
            })
            .await?;
        self.say.seen(took, "the link is cut: the relay drops every packet");
        Ok(())
    }

    async fn restart(&mut self) -> Result<()> {
        if self.is_broken(Step::Restart) {
            self.stage.edgecore = None;
        }
        let stage = &mut self.stage;
        let old = self.web.clone();
        said(stage.host.ctr().args(["tasks", "kill", "--signal", "SIGKILL", &old]), "")?;
        let (web, took) = stage
            .until("the killed container runs again", Duration::from_secs(30), |stage| {
                Ok(stage.running("web")?.into_iter().find(|id| *id != old))
            })
            .await?;
        self.say
            .seen(took, &format!("container killed, without the cloud: {} → {}", short(&old), short(&web)));
        self.web = web;
        let address = self.address.clone();
        self.stage
            .until("its HTTP answer", Duration::from_secs(20), |stage| stage.page(&address).map(Some))
            .await?;
        Ok(())
    }

    async fn twin(&mut self) -> Result<()> {
        if self.is_broken(Step::Twin) {
            self.stage.device = None;
        }
        let begun = Instant::now();
        let first = self.mqtt_temperature().await?;
        let mut second = first.clone();
        while second == first {
            if begun.elapsed() > Duration::from_secs(30) {
                bail!("the twin on MQTT stays at {first}");
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
            second = self.mqtt_temperature().await?;
        }
        self.say.seen(
            begun.elapsed(),
            &format!(
                "twin on MQTT, without the cloud: mosquitto_sub reads temperature {first}, then {second}"
            ),
        );
        Ok(())
    }

    /// Asks for the twin as any MQTT client does, and reads the answer with `mosquitto_sub`.
    async fn mqtt_temperature(&mut self) -> Result<String> {
        let port = self.stage.ports.mqtt.to_string();
        let topic = "$hw/events/device/default/boiler-1/twin/get";
        let result = format!("{topic}/result");
        let reader = std::thread::spawn({
            let port = port.clone();
            move || {
                said(
                    Command::new("mosquitto_sub").args(["-p", &port, "-t", &result, "-C", "1", "-W", "10"]),
                    "",
                )
            }
        });
        while !reader.is_finished() {
            said(Command::new("mosquitto_pub").args(["-p", &port, "-q", "1", "-t", topic, "-m", "{}"]), "")?;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let answer = reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
        let answer: serde_json::Value = serde_json::from_str(&answer).context("the answer is no JSON")?;
        let value = answer["twin"]["temperature"]["actual"]["value"].as_str();
        Ok(value.with_context(|| format!("no temperature in {answer}"))?.to_owned())
    }

    async fn edgecore(&mut self) -> Result<()> {
        let broken = self.is_broken(Step::Edgecore);
        let begun = Instant::now();
        if let Some(edgecore) = &mut self.stage.edgecore {
            edgecore.end();
        }
        self.stage.edgecore = None;
        if broken {
            said(self.stage.host.ctr().args(["tasks", "kill", "--signal", "SIGKILL", &self.web]), "")?;
        }
        self.stage.start_edgecore()?;
        // The new one is at work when its broker answers.
        let temperature = loop {
            match self.mqtt_temperature().await {
                Ok(temperature) => break temperature,
                Err(error) if begun.elapsed() > Duration::from_secs(30) => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        };
        let address = self.address.clone();
        self.stage.until("the page", Duration::from_secs(20), |stage| stage.page(&address).map(Some)).await?;
        let running = self.stage.running("web")?;
        if running != [self.web.clone()] {
            bail!("the runtime says {running:?} instead of {} alone", self.web);
        }
        self.say.seen(
            begun.elapsed(),
            &format!(
                "edgecore restarted, without the cloud: container {} untouched, twin at {temperature}",
                short(&self.web)
            ),
        );
        Ok(())
    }

    async fn catch_up(&mut self) -> Result<()> {
        let patch = r#"{"data":{"index.html":"hello again\n"}}"#;
        self.stage.kubectl(&["patch", "configmap", "page", "--type=merge", "-p", patch])?;
        self.stage.kubectl(&["delete", "pod", "extra", "--wait=false"])?;
        self.want(654)?;
        self.say.line(
            "             meanwhile in the cloud: a config map changed, a pod deleted, a setpoint set to 654",
        );
        if self.stage.register(1)? != 321 || self.stage.running("extra")?.len() != 1 {
            bail!("something of it arrived over a link that is cut");
        }
        let broken = self.is_broken(Step::Catchup);
        let Some(relay) = &self.stage.relay else { bail!("there is no relay") };
        let before = relay.counters.crossed();
        if !broken {
            relay.mend();
        }
        let begun = Instant::now();
        let (address, limit) = (self.address.clone(), Duration::from_secs(30));
        let (mut page, mut gone, mut set) = (None, None, None);
        self.stage
            .until("all three changes on the node", limit, |stage| {
                let seen = |at: &mut Option<Duration>, holds: bool| {
                    if holds && at.is_none() {
                        *at = Some(begun.elapsed());
                    }
                };
                seen(&mut set, stage.register(1)? == 654);
                seen(&mut gone, stage.running("extra")?.is_empty());
                seen(&mut page, stage.page(&address)?.trim() == "hello again");
                Ok((page.is_some() && gone.is_some() && set.is_some()).then_some(()))
            })
            .await?;
        let seconds = |at: Option<Duration>| at.unwrap_or_default().as_secs_f64();
        let Some(relay) = &self.stage.relay else { bail!("there is no relay") };
        let crossed = relay.counters.crossed() - before;
        self.say.seen(
            begun.elapsed(),
            &format!(
                "link back: setpoint {:.1} s, pod gone {:.1} s, page {:.1} s; {crossed} bytes crossed",
                seconds(set),
                seconds(gone),
                seconds(page),
            ),
        );
        self.stage
            .until("the deleted pod leaves the API", limit, |stage| {
                Ok(stage
                    .kubectl(&["get", "pod", "extra", "--ignore-not-found", "-o", "name"])?
                    .is_empty()
                    .then_some(()))
            })
            .await?;
        let running = self.stage.running("web")?;
        if running != [self.web.clone()] {
            bail!("the untouched pod's container is {running:?} and was {}", self.web);
        }
        self.stage
            .until("the node is Ready again", LONG, |stage| {
                let line = stage.kubectl(&["get", "node", NODE, "--no-headers"])?;
                Ok(line.split_whitespace().any(|word| word == "Ready").then_some(()))
            })
            .await?;
        self.say.line(&format!("             the untouched pod kept its container {}", short(&self.web)));
        Ok(())
    }
}

/// What the device reported, by kubectl's word.
fn reported(stage: &Stage<'_>) -> Result<Option<String>> {
    let path = r#"jsonpath={.status.twins[?(@.propertyName=="temperature")].reported.value}"#;
    let value = stage.kubectl(&["get", "devicestatus", "boiler-1", "-o", path])?;
    Ok(Some(value.trim().to_owned()).filter(|value| !value.is_empty()))
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
