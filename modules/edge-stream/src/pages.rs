//! The pages of figures, and what the process is.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use contract::stream::{StreamRequest, header};

use crate::answer::Reply;
use crate::error::Refusal;
use crate::handler::Kubelet;
use crate::plan::Page;
use crate::stats::cgroup::Tree;
use crate::stats::process::Process;
use crate::stats::sample::Sample;
use crate::stats::{cadvisor, exposition, kubelet, probes, proc, processes, resource};
use crate::zpages;

impl Kubelet {
    pub(crate) async fn metrics_page(&self, page: Page) -> Result<Reply, Refusal> {
        let text = match page {
            // The families are there once a pod has probes that are run.
            Page::Probes => probes::page(&self.metrics),
            Page::Slis => {
                let started = self.process_started().await?;
                self.health.page(started.as_secs_f64())
            }
            Page::Resource => resource::page(self.sample().await.as_deref()),
            Page::Kubelet => {
                let (sample, volumes) = tokio::join!(self.sample(), self.volumes());
                let own = self.disk.blocking(|| Ok(Process::look())).await;
                let own = own.map_err(|error| Refusal::failed(error.to_string()))?;
                let who = (self.settings.node.as_str(), self.settings.version.as_str());
                kubelet::page(who, &own, sample.as_deref(), &volumes, &self.metrics)
            }
            Page::Cadvisor => {
                let sample = self.stats.sample().await.map_err(|error| Refusal::of_runtime(&error))?;
                let tree = Tree::at(&self.settings.cgroups);
                let look = move || Ok(cadvisor::page(&sample, |path| processes::of(&tree, path)));
                let page = self.disk.blocking(look).await;
                page.map_err(|error| Refusal::failed(error.to_string()))?
            }
        };
        Ok(Reply::new(exposition::CONTENT_TYPE, text))
    }

    async fn sample(&self) -> Option<Arc<Sample>> {
        match self.stats.sample().await {
            Ok(sample) => Some(sample),
            Err(error) => {
                tracing::debug!(%error, "no statistics");
                None
            }
        }
    }

    pub(crate) async fn statusz(&self, request: &StreamRequest) -> Result<Reply, Refusal> {
        let now = self.clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        zpages::statusz(header(&request.headers, "accept"), self.process_started().await?, now)
    }

    /// Since 1970.
    async fn process_started(&self) -> Result<Duration, Refusal> {
        let started = self.disk.blocking(|| Ok(proc::process_started())).await;
        started.map_err(|error| Refusal::failed(error.to_string()))
    }
}
