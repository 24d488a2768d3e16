//! Streams of a camera on Python's own HTTP server: pictures and films on the node, and what cameras do wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../framework/tests/edgecore/mod.rs"]
mod edgecore;
#[path = "../../framework/tests/python/mod.rs"]
mod python;

use std::fs;
use std::path::{Path, PathBuf};

use dmi::Scalar;
use dmi::v1beta1::{Device, DeviceProperty, UpdateDeviceRequest};
use framework::host::Targets;
use httpdevice::{HttpDevice, NAME};

use edgecore::{EdgeCore, Mapper, config, device, eventually, model, modelled, property};
use python::Script;

struct Filming {
    edgecore: EdgeCore,
    mapper: Mapper,
    camera: Script,
    port: u16,
    folder: tempfile::TempDir,
}

fn stream(name: &str, path: &str, pairs: &[(&'static str, &str)]) -> DeviceProperty {
    let text = |(key, value): &(&'static str, &str)| (*key, Scalar::Text((*value).to_owned()));
    let pairs: Vec<_> = [("path", path)].iter().chain(pairs).map(text).collect();
    property(name, NAME, &pairs)
}

fn camera_at(port: u16, streams: Vec<DeviceProperty>) -> Device {
    let level = property("level", NAME, &[("path", Scalar::Text("/level".to_owned()))]);
    let properties = [streams, vec![level]].concat();
    let url = Scalar::Text(format!("http://127.0.0.1:{port}"));
    device("door", "camera", NAME, &[("url", url), ("timeoutMs", Scalar::Int(500))], properties)
}

impl Filming {
    async fn start(streams: Vec<DeviceProperty>) -> Self {
        let [port] = testhost::free_ports().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server/camera.py");
        let camera = Script::start(&[], &script, &[&port.to_string()]);
        let folder = tempfile::tempdir().unwrap();
        let edgecore = EdgeCore::at(folder.path());
        {
            let mut objects = edgecore.objects.lock().unwrap();
            let kinds = [("saveFrame", "STREAM"), ("saveVideo", "stream"), ("level", "INT")];
            let properties = kinds.map(|(name, kind)| modelled(name, kind, "ReadOnly"));
            objects.models = vec![model("camera", properties.to_vec())];
            objects.devices = vec![camera_at(port, streams)];
        }
        edgecore.start();
        let mut config = config(folder.path(), NAME);
        config.common.stream_dir = folder.path().join("streams");
        fs::create_dir(&config.common.stream_dir).unwrap();
        let mapper = Mapper::start_with(
            config,
            HttpDevice::new(Targets::new(vec!["127.0.0.0/8".to_owned()]).unwrap()),
        );
        Filming { edgecore, mapper, camera, port, folder }
    }

    async fn update(&mut self, streams: Vec<DeviceProperty>) {
        let device = Some(camera_at(self.port, streams));
        self.mapper.calls.update_device(UpdateDeviceRequest { device }).await.unwrap();
    }

    /// The files in a folder of the streams, in the order of their names; unfinished ones, too.
    fn files(&self, folder: &str) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.folder.path().join("streams").join(folder)) else {
            return Vec::new();
        };
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    /// Those of them that are finished: one that is being written ends with `.part`.
    fn whole(&self, folder: &str, extension: &str) -> Vec<PathBuf> {
        let mut files = self.files(folder);
        files.retain(|file| file.extension().is_some_and(|found| found == extension));
        files
    }
}

fn number(picture: &[u8]) -> usize {
    let text = picture.strip_prefix(b"\xff\xd8picture ").unwrap().strip_suffix(b"\xff\xd9").unwrap();
    std::str::from_utf8(text).unwrap().parse().unwrap()
}

#[tokio::test]
async fn pictures_and_films_are_saved_and_the_twin_says_where() {
    let frames =
        [("format", "jpg"), ("outputDir", "hall"), ("frameCount", "3"), ("frameInterval", "1000000")];
    let film = [("format", "mjpeg"), ("outputDir", "films"), ("frameCount", "4"), ("videoNum", "2")];
    let mut filming =
        Filming::start(vec![stream("saveFrame", "/snapshot", &frames), stream("saveVideo", "/plain", &film)])
            .await;
    eventually("three pictures and two films", async || {
        filming.whole("hall", "jpg").len() == 3 && filming.whole("films", "mjpeg").len() == 2
    })
    .await;
    let pictures = filming.whole("hall", "jpg");
    let numbers: Vec<usize> = pictures.iter().map(|file| number(&fs::read(file).unwrap())).collect();
    assert_eq!(numbers, [1, 2, 3]);
    let films = filming.whole("films", "mjpeg");
    let whole: Vec<u8> = films.iter().flat_map(|film| fs::read(film).unwrap()).collect();
    let wanted: Vec<u8> = (1..=8).flat_map(|at| format!("picture {at}").into_bytes()).collect();
    let text: Vec<u8> = whole.into_iter().filter(u8::is_ascii).collect();
    assert_eq!(text, wanted, "one stream, no frame missing and none twice");
    filming.edgecore.until_value("door", "saveFrame", pictures[2].to_str().unwrap()).await;
    filming.edgecore.until_value("door", "saveVideo", films[1].to_str().unwrap()).await;
    filming.edgecore.until_value("door", "level", "7").await;
    assert_eq!(filming.camera.ask("count"), "3", "a round, and no more");

    // Again and again, of which two stay.
    let again = [("format", "jpg"), ("outputDir", "hall"), ("repeatMs", "100"), ("keep", "2")];
    filming.update(vec![stream("saveFrame", "/snapshot", &again)]).await;
    eventually("newer ones in the place of older ones", async || {
        let files = filming.whole("hall", "jpg");
        files.len() == 2 && files.iter().all(|file| fs::read(file).is_ok_and(|bytes| number(&bytes) > 4))
    })
    .await;
    filming.mapper.stop().await;
}

#[tokio::test]
async fn frames_of_a_stream_are_as_far_apart_as_is_wished_and_new() {
    let frames = [("format", "jpg"), ("outputDir", "."), ("frameCount", "3"), ("frameInterval", "200000000")];
    let filming = Filming::start(vec![stream("saveFrame", "/stream", &frames)]).await;
    eventually("three pictures", async || filming.whole(".", "jpg").len() == 3).await;
    let numbers: Vec<usize> =
        filming.whole(".", "jpg").iter().map(|file| number(&fs::read(file).unwrap())).collect();
    // Ten pictures of the camera in 200 ms, fewer where it is slow: not the next one that waits, which would be old.
    assert!(
        numbers.is_sorted() && numbers[1] - numbers[0] >= 2 && numbers[2] - numbers[1] >= 2,
        "{numbers:?}"
    );
    filming.mapper.stop().await;
}

#[tokio::test]
async fn what_a_camera_does_wrong_is_its_streams_fault_and_holds_up_nothing_else() {
    let frames = [("format", "jpg"), ("outputDir", "hall")];
    let mut filming = Filming::start(Vec::new()).await;
    filming.edgecore.until_value("door", "level", "7").await;
    for (mode, path, said) in [
        ("silent", "/snapshot", "the camera has not answered"),
        ("text", "/snapshot", "`text/html`"),
        ("endless", "/stream", "no JPEG"),
        ("endless", "/plain", "`maxBytes`"),
        ("broken", "/plain", "ended the stream"),
    ] {
        filming.camera.tell(&format!("mode {mode}"));
        let frames = [&frames[..], &[("frameCount", "5")]].concat();
        filming.update(vec![stream("saveFrame", path, &frames)]).await;
        let is_said = move |heard: &edgecore::ReceivedReports| {
            heard.fault("door", "saveFrame")?.contains(said).then_some(())
        };
        filming.edgecore.until(&format!("{mode} {path}: {said}"), is_said).await;
        let offline = ("door".to_owned(), "offline".to_owned());
        assert!(
            !filming.edgecore.heard().states.contains(&offline),
            "{mode}: its level is read all the while"
        );
    }
    filming.camera.tell("mode well");
    for (pairs, said) in [
        (vec![("format", "png"), ("outputDir", "hall")], "what comes is jpg"),
        (vec![("format", "jpg"), ("outputDir", "/etc")], "`common.stream_dir`"),
        (vec![("format", "jpg")], "`outputDir` is missing"),
        (vec![("format", "jpg"), ("outputDir", "hall"), ("jsonPointer", "/a")], "`jsonPointer` is not known"),
    ] {
        filming.update(vec![stream("saveFrame", "/snapshot", &pairs)]).await;
        filming.edgecore.until_fault("door", "saveFrame", said).await;
    }
    filming.update(vec![stream("saveFrame", "/snapshot", &frames)]).await;
    filming
        .edgecore
        .until("a picture", |heard| {
            heard.last("door", "saveFrame").filter(|(_, path)| path.ends_with(".jpg")).map(drop)
        })
        .await;
    filming.mapper.stop().await;
}
