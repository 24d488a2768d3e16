//! A pod that shows which version of a config map has reached it.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::json;

use crate::Testbed;
use crate::pods::{self, RunningContainer, SETTINGS};
use crate::testbed::LONG;

/// The stage with such a pod on it.
pub(crate) struct ConfigMapPod<'a> {
    pub(crate) testbed: &'a mut Testbed,
    pod: RunningContainer,
    version: u64,
}

impl<'a> ConfigMapPod<'a> {
    /// Brings the pod up.
    pub(crate) async fn new(testbed: &'a mut Testbed) -> Result<ConfigMapPod<'a>> {
        testbed.kubectl.apply(&pods::needs(0)).await?;
        testbed.kubectl.apply(&[pods::deployment(1)]).await?;
        let (pod, _) = testbed
            .until("the pod runs", LONG, async |testbed| {
                let running = pods::running(&testbed.host).await?;
                let Some(pod) = running.into_iter().next() else { return Ok(None) };
                pod.check_files(0)?;
                Ok(Some(pod))
            })
            .await?;
        Ok(ConfigMapPod { testbed, pod, version: 0 })
    }

    /// The pod's name.
    pub(crate) fn pod(&self) -> &str {
        &self.pod.pod
    }

    /// Makes a change and answers how long it took to the node.
    pub(crate) async fn change(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        self.patch().await?;
        self.arrival(LONG).await?;
        Ok(begun.elapsed())
    }

    /// Makes a change.
    pub(crate) async fn patch(&mut self) -> Result<()> {
        self.version += 1;
        let patch = json!({"data": pods::settings(self.version)});
        self.testbed.kubectl.merge("configmap", SETTINGS, &patch).await
    }

    /// Waits for the last change in the pod.
    pub(crate) async fn arrival(&mut self, limit: Duration) -> Result<Duration> {
        let (pod, version) = (self.pod.clone(), self.version.to_string());
        let what = "the change of the config map in the pod";
        let ((), took) =
            self.testbed.until(what, limit, async |_| Ok((pod.round()? == version).then_some(()))).await?;
        Ok(took)
    }

    /// The pod was left alone, and the node is Ready.
    pub(crate) async fn is_whole(&mut self) -> Result<()> {
        let running = pods::running(&self.testbed.host).await?;
        if running.iter().map(|pod| &pod.container).ne([&self.pod.container]) {
            bail!("the container of {} is another now", self.pod.pod);
        }
        self.testbed.until("the node is Ready", LONG, async |testbed| testbed.ready().await).await?;
        Ok(())
    }
}
