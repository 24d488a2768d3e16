//! Writes what nodes report to DeviceStatus objects.

use std::time::{Duration, SystemTime};

use beehive::defect::{self, Defect};
use beehive::{Address, Env, Fault};
use contract::ids::REPORTED_ANNOTATION;
use contract::nodelease::NodeLeaseMsg;
use contract::parsed::DeviceName;
use fairshare::{RefusedReport, RepeatedReasons, ReportSender, Traffic};
use kube::api::{Api, ApiResource, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams};
use kubewatch::status_code;
use serde_json::{Value, json};

use crate::calls;
use crate::conditions::{self, OwnWord};
use crate::error::DeviceReportError;
use crate::plan;
use crate::report_versions::{self, Row, SessionOrder};
use crate::summary;

/// How often a write is tried again when somebody else wrote in between.
const CONFLICT_TRIES: usize = 5;
/// 5 s for an answer who has a node: a read of its Lease.
const HOLDS_DEADLINE: Duration = Duration::from_secs(5);

fn resource(plural: &str, kind: &str) -> ApiResource {
    ApiResource {
        group: "devices.kubeedge.io".to_owned(),
        version: "v1beta1".to_owned(),
        api_version: "devices.kubeedge.io/v1beta1".to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

/// RFC 3339 in whole seconds.
fn rfc3339(now: SystemTime) -> String {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let second = i64::try_from(since.as_secs()).unwrap_or_default();
    jiff::Timestamp::from_second(second).unwrap_or_default().to_string()
}

/// Makes sure that the device has its DeviceStatus, owned by it, and that CloudCore's own word stands there.
///
/// Answers whether it was written.
///
/// # Errors
/// What the API server said, except that it is there already; that what is there is of an earlier device of that name, which the
/// garbage collector is about to remove.
pub(crate) async fn ensure_status(
    client: &kube::Client,
    namespace: &str,
    name: &str,
    uid: &str,
    word: &OwnWord,
    now: SystemTime,
) -> Result<bool, DeviceReportError> {
    let statuses = statuses(client, namespace);
    for _ in 0..CONFLICT_TRIES {
        let Some(held) = statuses.get_opt(name).await? else {
            match create(&statuses, (namespace, name, uid), word, now).await {
                Err(error) if status_code(&error) == Some(409) => continue,
                created => return Ok(created.map(|()| true)?),
            }
        };
        if !is_of(&held.metadata, uid) {
            return Err(DeviceReportError::OfEarlierDevice);
        }
        let versions = reported(&held.metadata).and_then(|text| report_versions::parse(text));
        let mut status = held.data.get("status").cloned().unwrap_or(Value::Null);
        let reporter = versions.as_ref().map(|versions| versions.node.as_str());
        let is_said = !conditions::take_own(&mut status, word, reporter, &rfc3339(now));
        let is_called = !calls::take_own(&mut status, word.unsent.as_ref(), &rfc3339(now));
        let is_owned = held.metadata.owner_references.iter().flatten().count() > 0;
        if !summary::take(&mut status) && is_said && is_called && is_owned {
            return Ok(false);
        }
        let mut metadata = json!({ "resourceVersion": held.metadata.resource_version });
        if !is_owned {
            metadata["ownerReferences"] = owners(name, uid);
        }
        let patch = json!({ "metadata": metadata, "status": { "extensions": status["extensions"] } });
        match statuses.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Err(error) if matches!(status_code(&error), Some(404 | 409)) => {}
            written => return Ok(written.map(|_| true)?),
        }
    }
    Err(DeviceReportError::Contended)
}

/// Takes back what CloudCore has said of a device, whose node is another's now: nothing else of its DeviceStatus is written, and none is
/// made.
///
/// Answers whether it was written.
///
/// # Errors
/// What the API server said.
pub(crate) async fn take_back(
    client: &kube::Client,
    namespace: &str,
    name: &str,
    uid: &str,
) -> Result<bool, DeviceReportError> {
    let statuses = statuses(client, namespace);
    for _ in 0..CONFLICT_TRIES {
        let Some(held) = statuses.get_opt(name).await? else { return Ok(false) };
        let mut status = held.data.get("status").cloned().unwrap_or(Value::Null);
        if !is_of(&held.metadata, uid) || !conditions::forget_own(&mut status) {
            return Ok(false);
        }
        summary::take(&mut status);
        let metadata = json!({ "resourceVersion": held.metadata.resource_version });
        let patch = json!({ "metadata": metadata, "status": { "extensions": status["extensions"] } });
        match statuses.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Err(error) if matches!(status_code(&error), Some(404 | 409)) => {}
            written => return Ok(written.map(|_| true)?),
        }
    }
    Err(DeviceReportError::Contended)
}

async fn create(
    statuses: &Api<DynamicObject>,
    (namespace, name, uid): (&str, &str, &str),
    word: &OwnWord,
    now: SystemTime,
) -> Result<(), kube::Error> {
    let mut said = json!({});
    conditions::take_own(&mut said, word, None, &rfc3339(now));
    calls::take_own(&mut said, word.unsent.as_ref(), &rfc3339(now));
    summary::take(&mut said);
    let status = json!({
        "apiVersion": "devices.kubeedge.io/v1beta1",
        "kind": "DeviceStatus",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "ownerReferences": owners(name, uid),
        },
        "spec": {},
        "status": said,
    });
    let status: DynamicObject = serde_json::from_value(status).map_err(kube::Error::SerdeError)?;
    statuses.create(&PostParams::default(), &status).await.map(drop)
}

/// The owner of a DeviceStatus: its Device, with which it goes.
fn owners(name: &str, uid: &str) -> Value {
    json!([{
        "apiVersion": "devices.kubeedge.io/v1beta1",
        "kind": "Device",
        "name": name,
        "uid": uid,
        "controller": true,
    }])
}

/// What the node has said, by its versions.
fn reported(status: &ObjectMeta) -> Option<&String> {
    status.annotations.as_ref()?.get(REPORTED_ANNOTATION)
}

/// Whether the DeviceStatus is that of the device of this uid. One that names no device was made by somebody else, for the name, or lost its
/// owner with the device before (`kubectl delete device --cascade=orphan`).
fn is_of(status: &ObjectMeta, uid: &str) -> bool {
    let owner = status.owner_references.iter().flatten().find(|owner| owner.kind == "Device");
    owner.is_none_or(|owner| owner.uid == uid)
}

fn statuses(client: &kube::Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &resource("devicestatuses", "DeviceStatus"))
}

/// Writes what nodes report.
pub(crate) struct DeviceStatusWriter {
    pub(crate) client: kube::Client,
    /// Says who has a node.
    pub(crate) lease: Address<NodeLeaseMsg>,
    /// What is read and written for each node.
    pub(crate) traffic: Traffic,
    /// Why reports of each node are not written.
    pub(crate) unwritten: RepeatedReasons,
    pub(crate) env: Env,
}

impl DeviceStatusWriter {
    /// Writes the reports of one device. `Ok` means: written, older than what is held, or never possible; and `Some` why it
    /// was not the node's to say.
    pub(crate) async fn write(
        &self,
        from: &ReportSender,
        device: &DeviceName,
        reports: &[Row],
    ) -> Result<Option<RefusedReport>, DeviceReportError> {
        let (about, namespace, name) = (format!("Device {device}"), &*device.namespace, &*device.name);
        let devices: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), namespace, &resource("devices", "Device"));
        let statuses = statuses(&self.client, namespace);
        for _ in 0..CONFLICT_TRIES {
            // The status is read first and written as it was read. Whatever is read after it, who has the device and who
            // has the node, held until then: others write only after it has changed.
            let held = statuses.get_opt(name).await?;
            self.traffic.add(&from.node, &held);
            let Some(device) = devices.get_opt(name).await? else { return Ok(None) };
            self.traffic.add(&from.node, &device);
            if plan::node_of(&device.data).as_ref() != Some(&from.node) {
                return Ok(Some(RefusedReport::new(about, "it is a device of another node")));
            }
            let uid = device.metadata.uid.unwrap_or_default();
            let Some(held) = held else {
                // Made alone: what CloudCore itself says of the device is the controller's, who may have made it meanwhile.
                let named = (namespace, name, uid.as_str());
                match create(&statuses, named, &OwnWord::default(), self.env.wall()).await {
                    Err(error) if status_code(&error) != Some(409) => return Err(error.into()),
                    Ok(()) | Err(_) => continue,
                }
            };
            // What is written into one that goes would be confirmed to the node, and gone with it.
            if !is_of(&held.metadata, &uid) {
                return Err(DeviceReportError::OfEarlierDevice);
            }
            let Some(patch) = self.patch(from, &held, reports).await? else { return Ok(None) };
            match statuses.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                Ok(written) => {
                    self.traffic.add(&from.node, &written);
                    return Ok(None);
                }
                Err(error) if matches!(status_code(&error), Some(404 | 409)) => {}
                Err(error) if matches!(status_code(&error), Some(400 | 413 | 422)) => {
                    let why = RefusedReport::new(about, "the API server can never take it");
                    return Ok(Some(why.because(Fault::from_error(&error).reason)));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(DeviceReportError::Contended)
    }

    /// What makes `held` hold the reports; `None` if it holds them, or newer ones.
    async fn patch(
        &self,
        from: &ReportSender,
        held: &DynamicObject,
        reports: &[Row],
    ) -> Result<Option<Value>, DeviceReportError> {
        let mut held_versions = reported(&held.metadata).and_then(|text| report_versions::parse(text));
        let is_new_reporter = held_versions.as_ref().is_some_and(|held| held.node != from.node.as_str());
        match report_versions::compare(held_versions.as_ref(), &from.node, from.session) {
            SessionOrder::Write => {}
            SessionOrder::Later if defect::is_planted(Defect::StaleOwner) => held_versions = None,
            SessionOrder::Later if self.holds(from).await? => held_versions = None,
            SessionOrder::Later => return Err(DeviceReportError::Superseded),
        }
        let (versions, news) = report_versions::take(held_versions, &from.node, from.session, reports);
        if news.is_empty() {
            return Ok(None);
        }
        let mut status = held.data.get("status").cloned().unwrap_or(Value::Null);
        if is_new_reporter {
            conditions::forget_nodes(&mut status);
        }
        // Written even if nothing else is new: the version is what keeps an older report out.
        plan::merge(&mut status, &news);
        summary::take(&mut status);
        let versions = serde_json::to_string(&versions).map_err(kube::Error::SerdeError)?;
        let metadata = json!({
            "resourceVersion": held.metadata.resource_version,
            "annotations": { REPORTED_ANNOTATION: versions },
        });
        Ok(Some(json!({ "metadata": metadata, "status": status })))
    }

    async fn holds(&self, ReportSender { node, session }: &ReportSender) -> Result<bool, DeviceReportError> {
        let ask = |reply| NodeLeaseMsg::Holds { node: node.clone(), session: *session, reply };
        let asked = self.lease.ask(HOLDS_DEADLINE, ask).await;
        asked.map_err(|error| error.to_string()).flatten().map_err(DeviceReportError::Lease)
    }
}
