//! A mapper whose device pushes, and targets that are scripts.

use std::path::Path;
use std::time::Duration;

use dmi::v1beta1::{Device, PushMethod, UpdateDeviceRequest};
use framework::{Credentials, Value};
use serde_json::Value as Json;

use crate::edgecore::{EdgeCore, Mapper, config, eventually};
use crate::python::Script;
use crate::shelf::{FakeProtocol, levels, room};

/// For everything that a test waits for.
const DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks at what nobody tells about.
const PAUSE: Duration = Duration::from_millis(5);
/// 2^53 + 1: what a number with a fraction of 64 bits does not hold.
pub(crate) const LARGE: i128 = 9_007_199_254_740_993;

/// A mapper of a device `one` with a number `level` and a text `label`.
pub(crate) struct Pushing {
    pub(crate) edgecore: EdgeCore,
    pub(crate) shelf: FakeProtocol,
    pub(crate) mapper: Mapper,
    folder: tempfile::TempDir,
}

fn start_mapper(folder: &Path, shelf: &FakeProtocol) -> Mapper {
    let credentials = Credentials {
        token: "t0ken".to_owned(),
        username: "root".to_owned(),
        password: "pass'word".to_owned(),
    };
    let config = framework::Config { credentials, ..config(folder, "shelf") };
    Mapper::start_with(config, shelf.clone())
}

/// Where the two properties are pushed; `None`: nowhere.
pub(crate) fn device(level: Option<PushMethod>, label: Option<PushMethod>) -> Device {
    let mut device = room("one");
    let properties = &mut device.spec.as_mut().unwrap().properties;
    properties[0].push_method = level;
    properties[1].push_method = label;
    device
}

impl Pushing {
    /// The number is 7 then, and was read; the text is jam.
    pub(crate) async fn start(device: Device) -> Self {
        let is_told = device.spec.as_ref().unwrap().properties[0].report_to_cloud;
        let folder = tempfile::tempdir().unwrap();
        let edgecore = EdgeCore::at(folder.path());
        {
            let mut objects = edgecore.objects.lock().unwrap();
            objects.models = vec![levels()];
            objects.devices = vec![device];
        }
        edgecore.start();
        let shelf = FakeProtocol::default();
        shelf.put(1, Value::Int(7));
        shelf.put(2, Value::Text("jam".to_owned()));
        let mapper = start_mapper(folder.path(), &shelf);
        if is_told {
            edgecore.until_value("one", "level", "7").await;
        }
        Pushing { edgecore, shelf, mapper, folder }
    }

    /// The mapper ends, and another one begins with what it has left.
    pub(crate) async fn restart(self) -> Self {
        let Pushing { edgecore, shelf, mapper, folder } = self;
        mapper.stop().await;
        let mapper = start_mapper(folder.path(), &shelf);
        Pushing { edgecore, shelf, mapper, folder }
    }

    /// How many files there are of readings that wait.
    pub(crate) fn kept(&self) -> usize {
        let entries = std::fs::read_dir(self.folder.path()).unwrap().flatten();
        let folders = entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(".push"));
        folders.map(|folder| std::fs::read_dir(folder.path()).unwrap().count()).sum()
    }

    /// The number is read as this at least once.
    pub(crate) async fn level(&self, level: i128) {
        self.shelf.put(1, Value::Int(level));
        self.edgecore.until_value("one", "level", &level.to_string()).await;
    }

    /// The text is read as this at least once.
    pub(crate) async fn label(&self, label: &str) {
        self.shelf.put(2, Value::Text(label.to_owned()));
        self.edgecore.until_value("one", "label", label).await;
    }

    pub(crate) async fn update(&mut self, device: Device) {
        self.mapper.calls.update_device(UpdateDeviceRequest { device: Some(device) }).await.unwrap();
    }

    /// Waits until this is said beside a property's value.
    pub(crate) async fn until_said(&self, property: &'static str, words: &'static str) {
        let said = move |heard: &crate::edgecore::ReceivedReports| {
            heard.fault("one", property)?.contains(words).then_some(())
        };
        self.edgecore.until(&format!("{property}: {words}"), said).await;
    }

    /// Waits until nothing is said beside a property's value any more.
    pub(crate) async fn until_well(&self, property: &'static str) {
        let well = move |heard: &crate::edgecore::ReceivedReports| {
            (heard.last("one", property).is_some() && heard.fault("one", property).is_none()).then_some(())
        };
        self.edgecore.until(&format!("{property} is well"), well).await;
    }
}

/// A database that keeps its rows when it ends.
pub(crate) trait Database {
    fn stop(&mut self);
    /// Starts it again, and waits until it answers.
    async fn again(&mut self);
    /// The values that it has of a property, in its order.
    fn values(&self, property: &str) -> Vec<String>;
}

/// Readings that wait for a database that is away come in order, twice, and each once. The last one was 10.
pub(crate) async fn comes_after_cuts<D: Database>(
    database: &mut D,
    to: impl Fn(&D) -> Option<PushMethod>,
) -> Pushing {
    database.stop();
    let pushing = Pushing::start(device(to(database), None)).await;
    pushing.until_said("level", "no connection").await;
    pushing.level(8).await;
    database.again().await;
    eventually("what waited", async || database.values("level").contains(&"8".to_owned())).await;
    // Its answer has come too: a batch whose answer is lost comes again, and 8 would not be the last one.
    pushing.until_well("level").await;
    database.stop();
    pushing.until_said("level", "readings wait").await;
    pushing.level(9).await;
    database.again().await;
    pushing.level(10).await;
    eventually("the last one", async || database.values("level").contains(&"10".to_owned())).await;
    pushing.until_well("level").await;
    assert_eq!(database.values("level"), ["7", "8", "9", "10"]);
    pushing
}

/// A target that is a script of `targets/`.
pub(crate) struct Target {
    pub(crate) script: Script,
    pub(crate) port: u16,
}

impl Target {
    pub(crate) fn start(packages: &[&str], name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/push/targets").join(name);
        let script = Script::start(packages, &path, &[]);
        let port = script.first.parse().unwrap();
        Target { script, port }
    }

    /// What it has taken.
    pub(crate) fn took(&mut self) -> Vec<Json> {
        serde_json::from_str(&self.script.ask("took")).unwrap()
    }

    /// Waits until it has taken something.
    pub(crate) async fn until_took(&mut self, what: &str, is_it: impl Fn(&Json) -> bool) {
        let wait = async {
            while !self.took().iter().any(&is_it) {
                tokio::time::sleep(PAUSE).await;
            }
        };
        let is_there = tokio::time::timeout(DEADLINE, wait).await.is_ok();
        assert!(is_there, "{what} did not come; it took {:#?}", self.took());
    }

    /// Waits until somebody has asked it.
    pub(crate) async fn until_asked(&mut self) {
        let wait = async {
            while self.script.ask("asked") == "0" {
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.expect("nobody asked it");
    }
}

/// A sequence without its repetitions.
pub(crate) fn distinct<T: PartialEq>(all: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut distinct: Vec<T> = Vec::new();
    for each in all {
        if distinct.last() != Some(&each) {
            distinct.push(each);
        }
    }
    distinct
}
