//! How long a start takes, beside the same calls made bare.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use cri::Runtime;
use cri::v1::{
    ContainerConfig, ContainerMetadata, ImageSpec, LinuxContainerConfig, LinuxPodSandboxConfig,
    PodSandboxConfig, PodSandboxMetadata,
};
use serde_json::json;

use crate::node::{Machine, Node, WAITS, pod, run};

const ROUNDS: usize = 5;
/// The bar of the project.
const TIMES_MAX: u32 = 2;

async fn bare(runtime: &dyn Runtime, host: &Machine, round: usize) -> Duration {
    let config = PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: format!("bare{round}"),
            uid: format!("bare{round}"),
            namespace: "default".into(),
            attempt: 0,
        }),
        hostname: "bare".into(),
        log_directory: host.dir().join("bare").display().to_string(),
        labels: HashMap::new(),
        linux: Some(LinuxPodSandboxConfig::default()),
        ..PodSandboxConfig::default()
    };
    let container = ContainerConfig {
        metadata: Some(ContainerMetadata { name: "c".into(), attempt: 0 }),
        image: Some(ImageSpec { image: testhost::BUSYBOX.into(), ..ImageSpec::default() }),
        command: vec!["/bin/sh".into(), "-c".into(), WAITS.into()],
        log_path: "c.log".into(),
        linux: Some(LinuxContainerConfig::default()),
        ..ContainerConfig::default()
    };
    let start = Instant::now();
    let sandbox = runtime.run_sandbox(config.clone()).await.unwrap();
    let id = runtime.create_container(&sandbox, container, config).await.unwrap();
    runtime.start_container(&id).await.unwrap();
    let took = start.elapsed();
    runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    runtime.stop_sandbox(&sandbox).await.unwrap();
    runtime.remove_sandbox(&sandbox).await.unwrap();
    took
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[test]
fn a_start_takes_at_most_twice_the_bare_calls() {
    run(async {
        let host = Machine::new("speed");
        let node = Node::start(&host);
        bare(node.runtime.as_ref(), &host, 99).await;
        let (mut raw, mut own) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            raw.push(bare(node.runtime.as_ref(), &host, round).await);
            let name = format!("p{round}");
            let start = Instant::now();
            node.apply(&[pod(&name, WAITS, json!({}))]).await;
            node.until_ready(&name).await;
            own.push(start.elapsed());
        }
        let (raw, own) = (median(raw), median(own));
        eprintln!("bare calls {raw:?}, Edged {own:?}: {:.2} times", own.as_secs_f64() / raw.as_secs_f64());
        assert!(own < raw * TIMES_MAX, "bare calls {raw:?}, Edged {own:?}");
    });
}

#[test]
fn many_pods_start_beside_each_other() {
    const MANY: usize = 12;
    run(async {
        let host = Machine::new("many");
        let node = Node::start(&host);
        let names: Vec<String> = (0..MANY).map(|number| format!("p{number}")).collect();
        let pods: Vec<_> = names.iter().map(|name| pod(name, WAITS, json!({}))).collect();
        let start = Instant::now();
        node.apply(&pods).await;
        for name in &names {
            node.until_ready(name).await;
        }
        eprintln!("{MANY} pods in {:?}", start.elapsed());
        let before = node.store.snapshot().batches;
        // Nothing changed: looking again tells nothing.
        node.apply(&[]).await;
        assert_eq!(node.snapshot().await["pods"], json!({"Running": MANY}));
        let reports = node.reports().len();
        assert!(node.store.snapshot().batches - before <= 3, "{reports} reports");
    });
}
