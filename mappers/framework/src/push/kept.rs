//! What waits for a target, on the disk: for the mapper that runs next. A line of JSON for each reading, in order, and one where those up to
//! a number have gone. Lines are put at the end; where more of a file is stale than not, it is written anew beside itself and renamed. What
//! is torn ends where its first line is that cannot be read: those before it are kept. Decisions are pure, and [`Change::apply`] does them.

use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::hash::{Hash as _, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use apimachinery::NamespacedName;
use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use crate::own_file;
use crate::push::parcel::Parcel;
use crate::push::plan::{Route, Target};
use crate::push::reading::Reading;
use crate::value::Value;

/// 8 MiB of one file.
pub(crate) const FILE_MAX: usize = 8 << 20;
/// 32 MiB of all files of a mapper together.
const TOTAL_MAX: usize = 32 << 20;
/// 64 KiB of a file may have gone already, however little is left of it.
const STALE_MAX: usize = 64 << 10;
/// How the files' names end.
const ENDING: &str = ".readings";

/// A line of a file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Reading(Box<KeptReading>),
    /// Those up to this number have gone.
    Gone(u64),
}

#[derive(Serialize, Deserialize)]
struct KeptReading {
    number: u64,
    device: NamespacedName,
    property: String,
    value: KeptValue,
    /// Seconds and nanoseconds since 1970.
    at: (u64, u32),
    route: Route,
}

/// A value, exactly: numbers with a fraction by their bits.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KeptValue {
    Int(i128),
    Float(u32),
    Double(u64),
    Text(String),
    Bool(bool),
}

impl From<&Value> for KeptValue {
    fn from(value: &Value) -> Self {
        match value {
            Value::Int(number) => KeptValue::Int(*number),
            Value::Float(number) => KeptValue::Float(number.to_bits()),
            Value::Double(number) => KeptValue::Double(number.to_bits()),
            Value::Text(text) => KeptValue::Text(text.clone()),
            Value::Bool(is_true) => KeptValue::Bool(*is_true),
        }
    }
}

impl From<KeptValue> for Value {
    fn from(kept: KeptValue) -> Self {
        match kept {
            KeptValue::Int(number) => Value::Int(number),
            KeptValue::Float(bits) => Value::Float(f32::from_bits(bits)),
            KeptValue::Double(bits) => Value::Double(f64::from_bits(bits)),
            KeptValue::Text(text) => Value::Text(text),
            KeptValue::Bool(is_true) => Value::Bool(is_true),
        }
    }
}

/// As a line, with its end. None: it cannot be written so, and is not kept.
fn line(number: u64, parcel: &Parcel) -> Option<Vec<u8>> {
    let (reading, at) = (&parcel.reading, parcel.reading.since_1970());
    let kept = KeptReading {
        number,
        device: reading.device.clone(),
        property: reading.property.clone(),
        value: KeptValue::from(&reading.value),
        at: (at.as_secs(), at.subsec_nanos()),
        route: (*parcel.route).clone(),
    };
    ended(&Line::Reading(Box::new(kept)))
}

fn ended(line: &Line) -> Option<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line).ok()?;
    bytes.push(b'\n');
    Some(bytes)
}

/// The readings of a file, in order, as far as it can be read.
fn parcels(bytes: &[u8]) -> VecDeque<Parcel> {
    let mut waiting: VecDeque<(u64, Parcel)> = VecDeque::new();
    // What has no end was not written to its end.
    for line in bytes.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n")) {
        match serde_json::from_slice(line) {
            Ok(Line::Reading(kept)) => {
                let at = UNIX_EPOCH.checked_add(Duration::new(kept.at.0, 0));
                let Some(at) = at.and_then(|at| at.checked_add(Duration::from_nanos(kept.at.1.into())))
                else {
                    break;
                };
                let KeptReading { number, device, property, value, route, .. } = *kept;
                let reading = Reading { device, property, value: value.into(), at };
                waiting.push_back((number, Parcel { route: Rc::new(route), reading }));
            }
            Ok(Line::Gone(number)) => {
                while waiting.front().is_some_and(|(first, _)| *first <= number) {
                    waiting.pop_front();
                }
            }
            Err(_) => break,
        }
    }
    waiting.into_iter().map(|(_, parcel)| parcel).collect()
}

/// The digest of a target, of all that makes it another one than others: the login in its address is told by no name.
struct Digest(Context);

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

fn file_name(target: &Target) -> String {
    let mut digest = Digest(Context::new(&SHA256));
    target.hash(&mut digest);
    let digest = digest.0.finish();
    let hex: String = digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    hex + ENDING
}

/// The folder of a mapper's files.
#[derive(Clone)]
pub(crate) struct KeptFolder {
    path: Rc<Path>,
    /// The bytes of all files.
    total: Rc<Cell<usize>>,
}

impl KeptFolder {
    /// It is made when something is to be kept.
    pub(crate) fn at(path: PathBuf) -> Self {
        KeptFolder { path: Rc::from(path), total: Rc::default() }
    }

    /// The file of a target, and what waits there from before.
    ///
    /// # Errors
    /// When there is one that cannot be read: it is written anew then.
    pub(crate) fn open(&self, target: &Target) -> (KeptFile, io::Result<VecDeque<Parcel>>) {
        let path = self.path.join(file_name(target));
        let (found, size) = match own_file::read(&path, FILE_MAX as u64) {
            Ok(None) => (Ok(VecDeque::new()), 0),
            Ok(Some(bytes)) => (Ok(parcels(&bytes)), bytes.len()),
            Err(error) => (Err(error), 0),
        };
        let is_known = matches!(&found, Ok(found) if found.is_empty()) && size == 0;
        self.total.set(self.total.get() + size);
        // They wait from number 0 on.
        let newest = found.as_ref().ok().and_then(|found| (found.len() as u64).checked_sub(1));
        let lines = VecDeque::new();
        (KeptFile { newest, path, lines, size, next: 0, is_known, total: Rc::clone(&self.total) }, found)
    }

    /// Removes the files of all other targets. How many readings are lost with them.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(crate) fn retain<'a>(&self, targets: impl Iterator<Item = &'a Target>) -> io::Result<usize> {
        let wanted: BTreeSet<String> = targets.map(file_name).collect();
        let folder = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            folder => folder?,
        };
        let mut lost = 0;
        for entry in folder.flatten() {
            let name = entry.file_name();
            let is_old = name.to_str().is_some_and(|name| name.ends_with(ENDING) && !wanted.contains(name));
            if is_old {
                let held = own_file::read(&entry.path(), FILE_MAX as u64).ok().flatten();
                lost += held.map_or(0, |bytes| parcels(&bytes).len());
                fs::remove_file(entry.path())?;
            }
        }
        Ok(lost)
    }
}

/// What is to be done to a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Append(Vec<u8>),
    Replace(Vec<u8>),
    Remove,
}

impl Change {
    /// Does it. What is written is on the disk then.
    ///
    /// # Errors
    /// The system's; that somebody else has put something there.
    pub(crate) fn apply(&self, path: &Path) -> io::Result<()> {
        match self {
            Change::Append(bytes) => own_file::append(path, bytes),
            Change::Replace(bytes) => {
                if let Some(folder) = path.parent() {
                    own_file::folder(folder)?;
                }
                own_file::write(path, bytes)
            }
            Change::Remove => match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => Ok(()),
            },
        }
    }
}

/// One target's file.
pub(crate) struct KeptFile {
    path: PathBuf,
    /// The numbers of the readings in it that had not gone when it was written last, and the bytes of each.
    lines: VecDeque<(u64, usize)>,
    size: usize,
    /// Readings from this number on are not in it.
    next: u64,
    /// The newest reading in it.
    newest: Option<u64>,
    /// It holds what this says.
    is_known: bool,
    total: Rc<Cell<usize>>,
}

impl KeptFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is a file, as far as is known.
    pub(crate) fn is_there(&self) -> bool {
        self.size > 0 || !self.is_known
    }

    /// Whether there is a file, and nothing of it waits any more.
    pub(crate) fn is_stale(&self, first: u64) -> bool {
        self.is_there() && self.newest.is_none_or(|newest| newest < first)
    }

    /// What is to be done so that it holds what waits. It counts as done, unless it [has failed](KeptFile::failed).
    pub(crate) fn change(&mut self, waiting: &[(u64, Rc<Parcel>)]) -> Option<Change> {
        let Some((first, _)) = waiting.first() else {
            let is_there = self.is_there();
            (self.lines, self.is_known, self.newest) = (VecDeque::new(), true, None);
            self.resize(0);
            return is_there.then_some(Change::Remove);
        };
        self.newest = waiting.last().map(|(last, _)| *last);
        let before = self.lines.len();
        while self.lines.front().is_some_and(|(number, _)| number < first) {
            self.lines.pop_front();
        }
        let has_gone = self.lines.len() < before;
        let mut added = Vec::new();
        if has_gone {
            added.extend(ended(&Line::Gone(first.saturating_sub(1))).unwrap_or_default());
        }
        let mut lines = Vec::new();
        for (number, parcel) in waiting.iter().filter(|(number, _)| *number >= self.next) {
            let line = line(*number, parcel).unwrap_or_default();
            lines.push((*number, line.len()));
            added.extend(line);
        }
        self.next = waiting.last().map_or(self.next, |(last, _)| last + 1);
        let held: usize = self.lines.iter().map(|(_, bytes)| bytes).sum();
        let (stale, size) = (self.size.saturating_sub(held), self.size + added.len());
        let is_room = size <= FILE_MAX && self.total.get() + added.len() <= TOTAL_MAX;
        if self.is_known && is_room && (stale <= STALE_MAX || stale <= held) {
            if added.is_empty() {
                return None;
            }
            self.lines.extend(lines);
            self.resize(size);
            return Some(if size == added.len() { Change::Replace(added) } else { Change::Append(added) });
        }
        let room = FILE_MAX.min(TOTAL_MAX.saturating_sub(self.total.get() - self.size));
        Some(Change::Replace(self.anew(waiting, room)))
    }

    /// All that waits, as far as there is room: the newest.
    fn anew(&mut self, waiting: &[(u64, Rc<Parcel>)], room: usize) -> Vec<u8> {
        let (mut texts, mut bytes) = (VecDeque::new(), 0);
        self.lines.clear();
        for (number, parcel) in waiting.iter().rev() {
            let line = line(*number, parcel).unwrap_or_default();
            if bytes + line.len() > room {
                break;
            }
            bytes += line.len();
            self.lines.push_front((*number, line.len()));
            texts.push_front(line);
        }
        self.is_known = true;
        self.resize(bytes);
        texts.into_iter().flatten().collect()
    }

    /// The last change was not done, or nobody knows.
    pub(crate) fn failed(&mut self) {
        self.is_known = false;
    }

    fn resize(&mut self, size: usize) {
        self.total.set((self.total.get() + size).saturating_sub(self.size));
        self.size = size;
    }
}

impl Drop for KeptFile {
    fn drop(&mut self) {
        self.resize(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::plan::targets;
    use crate::push::reading::reading;
    use dmi::v1beta1::{Device, DeviceProperty, DeviceSpec, PushMethod, PushMethodHttp};

    fn target(path: &str, timeout: i64) -> Target {
        let http = PushMethodHttp {
            hostname: "http://h".to_owned(),
            requestpath: path.to_owned(),
            timeout,
            ..Default::default()
        };
        let push_method = Some(PushMethod { http: Some(http), ..Default::default() });
        let properties = vec![DeviceProperty { push_method, ..Default::default() }];
        let device =
            Device { spec: Some(DeviceSpec { properties, ..Default::default() }), ..Default::default() };
        targets(&device).pop_first().unwrap()
    }

    fn waiting(numbers: std::ops::Range<u64>, value: &Value) -> Vec<(u64, Rc<Parcel>)> {
        let parcel = || Parcel { route: Rc::new(Route::Plain), reading: reading("level", value.clone()) };
        numbers.map(|number| (number, Rc::new(parcel()))).collect()
    }

    struct Fixture {
        folder: tempfile::TempDir,
        kept: KeptFolder,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let kept = KeptFolder::at(folder.path().join("push"));
            Fixture { folder, kept }
        }

        fn open(&self) -> (KeptFile, VecDeque<Parcel>) {
            let (file, found) = self.kept.open(&target("/", 1));
            (file, found.unwrap())
        }
    }

    fn keep(file: &mut KeptFile, waiting: &[(u64, Rc<Parcel>)]) -> Option<&'static str> {
        let change = file.change(waiting)?;
        change.apply(file.path()).unwrap();
        Some(match change {
            Change::Append(_) => "append",
            Change::Replace(_) => "replace",
            Change::Remove => "remove",
        })
    }

    #[test]
    fn what_waits_is_there_again_exactly_and_what_has_gone_is_not() {
        let fixture = Fixture::new();
        let values = [
            Value::Int(i128::from(u64::MAX)),
            Value::Int(i128::from(i64::MIN)),
            Value::Float(0.1),
            Value::Double(f64::NEG_INFINITY),
            Value::Text("a\nb\"\u{0}ü".to_owned()),
            Value::Bool(true),
        ];
        let all: Vec<(u64, Rc<Parcel>)> =
            (7..).zip(&values).map(|(n, value)| waiting(n..n + 1, value).remove(0)).collect();
        let (mut file, found) = fixture.open();
        assert!(found.is_empty() && !file.is_there());
        assert_eq!(keep(&mut file, &all[..2]), Some("replace"));
        assert_eq!(keep(&mut file, &all[..2]), None, "nothing has changed");
        assert_eq!(keep(&mut file, &all[1..]), Some("append"), "one has gone, and some have come");
        let again = || fixture.open().1;
        assert_eq!(
            Vec::from(again()),
            all[1..]
                .iter()
                .map(|(_, it)| Parcel { route: Rc::clone(&it.route), reading: it.reading.clone() })
                .collect::<Vec<_>>()
        );
        assert_eq!(keep(&mut file, &[]), Some("remove"));
        assert_eq!((again().len(), keep(&mut file, &[])), (0, None));
        assert_eq!(fs::read_dir(fixture.folder.path().join("push")).unwrap().count(), 0);
    }

    #[test]
    fn a_torn_file_is_read_to_where_it_is_torn_and_written_anew() {
        let fixture = Fixture::new();
        let all = waiting(0..3, &Value::Int(1));
        let (mut file, _) = fixture.open();
        keep(&mut file, &all);
        let whole = fs::read(file.path()).unwrap();
        for cut in 0..whole.len() {
            fs::write(file.path(), &whole[..cut]).unwrap();
            let lines = whole[..cut].iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(fixture.open().1.len(), lines, "cut at {cut}");
        }
        let mut zeros = whole[..whole.len() / 2].to_vec();
        zeros.resize(whole.len(), 0);
        fs::write(file.path(), [&zeros[..], b"\n", &whole[..]].concat()).unwrap();
        let (mut next, found) = fixture.open();
        assert_eq!(found.len(), 1, "what follows the hole is of another time");
        // The numbers of the next mapper begin anew.
        assert_eq!(keep(&mut next, &waiting(0..1, &Value::Int(2))), Some("replace"));
        assert_eq!(fixture.open().1[0].reading.value, Value::Int(2));
    }

    #[test]
    fn a_change_that_failed_is_made_up_by_writing_all_anew() {
        let fixture = Fixture::new();
        let all = waiting(0..3, &Value::Int(1));
        let (mut file, _) = fixture.open();
        assert!(file.change(&all[..2]).is_some());
        file.failed();
        assert!(file.is_there(), "nobody knows");
        assert_eq!(keep(&mut file, &all), Some("replace"));
        assert_eq!(fixture.open().1.len(), 3);
    }

    #[test]
    fn a_file_is_bounded_and_the_oldest_makes_room() {
        let fixture = Fixture::new();
        // A byte is six in JSON.
        let text = Value::Text("\u{1}".repeat(64 << 10));
        let (mut file, _) = fixture.open();
        assert_eq!(keep(&mut file, &waiting(0..60, &text)), Some("replace"));
        let (size, found) = (fs::metadata(file.path()).unwrap().len(), fixture.open().1.len());
        assert!(size <= FILE_MAX as u64 && found < 60 && found > 10, "{size} {found}");
        // The others' share of all files.
        let others: Vec<KeptFile> = (0..4)
            .map(|n| {
                let (mut other, _) = fixture.kept.open(&target("/other", n + 1));
                keep(&mut other, &waiting(0..60, &text));
                other
            })
            .collect();
        assert!(fixture.kept.total.get() <= TOTAL_MAX);
        drop((others, file));
        assert_eq!(fixture.kept.total.get(), 0);
    }

    #[test]
    fn a_file_whose_readings_have_gone_does_not_grow() {
        let fixture = Fixture::new();
        let text = Value::Text("x".repeat(1 << 10));
        let (mut file, _) = fixture.open();
        for first in 0..200 {
            keep(&mut file, &waiting(first..first + 3, &text));
        }
        let size = fs::metadata(file.path()).unwrap().len();
        assert!(size < 2 * STALE_MAX as u64, "{size}");
        assert_eq!(fixture.open().1.len(), 3);
    }

    #[test]
    fn each_target_has_its_file_and_those_of_others_go() {
        let fixture = Fixture::new();
        let names = [target("/", 1), target("/other", 1), target("/", 2)].map(|target| file_name(&target));
        assert_eq!(BTreeSet::from(names.clone()).len(), 3, "{names:?}");
        let (mut file, _) = fixture.open();
        keep(&mut file, &waiting(0..2, &Value::Int(1)));
        assert_eq!(fixture.kept.retain([target("/", 1)].iter()).unwrap(), 0);
        assert_eq!(fixture.open().1.len(), 2);
        assert_eq!(fixture.kept.retain([target("/", 2)].iter()).unwrap(), 2);
        assert_eq!(fixture.open().1.len(), 0);
    }
}
