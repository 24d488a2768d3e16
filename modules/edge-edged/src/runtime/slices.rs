//! The pods' slices, as systemd knows them. It owns their cgroups: what was only written there it takes away when it reads its units again
//! (`systemctl daemon-reload`, and so any package with a unit), and a slice that nobody stops stays until the machine ends. So, as by a kubelet
//! (runc's `libcontainer/cgroups/systemd`), it is told when one begins, what bounds it, and when it ends. Blocks.

use std::io;
use std::path::PathBuf;

use crate::dbus::Argument::{Flag, NoUnits, Properties, Text};
use crate::dbus::{Argument, BlockingBus, Method, Property};
use crate::pod::id::PodId;
use crate::pod::parsed_pod::ParsedPod;
use crate::runtime::cgroup::{self, Bounds};
use crate::runtime::kubepods::NodeBounds;
use crate::runtime::resources::{self, PERIOD_US, Qos};
use crate::runtime::sandbox::cgroup_parts;
use crate::settings::Settings;
use config::edge::CgroupDriver;

const SYSTEMD: &str = "org.freedesktop.systemd1";
/// A unit of that name is there.
const EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
/// There is none.
const NONE: &str = "org.freedesktop.systemd1.NoSuchUnit";
/// Microseconds of CPU in a second that mean no bound.
const NO_QUOTA: u64 = u64::MAX;
/// systemd keeps a quota in whole hundredths of a CPU.
const QUOTA_STEP: u64 = 10_000;

/// Where systemd is told of slices.
#[derive(Debug, Clone)]
pub(crate) struct Slices {
    bus: PathBuf,
    /// `/sys/fs/cgroup`.
    sys: PathBuf,
    root: String,
}

/// What a slice is bounded by, in the names of systemd's properties.
type Bound = Vec<(&'static str, Property<'static>)>;

impl Slices {
    /// `None`: the node makes its cgroups itself.
    pub(crate) fn of(settings: &Settings) -> Option<Slices> {
        (settings.cgroup_driver == CgroupDriver::Systemd).then(|| Slices {
            bus: settings.system_bus.clone(),
            sys: settings.cgroups.clone(),
            root: settings.cgroup_root.clone(),
        })
    }

    /// Has a pod's slice begin, with its bounds, before its sandbox.
    ///
    /// # Errors
    /// The bus' or systemd's word.
    pub(crate) fn begin(&self, pod: &ParsedPod) -> io::Result<()> {
        self.hold(&self.name(&pod.id, pod.qos), &self.bound(cgroup::bounds(pod.spec())))
    }

    /// Gives a pod's slice other bounds. What is to have no bound is left as it is.
    ///
    /// # Errors
    /// The bus' or systemd's word.
    pub(crate) fn set(&self, (pod, class): (&PodId, Qos), bounds: Bounds) -> io::Result<()> {
        self.hold(&self.name(pod, class), &self.bound(bounds))
    }

    /// Takes the bound of its CPUs off a pod's slice.
    ///
    /// # Errors
    /// The bus' or systemd's word.
    pub(crate) fn lift_quota(&self, pod: &PodId, class: Qos) -> io::Result<()> {
        let none = [("CPUQuotaPerSecUSec", Property::Number(NO_QUOTA))];
        self.hold(&self.name(pod, class), &none)
    }

    /// Gives the slices of the classes their weights ([`kubepods::weigh_classes`](super::kubepods::weigh_classes)).
    ///
    /// # Errors
    /// The bus' or systemd's word.
    pub(crate) fn weigh_classes(&self, burstable_milli: i64) -> io::Result<()> {
        for (class, milli) in [("besteffort", 0), ("burstable", burstable_milli)] {
            let slice = cgroup::slice(&cgroup::class_parts(class, &self.root));
            self.hold(&slice, &[self.weight(resources::shares(milli))])?;
        }
        Ok(())
    }

    /// Bounds the slice of all pods together ([`kubepods::bound`](super::kubepods::bound)). Of huge pages systemd knows nothing.
    ///
    /// # Errors
    /// The bus' or systemd's word.
    pub(crate) fn bound_all(&self, bounds: &NodeBounds) -> io::Result<()> {
        let memory = bounds.memory.map(|bytes| self.memory(bytes));
        let tasks = bounds.pids.map(|pids| ("TasksMax", Property::Number(number(pids))));
        let all: Bound = [Some(self.weight(bounds.shares)), memory, tasks].into_iter().flatten().collect();
        self.hold(&cgroup::slice(&cgroup::root_parts(&self.root)), &all)
    }

    /// Has the slices of a pod end, whichever class it had.
    ///
    /// # Errors
    /// The bus' or systemd's word.
    pub(crate) fn end(&self, uid: &str) -> io::Result<()> {
        let slices = cgroup::slices_of(&self.sys, uid, &self.root);
        if slices.is_empty() {
            return Ok(());
        }
        let mut bus = BlockingBus::connect(&self.bus)?;
        for slice in slices {
            match call(&mut bus, "StopUnit", &[Text(&slice), Text("replace")])? {
                None => {}
                Some(error) if error == NONE => {}
                Some(error) => return Err(refused("StopUnit", &slice, &error)),
            }
        }
        Ok(())
    }

    fn name(&self, pod: &PodId, class: Qos) -> String {
        cgroup::slice(&cgroup_parts(pod, class, &self.root))
    }

    fn weight(&self, shares: i64) -> (&'static str, Property<'static>) {
        if cgroup::is_v2(&self.sys) {
            ("CPUWeight", Property::Number(number(cgroup::weight(shares))))
        } else {
            ("CPUShares", Property::Number(number(shares)))
        }
    }

    fn memory(&self, bytes: i64) -> (&'static str, Property<'static>) {
        let name = if cgroup::is_v2(&self.sys) { "MemoryMax" } else { "MemoryLimit" };
        (name, Property::Number(number(bytes)))
    }

    fn bound(&self, bounds: Bounds) -> Bound {
        let quota = bounds.quota.map(|quota| ("CPUQuotaPerSecUSec", Property::Number(per_second(quota))));
        let memory = bounds.memory.map(|bytes| self.memory(bytes));
        [Some(self.weight(bounds.shares)), quota, memory].into_iter().flatten().collect()
    }

    /// Has a slice be there with these properties.
    fn hold(&self, slice: &str, properties: &[(&str, Property<'_>)]) -> io::Result<()> {
        let mut bus = BlockingBus::connect(&self.bus)?;
        let made = [
            ("Description", Property::Text("A pod of KubeHive's, or a class of them")),
            // It ends with its pod, and not when the machine begins to.
            ("DefaultDependencies", Property::Flag(false)),
            ("CPUAccounting", Property::Flag(true)),
            ("MemoryAccounting", Property::Flag(true)),
            ("TasksAccounting", Property::Flag(true)),
        ];
        let all: Vec<_> = made.into_iter().chain(properties.iter().copied()).collect();
        let words = [Text(slice), Text("replace"), Properties(&all), NoUnits];
        match call(&mut bus, "StartTransientUnit", &words)? {
            None => Ok(()),
            Some(error) if error == EXISTS => change(&mut bus, slice, properties),
            Some(error) => Err(refused("StartTransientUnit", slice, &error)),
        }
    }
}

/// Sets these of a unit that is there, until the machine ends.
fn change(bus: &mut BlockingBus, slice: &str, properties: &[(&str, Property<'_>)]) -> io::Result<()> {
    match call(bus, "SetUnitProperties", &[Text(slice), Flag(true), Properties(properties)])? {
        None => Ok(()),
        Some(error) => Err(refused("SetUnitProperties", slice, &error)),
    }
}

/// Calls systemd's manager. Answers the name of the error that it answered with.
fn call(bus: &mut BlockingBus, member: &str, arguments: &[Argument<'_>]) -> io::Result<Option<String>> {
    let method = Method {
        destination: SYSTEMD,
        path: "/org/freedesktop/systemd1",
        interface: "org.freedesktop.systemd1.Manager",
        member,
    };
    bus.call(&method, arguments).map(|answer| answer.error().map(str::to_owned))
}

fn refused(what: &str, slice: &str, error: &str) -> io::Error {
    io::Error::other(format!("systemd refuses {what} of {slice}: {error}"))
}

/// A quota of a period as microseconds in a second, no smaller than it is.
fn per_second(quota: i64) -> u64 {
    let period = number(PERIOD_US);
    number(quota).saturating_mul(1_000_000).div_ceil(period).next_multiple_of(QUOTA_STEP)
}

fn number(of: i64) -> u64 {
    u64::try_from(of).unwrap_or(0)
}

/// Says what systemd was not told. What is bounded is so nevertheless, until it reads its units again.
pub(crate) fn say(pod: &str, told: io::Result<()>) {
    if let Err(error) = told {
        tracing::warn!(
            pod,
            %error,
            "systemd was not told of a pod's slice: its bounds end when systemd reads its units again, and it may stay when the pod is gone"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use rustbus::connection::Timeout;
    use rustbus::wire::unmarshal::traits::Variant;
    use rustbus::{DuplexConn, MessageType, standard_messages};
    use serde_json::json;
    use testhost::PrivateBus;

    use super::*;
    use crate::pod::parsed_pod::tests::pod;

    /// Somebody in systemd's place on a bus, of a library that shares nothing with ours.
    struct Systemd {
        bus: PrivateBus,
        folder: tempfile::TempDir,
        /// The units that there are, with what they were set to.
        units: Arc<Mutex<BTreeMap<String, BTreeMap<String, String>>>>,
    }

    impl Systemd {
        fn start() -> Systemd {
            let folder = tempfile::tempdir().unwrap();
            let bus = PrivateBus::start(folder.path()).unwrap();
            let address = nix::sys::socket::UnixAddr::new(bus.socket()).unwrap();
            let mut connection = DuplexConn::connect_to_bus(address, true).unwrap();
            connection.send_hello(Timeout::Infinite).unwrap();
            let name = standard_messages::request_name(SYSTEMD, 0);
            connection.send.send_message_write_all(&name).unwrap();
            // Its name is its own when that is answered.
            while connection.recv.get_next_message(Timeout::Infinite).unwrap().typ != MessageType::Reply {}
            let units = Arc::new(Mutex::new(BTreeMap::new()));
            let served = Arc::clone(&units);
            std::thread::spawn(move || serve(connection, &served));
            Systemd { bus, folder, units }
        }

        fn slices(&self) -> Slices {
            Slices {
                bus: self.bus.socket().to_owned(),
                sys: self.folder.path().to_owned(),
                root: "/kubepods".to_owned(),
            }
        }

        fn unit(&self, name: &str) -> Option<BTreeMap<String, String>> {
            self.units.lock().unwrap().get(name).cloned()
        }
    }

    fn serve(mut connection: DuplexConn, units: &Mutex<BTreeMap<String, BTreeMap<String, String>>>) {
        loop {
            let Ok(call) = connection.recv.get_next_message(Timeout::Infinite) else { return };
            if call.typ != MessageType::Call {
                continue;
            }
            let mut parser = call.body.parser();
            let name: String = parser.get().unwrap();
            let mut units = units.lock().unwrap();
            match call.dynheader.member.as_deref() {
                Some("StartTransientUnit") => {
                    assert_eq!(parser.get::<String>().unwrap(), "replace");
                    let properties: Vec<(String, Variant<'_, '_>)> = parser.get().unwrap();
                    let beside: Vec<(String, Vec<(String, Variant<'_, '_>)>)> = parser.get().unwrap();
                    assert!(beside.is_empty());
                    assert!(
                        !units.contains_key(&name),
                        "{name} is there: that is an error, which this library cannot answer"
                    );
                    set(units.entry(name).or_default(), properties);
                }
                Some("SetUnitProperties") => {
                    assert!(parser.get::<bool>().unwrap(), "until the machine ends");
                    set(units.get_mut(&name).unwrap(), parser.get().unwrap());
                }
                Some("StopUnit") => {
                    assert_eq!(parser.get::<String>().unwrap(), "replace");
                    units.remove(&name).unwrap();
                }
                other => panic!("{other:?}"),
            }
            let answer = call.dynheader.make_response();
            connection.send.send_message_write_all(&answer).unwrap();
        }
    }

    fn set(unit: &mut BTreeMap<String, String>, properties: Vec<(String, Variant<'_, '_>)>) {
        for (key, value) in properties {
            let text = value.get::<u64>().map(|number| number.to_string());
            let text = text.or_else(|_| value.get::<bool>().map(|flag| flag.to_string()));
            unit.insert(key, text.or_else(|_| value.get::<String>()).unwrap());
        }
    }

    fn limited(cpu: &str) -> ParsedPod {
        pod(json!({"containers": [{"name": "c", "image": "x",
            "resources": {"limits": {"cpu": cpu, "memory": "64Mi"}, "requests": {"cpu": "100m"}}}]}))
    }

    fn folder_of(sys: &Path, slice: &str) -> PathBuf {
        sys.join("kubepods.slice").join("kubepods-burstable.slice").join(slice)
    }

    #[test]
    fn systemd_is_told_when_a_slice_begins_what_bounds_it_and_when_it_ends() {
        let systemd = Systemd::start();
        let slices = systemd.slices();
        fs::write(slices.sys.join("cgroup.controllers"), "cpu memory").unwrap();
        let (pod, name) = (limited("500m"), "kubepods-burstable-podu_1.slice");
        slices.begin(&pod).unwrap();
        let set = |unit: &str, key: &str| systemd.unit(unit).and_then(|unit| unit.get(key).cloned());
        for (key, value) in [
            ("CPUQuotaPerSecUSec", "500000"),
            ("MemoryMax", "67108864"),
            ("CPUWeight", "4"),
            ("DefaultDependencies", "false"),
            ("MemoryAccounting", "true"),
        ] {
            assert_eq!(set(name, key).as_deref(), Some(value), "{key}");
        }
        let mut bus = BlockingBus::connect(&slices.bus).unwrap();
        let wanted = Bounds { shares: 1024, quota: Some(12_300), memory: None };
        change(&mut bus, name, &slices.bound(wanted)).unwrap();
        assert_eq!(set(name, "CPUQuotaPerSecUSec").as_deref(), Some("130000"), "in whole hundredths");
        assert_eq!(set(name, "MemoryMax").as_deref(), Some("67108864"), "what has no bound stays");
        slices.weigh_classes(2000).unwrap();
        assert_eq!(set("kubepods-burstable.slice", "CPUWeight").as_deref(), Some("79"));
        assert_eq!(set("kubepods-besteffort.slice", "CPUWeight").as_deref(), Some("1"));
        let all =
            NodeBounds { shares: 2048, memory: Some(64 << 20), pids: Some(30_000), huge_pages: Vec::new() };
        slices.bound_all(&all).unwrap();
        for (key, value) in [("CPUWeight", "79"), ("MemoryMax", "67108864"), ("TasksMax", "30000")] {
            assert_eq!(set("kubepods.slice", key).as_deref(), Some(value), "{key}");
        }

        fs::create_dir_all(folder_of(&slices.sys, name)).unwrap();
        slices.end("u-1").unwrap();
        assert_eq!(systemd.unit(name), None);
        // One whose folder is gone is not even asked about.
        fs::remove_dir(folder_of(&slices.sys, name)).unwrap();
        slices.end("u-1").unwrap();
    }

    /// A bus that answers each call with the next of these errors, or with a plain answer, and the members that were called.
    fn answering(socket: &Path, errors: Vec<Option<&'static str>>) -> std::thread::JoinHandle<Vec<String>> {
        let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let line = |stream: &mut UnixStream| {
                let mut text = Vec::new();
                while !text.ends_with(b"\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    text.extend(byte);
                }
            };
            for answer in ["OK 00\r\n", "AGREE_UNIX_FD\r\n"] {
                line(&mut stream);
                stream.write_all(answer.as_bytes()).unwrap();
            }
            line(&mut stream);
            let members = ["Hello", "StartTransientUnit", "SetUnitProperties", "StopUnit"];
            let (mut called, mut serial) = (Vec::new(), 0_u32);
            for error in std::iter::once(None).chain(errors) {
                serial += 1;
                let mut bytes = vec![0; 4096];
                let read = stream.read(&mut bytes).unwrap();
                let text = String::from_utf8_lossy(&bytes[..read]).into_owned();
                called.extend(
                    members
                        .iter()
                        .filter(|member| text.contains(**member))
                        .map(|member| (*member).to_owned()),
                );
                let mut fields = vec![5, 1, b'u', 0];
                fields.extend(serial.to_le_bytes());
                if let Some(error) = error {
                    fields.extend([4, 1, b's', 0]);
                    fields.extend(u32::try_from(error.len()).unwrap().to_le_bytes());
                    fields.extend(error.as_bytes());
                    fields.push(0);
                }
                let mut answer =
                    vec![b'l', if error.is_some() { 3 } else { 2 }, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0];
                answer.extend(u32::try_from(fields.len()).unwrap().to_le_bytes());
                answer.extend(fields);
                answer.resize(answer.len().next_multiple_of(8), 0);
                stream.write_all(&answer).unwrap();
            }
            called
        })
    }

    #[test]
    fn a_slice_that_is_there_is_changed_and_one_that_is_gone_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let slices = |name: &str| Slices {
            bus: folder.path().join(name),
            sys: folder.path().to_owned(),
            root: "/kubepods".to_owned(),
        };
        fs::write(folder.path().join("cgroup.controllers"), "cpu memory").unwrap();
        let there = answering(&folder.path().join("there"), vec![Some(EXISTS), None]);
        slices("there").begin(&limited("1")).unwrap();
        assert_eq!(there.join().unwrap(), ["Hello", "StartTransientUnit", "SetUnitProperties"]);
        let refusing =
            answering(&folder.path().join("refusing"), vec![Some("org.freedesktop.DBus.Error.AccessDenied")]);
        let why = slices("refusing").begin(&limited("1")).unwrap_err().to_string();
        assert!(why.contains("kubepods-burstable-podu_1.slice") && why.contains("AccessDenied"), "{why}");
        refusing.join().unwrap();
        fs::create_dir_all(folder_of(folder.path(), "kubepods-burstable-podu_1.slice")).unwrap();
        let gone = answering(&folder.path().join("gone"), vec![Some(NONE)]);
        slices("gone").end("u-1").unwrap();
        assert_eq!(gone.join().unwrap(), ["Hello", "StopUnit"]);
    }

    #[test]
    fn a_bus_that_is_not_there_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let slices = Slices {
            bus: folder.path().join("bus"),
            sys: folder.path().to_owned(),
            root: "/kubepods".to_owned(),
        };
        assert!(slices.begin(&limited("1")).is_err());
        assert!(slices.end("u-1").is_ok(), "there is nothing to end");
    }
}
