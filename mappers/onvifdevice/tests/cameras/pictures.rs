//! Pictures of a camera, saved on the node.

use std::fs;
use std::path::PathBuf;

use dmi::Scalar;
use onvifdevice::NAME;

use crate::camera::{Camera, on_loopback};
use crate::edgecore::{EdgeCore, Mapper, config, device, eventually, model, modelled, property};

struct Filming {
    edgecore: EdgeCore,
    mapper: Mapper,
    camera: Camera,
    folder: tempfile::TempDir,
}

impl Filming {
    fn of(modes: &str) -> Self {
        let camera = Camera::odd(modes);
        let folder = tempfile::tempdir().unwrap();
        let edgecore = EdgeCore::at(folder.path());
        let text = |pairs: &[(&'static str, &str)]| -> Vec<(&'static str, Scalar)> {
            pairs.iter().map(|(key, value)| (*key, Scalar::Text((*value).to_owned()))).collect()
        };
        // As KubeEdge's users have them.
        let frames =
            [("format", "jpg"), ("outputDir", "hall"), ("frameCount", "3"), ("frameInterval", "1000000")];
        let film = [("format", "mjpeg"), ("outputDir", "films"), ("frameCount", "4"), ("videoNum", "1")];
        let properties = vec![
            property("saveFrame", NAME, &text(&frames)),
            property("saveVideo", NAME, &text(&film)),
            property("getURI", NAME, &text(&[("dataType", "string")])),
        ];
        {
            let mut objects = edgecore.objects.lock().unwrap();
            let kinds = [("saveFrame", "STREAM"), ("saveVideo", "stream"), ("getURI", "STRING")];
            let kinds = kinds.map(|(name, kind)| modelled(name, kind, "ReadOnly"));
            objects.models = vec![model("camera", kinds.to_vec())];
            objects.devices = vec![device("door", "camera", NAME, &camera.place(), properties)];
        }
        edgecore.start();
        let mut config = config(folder.path(), NAME);
        config.common.stream_dir = folder.path().join("streams");
        fs::create_dir(&config.common.stream_dir).unwrap();
        let mapper = Mapper::start_with(config, on_loopback(folder.path()));
        Filming { edgecore, mapper, camera, folder }
    }

    /// The finished files in a folder of the streams, in the order of their names.
    fn files(&self, folder: &str, extension: &str) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.folder.path().join("streams").join(folder)) else {
            return Vec::new();
        };
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|found| found == extension));
        files.sort();
        files
    }
}

#[tokio::test]
async fn pictures_and_films_are_saved_with_kubeedges_keys_and_the_twin_says_where() {
    for modes in ["token", "digest nat media2", "token closes old"] {
        let filming = Filming::of(modes);
        eventually("three pictures and a film", async || {
            filming.files("hall", "jpg").len() == 3 && filming.files("films", "mjpeg").len() == 1
        })
        .await;
        let pictures = filming.files("hall", "jpg");
        for picture in &pictures {
            let bytes = fs::read(picture).unwrap();
            assert!(bytes.starts_with(b"\xff\xd8picture ") && bytes.ends_with(b"\xff\xd9"), "{picture:?}");
        }
        let film = fs::read(&filming.files("films", "mjpeg")[0]).unwrap();
        assert_eq!(film.windows(2).filter(|two| two == b"\xff\xd8").count(), 4, "{modes}");
        filming.edgecore.until_value("door", "saveFrame", pictures[2].to_str().unwrap()).await;
        filming.edgecore.until_value("door", "getURI", "rtsp://192.0.2.7:554/main?a=1&b=2").await;
        assert_eq!(filming.camera.ask("faults"), "none", "{modes}");
        filming.mapper.stop().await;
    }
}

#[tokio::test]
async fn a_picture_that_is_none_is_its_own_fault() {
    let filming = Filming::of("token rtsp");
    filming.edgecore.until_fault("door", "saveFrame", "`rtsp://127.0.0.1/x` is no address of HTTP").await;
    filming.edgecore.until_value("door", "getURI", "rtsp://192.0.2.7:554/main?a=1&b=2").await;
    filming.camera.tell("mode token");
    eventually("three pictures", async || filming.files("hall", "jpg").len() == 3).await;
    filming.mapper.stop().await;
}
