//! A strict camera for these tests, by Python's own HTTP server and XML parser.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Mutex;

use dmi::Scalar;
use framework::host::Targets;
use framework::{Fault, Kind, Property, Protocol as _, Settings};
use onvifdevice::{Onvif, OnvifSession, Visitor};

use crate::python::Script;

/// Who may do everything at it.
pub(crate) const LOGIN: [(&str, &str); 2] = [("userName", "op"), ("password", "p<&\">w")];
/// As which it is known.
pub(crate) const REFERENCE: &str = "urn:uuid:4d454930-0000-1000-8000-bcaec5c0ffee";

/// The camera; switched off it has forgotten everything.
pub(crate) struct Camera {
    pub(crate) port: u16,
    /// Where it hears who looks for it.
    pub(crate) hears: u16,
    script: Mutex<Option<Script>>,
}

/// The cameras of these tests are where no device may be by itself.
pub(crate) fn on_loopback(folder: &Path) -> Onvif {
    Onvif::beside(&folder.join("mapper.sock"), Targets::new(vec!["127.0.0.0/8".to_owned()]).unwrap())
}

pub(crate) fn protocol() -> Onvif {
    on_loopback(Path::new("/nowhere"))
}

impl Camera {
    pub(crate) fn start() -> Self {
        let [port, hears] = testhost::free_ports().unwrap();
        let camera = Camera { port, hears, script: Mutex::default() };
        camera.switch(true);
        camera
    }

    /// One with something odd about it.
    pub(crate) fn odd(modes: &str) -> Self {
        let camera = Camera::start();
        camera.tell(&format!("mode {modes}"));
        camera
    }

    pub(crate) fn switch(&self, on: bool) {
        let mut script = self.script.lock().unwrap();
        *script = None;
        if on {
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/camera/camera.py");
            let started = Script::start(&[], &file, &[&self.port.to_string(), &self.hears.to_string()]);
            assert_eq!(started.first, "ready");
            *script = Some(started);
        }
    }

    pub(crate) fn ask(&self, command: &str) -> String {
        self.script.lock().unwrap().as_mut().unwrap().ask(command)
    }

    pub(crate) fn tell(&self, command: &str) {
        assert_eq!(self.ask(command), "ok");
    }

    /// How often an operation was asked for.
    pub(crate) fn count(&self, operation: &str) -> usize {
        self.ask(&format!("count {operation}")).parse().unwrap()
    }

    pub(crate) fn place(&self) -> Vec<(&'static str, Scalar)> {
        let text = |(key, value): (&'static str, &str)| (key, Scalar::Text(value.to_owned()));
        let url = format!("127.0.0.1:{}", self.port);
        [("url", url.as_str())].into_iter().chain(LOGIN).map(text).collect()
    }

    pub(crate) async fn try_session(&self, more: &[(&'static str, &str)]) -> Result<OnvifSession, Fault> {
        let mut pairs = self.place();
        pairs.retain(|(key, _)| more.iter().all(|(own, _)| own != key));
        pairs.extend(more.iter().map(|(key, value)| (*key, Scalar::Text((*value).to_owned()))));
        let protocol = protocol();
        protocol.connect(&protocol.address(&Settings::from_pairs(pairs)).unwrap()).await
    }

    pub(crate) async fn session(&self, more: &[(&'static str, &str)]) -> OnvifSession {
        self.try_session(more).await.unwrap()
    }
}

/// What a property is.
pub(crate) fn visitor(kind: Kind, pairs: &[(&str, &str)]) -> Visitor {
    let property = Property { writable: true, ..Property::new("p", kind) };
    let pairs = pairs.iter().map(|(key, value)| (*key, Scalar::Text((*value).to_owned())));
    Visitor::read(&property, &Settings::from_pairs(pairs)).unwrap()
}

/// One that every camera has, and that wants a login.
pub(crate) fn model() -> Visitor {
    visitor(Kind::Text, &[("method", "GetDeviceInformation"), ("item", "Model")])
}
