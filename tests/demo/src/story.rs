//! The story: thirteen steps, each observed from outside our code.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::console::Console;
use crate::relay::Relay;
use crate::setup::Tools;
use crate::testbed::{NODE, Testbed, answered, said};
use testhost::{Daemon, tail};

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
    /// `kubectl logs -f` shows a line when it is written (broken: nobody asks for the page)
    Logs,
    /// `kubectl exec` runs a command in it and ends as the command does (broken: the command says something else)
    Exec,
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
    console: &Console,
) -> Result<(Testbed<'a>, Result<()>)> {
    console.doing("making the edge machine: a network namespace with a containerd and a cable of its own");
    let testbed = tokio::task::block_in_place(|| Testbed::new(tools, cluster))?;
    let mut story = Story { testbed, broken, console, web: String::new(), address: String::new() };
    let result = story.all().await;
    Ok((story.testbed, result))
}

struct Story<'a, 'b> {
    testbed: Testbed<'a>,
    broken: Option<Step>,
    console: &'b Console,
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
        self.logs().await.context("step logs")?;
        self.exec().await.context("step exec")?;
        self.reported().await.context("step reported")?;
        self.desired().await.context("step desired")?;
        self.cut().await.context("step cut")?;
        self.restart().await.context("step restart")?;
        self.twin().await.context("step twin")?;
        self.edgecore().await.context("step edgecore")?;
        self.catch_up().await.context("step catchup")?;
        self.console.line(&format!("\nEvery step was observed, in {:.1} s.", begun.elapsed().as_secs_f64()));
        Ok(())
    }

    async fn cluster(&mut self) -> Result<()> {
        let testbed = &mut self.testbed;
        testbed.look_around()?;
        let (ports, address) = (&testbed.ports, testbed.address);
        let config = format!(
            "apiVersion: cloudcore.config.kubeedge.io/v1alpha1\nkind: CloudCore\n\
             commonConfig: {{monitorServer: {{bindAddress: '127.0.0.1:{}'}}}}\n\
             modules:\n  cloudHub:\n    advertiseAddress: ['{address}']\n    quic: {{address: 127.0.0.1, port: {}}}\n    websocket: {{enable: false}}\n    https: {{address: '{address}', port: {}}}\n",
            ports.monitor, ports.link, ports.enrolment,
        );
        let path = testbed.folder.join("cloudcore.yaml");
        std::fs::write(&path, config)?;
        let mut command = testbed.our("cloudcore");
        command.arg("--config").arg(&path);
        if let Some(kubeconfig) = &testbed.cluster {
            command.arg("--kubeconfig").arg(kubeconfig);
        } else {
            command.arg("--standalone").arg("--standalone-dir").arg(testbed.folder.join("cloud"));
            command.arg("--standalone-listen").arg(format!("127.0.0.1:{}", ports.api));
        }
        testbed.cloudcore = Some(Daemon::start("cloudcore", &testbed.folder, &mut command)?);
        if self.broken == Some(Step::Cluster)
            && let Some(cloudcore) = &mut testbed.cloudcore
        {
            cloudcore.kill();
        }
        let (version, took) = testbed
            .until("the API server answers kubectl", LONG, |testbed| {
                if !testbed.kubeconfig().exists() {
                    return Ok(None);
                }
                let ready = testbed.kubectl(&["get", "--raw", "/readyz"])?;
                let served = testbed.kubectl(&["get", "crd", "devices.devices.kubeedge.io", "-o", "name"])?;
                let version = testbed.kubectl(&["get", "--raw", "/version"])?;
                let version: serde_json::Value = serde_json::from_str(&version).context("/version")?;
                let version = format!("Kubernetes API {}", version["gitVersion"].as_str().unwrap_or("?"));
                Ok((ready == "ok" && !served.is_empty()).then_some(version))
            })
            .await?;
        self.console.seen(took, &format!("cluster up: {version}"));
        Ok(())
    }

    async fn node(&mut self) -> Result<()> {
        let broken = self.is_broken(Step::Node);
        let testbed = &mut self.testbed;
        let (ports, address) = (&testbed.ports, testbed.address);
        let relay = Relay::start(address, ([127, 0, 0, 1], ports.link).into()).await?;
        let begun = Instant::now();
        let gettoken = || {
            let mut command = testbed.our("keadm");
            command.arg("gettoken").arg("--kube-config").arg(testbed.kubeconfig());
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
        let mut settings = testbed.host.edgecore_settings(&testbed.folder);
        settings.extend([
            format!("modules.edgeHub.quic.server={address}:{}", relay.port),
            "modules.edgeHub.websocket.enable=false".to_owned(),
            format!("modules.eventBus.mqttServerInternal=127.0.0.1:{}", testbed.ports.mqtt),
        ]);
        let mut command = testbed.ours_on_node("keadm");
        command.arg("join").arg(format!("--cloudcore-ipport={address}:{}", relay.port));
        command.arg(format!("--token={token}")).arg(format!("--edgenode-name={NODE}"));
        command.arg("--certport").arg(testbed.ports.enrolment.to_string());
        command.arg("--config").arg(testbed.edgecore_config());
        for setting in &settings {
            command.arg("--set").arg(setting);
        }
        said(&mut command, "")?;
        testbed.relay = Some(relay);
        testbed.start_edgecore()?;
        let (line, _) = testbed
            .until("the node is Ready", LONG, |testbed| {
                let line = testbed.kubectl(&["get", "node", NODE, "--no-headers"])?;
                Ok(line.split_whitespace().any(|word| word == "Ready").then_some(line))
            })
            .await?;
        self.console.seen(
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
        let testbed = &mut self.testbed;
        let begun = Instant::now();
        testbed.kubectl_with(&["apply", "-f", "-"], &manifest)?;
        let (address, _) = testbed
            .until("the Deployment's pod is Running and has an address", LONG, |testbed| {
                let path = "jsonpath={.items[0].status.phase} {.items[0].status.podIP}";
                let line = testbed.kubectl(&["get", "pods", "-l", "app=web", "-o", path])?;
                let mut words = line.split_whitespace();
                Ok((words.next() == Some("Running")).then(|| words.next().map(str::to_owned)).flatten())
            })
            .await?;
        let took = begun.elapsed();
        testbed
            .until("kubectl rollout status", LONG, |testbed| {
                testbed.kubectl(&["rollout", "status", "deployment/web", "--timeout=30s"]).map(Some)
            })
            .await?;
        let running = testbed.running("web")?;
        let [web] = running.as_slice() else {
            bail!("the runtime says {running:?} instead of one container")
        };
        self.web = web.clone();
        self.console.seen(took, &format!("kubectl apply → Running at {address}, container {}", short(web)));
        self.address = address;
        Ok(())
    }

    async fn http(&mut self) -> Result<()> {
        let address = self.address.clone();
        let (page, took) = self
            .testbed
            .until("an HTTP answer of the container", Duration::from_secs(20), |testbed| {
                testbed.page(&address).map(Some)
            })
            .await?;
        self.console.seen(took, &format!("http://{address}/ answers “{}”", page.trim()));
        Ok(())
    }

    /// The line stands there when it was written, and not when the log is read again.
    async fn logs(&mut self) -> Result<()> {
        let mut command = self.testbed.kubectl_command(&["logs", "-f", "deployment/web"]);
        let mut follower = Daemon::start("follower", &self.testbed.folder, &mut command)?;
        let log = self.testbed.folder.join("follower.log");
        let lines = |log: &Path| tail(log, usize::MAX).lines().filter(|line| is_answer(line)).count();
        let (before, _) = self
            .testbed
            .until("the log of the page so far", LONG, |_| Ok(Some(lines(&log)).filter(|lines| *lines > 0)))
            .await?;
        let (begun, address) = (Instant::now(), self.address.clone());
        if !self.is_broken(Step::Logs) {
            self.testbed.page(&address)?;
        }
        self.testbed
            .until("a new line in the log that is followed", Duration::from_secs(20), |_| {
                follower.check()?;
                Ok((lines(&log) > before).then_some(()))
            })
            .await?;
        let line = tail(&log, 1);
        self.console
            .seen(begun.elapsed(), &format!("kubectl logs -f shows the next answer: “{}”", line.trim()));
        Ok(())
    }

    async fn exec(&mut self) -> Result<()> {
        let script = "read name; echo \"$name on $(hostname)\"; exit 7";
        let script = if self.is_broken(Step::Exec) { "exit 7" } else { script };
        let name = self.testbed.kubectl(&[
            "get",
            "pods",
            "-l",
            "app=web",
            "-o",
            "jsonpath={.items[0].metadata.name}",
        ])?;
        let begun = Instant::now();
        let mut command = self.testbed.kubectl_command(&["exec", "-i", &name, "--", "sh", "-c", script]);
        let output = tokio::task::block_in_place(|| answered(&mut command, "typed here\n"))?;
        let (told, errors) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if told.trim() != format!("typed here on {name}") || output.status.code() != Some(7) {
            bail!(
                "kubectl exec printed “{}” and “{}”, and ended with {}",
                told.trim(),
                errors.trim(),
                output.status
            );
        }
        self.console.seen(
            begun.elapsed(),
            &format!("kubectl exec prints “{}” and ends with the command's 7", told.trim()),
        );
        Ok(())
    }

    async fn reported(&mut self) -> Result<()> {
        let broken = self.is_broken(Step::Reported);
        let testbed = &mut self.testbed;
        let script = testbed.folder.join("device.py");
        std::fs::write(&script, include_str!("device.py"))?;
        let mut command = testbed.python();
        command.arg(&script).arg(testbed.ports.device.to_string());
        testbed.device = Some(Daemon::start("device", &testbed.folder, &mut command)?);
        let folder = testbed.folder.display();
        let config = format!(
            "grpc_server:\n  socket_path: {folder}/dmi/modbus.sock\ncommon:\n  name: modbus-mapper\n  version: v1.0.0\n  \
             api_version: v1.0.0\n  protocol: modbus\n  address: 127.0.0.1\n  edgecore_sock: {folder}/dmi/dmi.sock\n"
        );
        let path = testbed.folder.join("mapper.yaml");
        std::fs::write(&path, config)?;
        if !broken {
            let mut command = testbed.ours_on_node("modbus-mapper");
            command.arg("--config-file").arg(&path);
            testbed.mapper = Some(Daemon::start("mapper", &testbed.folder, &mut command)?);
        }
        let manifest =
            include_str!("manifests/device.yaml").replace("DEVICE_PORT", &testbed.ports.device.to_string());
        let begun = Instant::now();
        testbed.kubectl_with(&["apply", "-f", "-"], &manifest)?;
        let (first, _) = testbed.until("the device's register in kubectl", LONG, reported).await?;
        let took = begun.elapsed();
        let (second, _) = testbed
            .until("another value of the register in kubectl", LONG, |testbed| {
                Ok(reported(testbed)?.filter(|value| *value != first))
            })
            .await?;
        self.console.seen(took, &format!("kubectl get devicestatus: temperature {first}, then {second}"));
        Ok(())
    }

    async fn desired(&mut self) -> Result<()> {
        if self.is_broken(Step::Desired) {
            self.testbed.mapper = None;
        }
        self.want(321)?;
        let ((), took) = self
            .testbed
            .until("the desired value in the register", Duration::from_secs(30), |testbed| {
                Ok((testbed.register(1)? == 321).then_some(()))
            })
            .await?;
        self.console.seen(took, "kubectl sets the setpoint to 321 → pymodbus reads 321 from the register");
        Ok(())
    }

    fn want(&self, value: i64) -> Result<()> {
        let patch =
            format!(r#"[{{"op":"replace","path":"/spec/properties/1/desired/value","value":"{value}"}}]"#);
        self.testbed.kubectl(&["patch", "device", "boiler-1", "--type=json", "-p", &patch]).map(drop)
    }

    async fn cut(&mut self) -> Result<()> {
        let broken = self.is_broken(Step::Cut);
        let Some(relay) = &self.testbed.relay else { bail!("there is no relay") };
        if !broken {
            relay.cut();
        }
        let before = relay.counters.crossed();
        let ((), took) = self
            .testbed
            .until("packets dropped by the relay, and none passed", Duration::from_secs(20), |testbed| {
                let Some(relay) = &testbed.relay else { return Ok(None) };
                let dropped = relay.counters.dropped.load(Ordering::Relaxed);
                Ok((dropped >= 3 && relay.counters.crossed() == before).then_some(()))
            })
            .await?;
        self.console.seen(took, "the link is cut: the relay drops every packet");
        Ok(())
    }

    async fn restart(&mut self) -> Result<()> {
        if self.is_broken(Step::Restart) {
            self.testbed.edgecore = None;
        }
        let testbed = &mut self.testbed;
        let old = self.web.clone();
        said(testbed.host.ctr().args(["tasks", "kill", "--signal", "SIGKILL", &old]), "")?;
        let (web, took) = testbed
            .until("the killed container runs again", Duration::from_secs(30), |testbed| {
                Ok(testbed.running("web")?.into_iter().find(|id| *id != old))
            })
            .await?;
        self.console
            .seen(took, &format!("container killed, without the cloud: {} → {}", short(&old), short(&web)));
        self.web = web;
        let address = self.address.clone();
        self.testbed
            .until("its HTTP answer", Duration::from_secs(20), |testbed| testbed.page(&address).map(Some))
            .await?;
        Ok(())
    }

    async fn twin(&mut self) -> Result<()> {
        if self.is_broken(Step::Twin) {
            self.testbed.device = None;
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
        self.console.seen(
            begun.elapsed(),
            &format!(
                "twin on MQTT, without the cloud: mosquitto_sub reads temperature {first}, then {second}"
            ),
        );
        Ok(())
    }

    /// Asks for the twin as any MQTT client does, and reads the answer with `mosquitto_sub`.
    async fn mqtt_temperature(&mut self) -> Result<String> {
        let port = self.testbed.ports.mqtt.to_string();
        let mut subscriber = self.testbed.host.command("mosquitto_sub");
        let topic = "$hw/events/device/default/boiler-1/twin/get";
        let result = format!("{topic}/result");
        let reader = std::thread::spawn({
            let port = port.clone();
            move || said(subscriber.args(["-p", &port, "-t", &result, "-C", "1", "-W", "10"]), "")
        });
        while !reader.is_finished() {
            let mut publisher = self.testbed.host.command("mosquitto_pub");
            said(publisher.args(["-p", &port, "-q", "1", "-t", topic, "-m", "{}"]), "")?;
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
        if let Some(edgecore) = &mut self.testbed.edgecore {
            edgecore.end();
        }
        self.testbed.edgecore = None;
        if broken {
            said(self.testbed.host.ctr().args(["tasks", "kill", "--signal", "SIGKILL", &self.web]), "")?;
        }
        self.testbed.start_edgecore()?;
        // The new one is at work when its broker answers.
        let temperature = loop {
            match self.mqtt_temperature().await {
                Ok(temperature) => break temperature,
                Err(error) if begun.elapsed() > Duration::from_secs(30) => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        };
        let address = self.address.clone();
        self.testbed
            .until("the page", Duration::from_secs(20), |testbed| testbed.page(&address).map(Some))
            .await?;
        let running = self.testbed.running("web")?;
        if running != [self.web.clone()] {
            bail!("the runtime says {running:?} instead of {} alone", self.web);
        }
        self.console.seen(
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
        self.testbed.kubectl(&["patch", "configmap", "page", "--type=merge", "-p", patch])?;
        self.testbed.kubectl(&["delete", "pod", "extra", "--wait=false"])?;
        self.want(654)?;
        self.console.line(
            "             meanwhile in the cloud: a config map changed, a pod deleted, a setpoint set to 654",
        );
        if self.testbed.register(1)? != 321 || self.testbed.running("extra")?.len() != 1 {
            bail!("something of it arrived over a link that is cut");
        }
        let broken = self.is_broken(Step::Catchup);
        let Some(relay) = &self.testbed.relay else { bail!("there is no relay") };
        let before = relay.counters.crossed();
        if !broken {
            relay.mend();
        }
        let begun = Instant::now();
        let (address, limit) = (self.address.clone(), Duration::from_secs(30));
        let (mut page, mut gone, mut set) = (None, None, None);
        self.testbed
            .until("all three changes on the node", limit, |testbed| {
                let seen = |at: &mut Option<Duration>, holds: bool| {
                    if holds && at.is_none() {
                        *at = Some(begun.elapsed());
                    }
                };
                seen(&mut set, testbed.register(1)? == 654);
                seen(&mut gone, testbed.running("extra")?.is_empty());
                seen(&mut page, testbed.page(&address)?.trim() == "hello again");
                Ok((page.is_some() && gone.is_some() && set.is_some()).then_some(()))
            })
            .await?;
        let seconds = |at: Option<Duration>| at.unwrap_or_default().as_secs_f64();
        let Some(relay) = &self.testbed.relay else { bail!("there is no relay") };
        let crossed = relay.counters.crossed() - before;
        self.console.seen(
            begun.elapsed(),
            &format!(
                "link back: setpoint {:.1} s, pod gone {:.1} s, page {:.1} s; {crossed} bytes crossed",
                seconds(set),
                seconds(gone),
                seconds(page),
            ),
        );
        self.testbed
            .until("the deleted pod leaves the API", limit, |testbed| {
                Ok(testbed
                    .kubectl(&["get", "pod", "extra", "--ignore-not-found", "-o", "name"])?
                    .is_empty()
                    .then_some(()))
            })
            .await?;
        let running = self.testbed.running("web")?;
        if running != [self.web.clone()] {
            bail!("the untouched pod's container is {running:?} and was {}", self.web);
        }
        self.testbed
            .until("the node is Ready again", LONG, |testbed| {
                let line = testbed.kubectl(&["get", "node", NODE, "--no-headers"])?;
                Ok(line.split_whitespace().any(|word| word == "Ready").then_some(()))
            })
            .await?;
        self.console.line(&format!("             the untouched pod kept its container {}", short(&self.web)));
        Ok(())
    }
}

/// What the device reported, by kubectl's word.
fn reported(testbed: &Testbed<'_>) -> Result<Option<String>> {
    let path = r#"jsonpath={.status.twins[?(@.propertyName=="temperature")].reported.value}"#;
    let value = testbed.kubectl(&["get", "devicestatus", "boiler-1", "-o", path])?;
    Ok(Some(value.trim().to_owned()).filter(|value| !value.is_empty()))
}

/// A line by which `httpd -v` says that it has answered.
fn is_answer(line: &str) -> bool {
    line.contains("response:200")
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
