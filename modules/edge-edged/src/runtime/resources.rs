//! What a pod may use, in the words of the runtime: shares, quotas.

use std::collections::BTreeMap;

use apimachinery::Quantity;
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as QuantityText;

/// The period of CPU quotas, in microseconds (cpuCFSQuotaPeriod, 100 ms).
pub(crate) const PERIOD_US: i64 = 100_000;
/// The kernel refuses less.
const QUOTA_MIN_US: i64 = 1000;
const SHARES_MIN: i64 = 2;
const SHARES_MAX: i64 = 262_144;

/// Kubernetes' classes of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Qos {
    /// Every container has limits for both, equal to its requests.
    Guaranteed,
    /// Something is asked for.
    Burstable,
    /// Nothing is asked for.
    BestEffort,
}

impl Qos {
    /// As in `status.qosClass`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Qos::Guaranteed => "Guaranteed",
            Qos::Burstable => "Burstable",
            Qos::BestEffort => "BestEffort",
        }
    }
}

/// One container's numbers; 0 means: not said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amounts {
    pub(crate) cpu_request: i64,
    pub(crate) cpu_limit: i64,
    pub(crate) memory_request: i64,
    pub(crate) memory_limit: i64,
}

/// The amount, if the text is one.
pub(crate) fn quantity(text: &QuantityText) -> Option<Quantity> {
    text.0.parse().ok()
}

pub(crate) fn amounts(resources: Option<&ResourceRequirements>) -> Amounts {
    let Some(resources) = resources else { return Amounts::default() };
    let get = |map: &Option<BTreeMap<String, QuantityText>>, key: &str| {
        map.as_ref().and_then(|map| quantity(map.get(key)?)).unwrap_or_default()
    };
    let cpu = |map| get(map, "cpu").millis();
    let memory = |map| get(map, "memory").units();
    let (cpu_limit, memory_limit) = (cpu(&resources.limits), memory(&resources.limits));
    let or = |request: i64, limit: i64| if request == 0 { limit } else { request };
    Amounts {
        cpu_request: or(cpu(&resources.requests), cpu_limit),
        cpu_limit,
        memory_request: or(memory(&resources.requests), memory_limit),
        memory_limit,
    }
}

pub(crate) fn shares(milli_cpu: i64) -> i64 {
    (milli_cpu.saturating_mul(1024) / 1000).clamp(SHARES_MIN, SHARES_MAX)
}

pub(crate) fn quota(milli_cpu: i64) -> i64 {
    if milli_cpu == 0 { 0 } else { (milli_cpu.saturating_mul(PERIOD_US) / 1000).max(QUOTA_MIN_US) }
}
