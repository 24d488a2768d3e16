//! ONVIF in the suite that every mapper passes, against a strict camera.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod camera;
#[path = "../../framework/tests/conformance/mod.rs"]
mod conformance;
#[path = "../../framework/tests/edgecore/mod.rs"]
mod edgecore;
#[path = "../../framework/tests/python/mod.rs"]
mod python;

use camera::Camera;
use dmi::Scalar;
use onvifdevice::Onvif;

const ENCODER: &str = "<trt:GetVideoEncoderConfiguration><trt:ConfigurationToken>main</trt:ConfigurationToken></trt:GetVideoEncoderConfiguration>";

/// The camera's setting that a property is, its service, how it is read and where, and how it is written.
fn at(property: &str) -> (&'static str, &'static str, &'static str, &'static str, String) {
    let imaging =
        "<timg:GetImagingSettings><timg:VideoSourceToken>0</timg:VideoSourceToken></timg:GetImagingSettings>";
    let set_imaging = |name: &str| {
        format!(
            "<timg:SetImagingSettings><timg:VideoSourceToken>0</timg:VideoSourceToken><timg:ImagingSettings><tt:{name}>{{{{value}}}}</tt:{name}>\
             </timg:ImagingSettings></timg:SetImagingSettings>"
        )
    };
    let set_encoder = |attribute: &str, inside: &str| {
        format!(
            "<trt:SetVideoEncoderConfiguration><trt:Configuration token=\"main\"{attribute}>{inside}</trt:Configuration></trt:SetVideoEncoderConfiguration>"
        )
    };
    match property {
        "int" => (
            "BitrateLimit",
            "media",
            ENCODER,
            "Configuration/RateControl/BitrateLimit",
            set_encoder("", "<tt:RateControl><tt:BitrateLimit>{{value}}</tt:BitrateLimit></tt:RateControl>"),
        ),
        "float" => {
            ("Brightness", "imaging", imaging, "ImagingSettings/Brightness", set_imaging("Brightness"))
        }
        "double" => ("Contrast", "imaging", imaging, "ImagingSettings/Contrast", set_imaging("Contrast")),
        "string" => (
            "Name",
            "device",
            "GetHostname",
            "HostnameInformation/Name",
            "<tds:SetHostname><tds:Name>{{value}}</tds:Name></tds:SetHostname>".to_owned(),
        ),
        "boolean" => (
            "GuaranteedFrameRate",
            "media",
            ENCODER,
            "Configuration/@GuaranteedFrameRate",
            set_encoder(" GuaranteedFrameRate=\"{{value}}\"", ""),
        ),
        "seen" => (
            "FrameRateLimit",
            "media",
            ENCODER,
            "Configuration[@token=main]/RateControl/FrameRateLimit",
            String::new(),
        ),
        _ => (
            "Quality",
            "media",
            ENCODER,
            "trt:Configuration/tt:Quality",
            set_encoder("", "<tt:Quality>{{value}}</tt:Quality>"),
        ),
    }
}

impl conformance::Peer for Camera {
    type Protocol = Onvif;

    fn protocol(&self) -> Onvif {
        camera::protocol()
    }
    fn place(&self) -> Vec<(&'static str, Scalar)> {
        Camera::place(self)
    }
    fn visitors(&self, property: &str) -> Vec<(&'static str, Scalar)> {
        let (_, service, request, element, write) = at(property);
        let pairs =
            [("service", service), ("request", request), ("element", element), ("write", write.as_str())];
        let is_there = |(_, value): &(&'static str, &str)| !value.is_empty();
        pairs.into_iter().filter(is_there).map(|(key, value)| (key, Scalar::Text(value.to_owned()))).collect()
    }
    fn has(&self, property: &str) -> String {
        self.ask(&format!("get {}", at(property).0))
    }
    fn set(&self, property: &str, value: &str) {
        self.tell(&format!("set {} {value}", at(property).0));
    }
    async fn switch(&self, on: bool) -> bool {
        Camera::switch(self, on);
        true
    }
}

#[tokio::test]
async fn onvif_conforms() {
    let camera = Camera::start();
    conformance::conforms(&camera).await;
    assert_eq!(camera.ask("faults"), "none");
}

#[tokio::test]
async fn onvif_conforms_with_http_digest_behind_a_nat() {
    let camera = Camera::start();
    // It forgets its quirks when it is switched off: both logins are then good.
    camera.tell("mode digest nat");
    conformance::conforms(&camera).await;
    assert_eq!(camera.ask("faults"), "none");
}
