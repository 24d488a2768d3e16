//! Whom the mapper trusts, and who it is, against a server that we did not write.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod asyncua;
#[path = "../../framework/tests/edgecore/mod.rs"]
mod edgecore;
#[path = "../../framework/tests/python/mod.rs"]
mod python;

use asyncua::{Asyncua, node};
use dmi::v1beta1::{Device, RegisterDeviceRequest, UpdateDeviceRequest};
use edgecore::{EdgeCore, Mapper, desiring, device, model, modelled, property};
use opcuadevice::OpcUa;

/// A server with certificates and users, a mapper without a device, and an edgecore.
struct Fixture {
    server: Asyncua,
    edgecore: EdgeCore,
    mapper: Mapper,
    folder: tempfile::TempDir,
}

const USER: [(&str, &str); 2] = [("userName", "operator"), ("password", "open sesame")];
const SECURE: (&str, &str) = ("securityPolicy", "Basic256Sha256");

async fn fixture() -> Fixture {
    let server = Asyncua::secure();
    let folder = tempfile::tempdir().unwrap();
    let edgecore = EdgeCore::at(folder.path());
    let nowhere = [("url", asyncua::text("opc.tcp://127.0.0.1:1"))];
    {
        let mut objects = edgecore.objects.lock().unwrap();
        objects.models = vec![model("plant", vec![modelled("level", "INT", "ReadWrite")])];
        objects.devices = vec![device("first", "plant", "opcua", &nowhere, Vec::new())];
    }
    edgecore.start();
    let mapper = Mapper::start(folder.path(), OpcUa::with(folder.path().join("pki")));
    // The mapper has taken what edgecore handed out, and forgets no device any more that is added.
    let offline = ("first".to_owned(), "offline".to_owned());
    edgecore.until("the first device", |heard| heard.states.contains(&offline).then_some(())).await;
    Fixture { server, edgecore, mapper, folder }
}

impl Fixture {
    /// A device of its own, with these settings.
    async fn add(&mut self, name: &str, settings: &[(&'static str, &str)]) -> Device {
        let properties = vec![property("level", "opcua", &node("level"))];
        let device = device(name, "plant", "opcua", &self.server.place(settings), properties);
        let request = RegisterDeviceRequest { device: Some(device.clone()) };
        self.mapper.calls.register_device(request).await.unwrap();
        device
    }
    fn trust_the_server(&self) {
        let trusted = self.folder.path().join("pki/trusted");
        std::fs::create_dir_all(&trusted).unwrap();
        std::fs::copy(self.server.certificate(), trusted.join("plc.der")).unwrap();
    }
    fn our_certificate(&self) -> String {
        self.folder.path().join("pki/own/cert.der").display().to_string()
    }
}

#[tokio::test]
async fn every_policy_and_mode_reads_and_writes_as_a_user() {
    let mut fixture = fixture().await;
    fixture.trust_the_server();
    let modes = ["Sign", "SignAndEncrypt"];
    let policies = ["Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss"];
    for (at, policy) in policies.into_iter().enumerate() {
        for mode in modes {
            let name = format!("{policy}-{mode}").to_lowercase();
            let settings = [("securityPolicy", policy), ("securityMode", mode), USER[0], USER[1]];
            let device = fixture.add(&name, &settings).await;
            let wanted = format!("{}", at * 10 + mode.len());
            let wanted_device = desiring(device, "level", &wanted);
            let request = UpdateDeviceRequest { device: Some(wanted_device) };
            fixture.mapper.calls.update_device(request).await.unwrap();
            let both = Some((wanted.clone(), wanted.clone()));
            fixture.edgecore.until(&name, |heard| (heard.last(&name, "level") == both).then_some(())).await;
            assert_eq!(fixture.server.script.ask("get level"), wanted, "{name}");
            let gone = dmi::v1beta1::RemoveDeviceRequest {
                device_name: name,
                device_namespace: "default".to_owned(),
            };
            fixture.mapper.calls.remove_device(gone).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_server_that_nobody_trusts_is_refused_by_name_with_the_cure() {
    let mut fixture = fixture().await;
    fixture.add("plc", &[SECURE, USER[0], USER[1]]).await;
    fixture.edgecore.until_fault("plc", "level", "is not trusted").await;
    let said = fixture.edgecore.heard().fault("plc", "level").unwrap();
    assert!(said.contains("thumbprint") && said.contains("trusted") && said.contains("trustList"), "{said}");
    assert_eq!(fixture.server.script.ask("sessions"), "0", "and it has seen no password");
    // The cure, as it is said: moved from one folder to the other, and nothing else.
    let pki = fixture.folder.path().join("pki");
    std::fs::create_dir_all(pki.join("trusted")).unwrap();
    let kept: Vec<_> = std::fs::read_dir(pki.join("rejected")).unwrap().flatten().collect();
    let [kept] = kept.as_slice() else { panic!("{kept:?}") };
    std::fs::rename(kept.path(), pki.join("trusted").join(kept.file_name())).unwrap();
    fixture.server.script.tell("set level 5");
    fixture.edgecore.until_value("plc", "level", "5").await;
    // A Device that says so trusts whoever answers; one that names the file trusts that.
    fixture.add("blind", &[SECURE, USER[0], USER[1], ("insecure", "true")]).await;
    fixture.edgecore.until_value("blind", "level", "5").await;
    let certificate = fixture.server.certificate();
    std::fs::remove_dir_all(pki.join("trusted")).unwrap();
    fixture.add("named", &[SECURE, USER[0], USER[1], ("remoteCertificate", &certificate)]).await;
    fixture.edgecore.until_value("named", "level", "5").await;
    fixture.add("other", &[("securityPolicy", "Aes128Sha256RsaOaep"), USER[0], USER[1]]).await;
    fixture.edgecore.until_fault("other", "level", "is not trusted").await;
}

#[tokio::test]
async fn a_server_with_another_certificate_is_another_server() {
    let mut fixture = fixture().await;
    fixture.trust_the_server();
    fixture.add("plc", &[SECURE, USER[0], USER[1]]).await;
    fixture.server.script.tell("set level 1");
    fixture.edgecore.until_value("plc", "level", "1").await;
    fixture.server.script.tell("off");
    for file in ["server.der", "server.pem"] {
        std::fs::remove_file(fixture.server.folder.path().join(file)).unwrap();
    }
    fixture.server.script.tell("on");
    fixture.server.script.tell("set level 2");
    let offline = ("plc".to_owned(), "offline".to_owned());
    fixture.edgecore.until("offline", |heard| (heard.states.last() == Some(&offline)).then_some(())).await;
    let rejected = fixture.folder.path().join("pki/rejected");
    edgecore::eventually("the new one among the rejected", async || rejected.exists()).await;
    // The value that was read before may stand beside it: why it is no longer read, the device says.
    let is_said =
        |reason: &Option<String>| reason.as_ref().is_some_and(|said| said.contains("is not trusted"));
    fixture
        .edgecore
        .until("is not trusted", |heard| heard.reasons.get("plc").filter(|reason| is_said(reason)).map(drop))
        .await;
    fixture.trust_the_server();
    fixture.edgecore.until_value("plc", "level", "2").await;
}

#[tokio::test]
async fn a_server_that_does_not_trust_us_and_one_that_refuses_a_user_are_told_apart() {
    let mut fixture = fixture().await;
    fixture.trust_the_server();
    fixture.add("wrong", &[SECURE, USER[0], ("password", "guess")]).await;
    fixture.edgecore.until_fault("wrong", "level", "refuses user `operator`").await;
    let said = fixture.edgecore.heard().fault("wrong", "level").unwrap();
    assert!(said.contains("Bad") && !said.contains("guess"), "{said}");
    // From now on the server takes its own certificate's bearer alone.
    let own = fixture.server.certificate();
    fixture.server.script.tell(&format!("trust {own}"));
    fixture.add("plc", &[SECURE, USER[0], USER[1]]).await;
    fixture.edgecore.until_fault("plc", "level", "does not take our certificate").await;
    let said = fixture.edgecore.heard().fault("plc", "level").unwrap();
    assert!(said.contains("BadCertificateUntrusted") && said.contains("thumbprint"), "{said}");
    let ours = fixture.our_certificate();
    fixture.server.script.tell(&format!("trust {ours}"));
    fixture.server.script.tell("set level 6");
    fixture.edgecore.until_value("plc", "level", "6").await;
}

#[tokio::test]
async fn what_a_server_does_not_offer_is_said_with_what_it_does() {
    let mut fixture = fixture().await;
    fixture.trust_the_server();
    fixture.add("plain", &[]).await;
    fixture.edgecore.until_fault("plain", "level", "does not offer None with None").await;
    let said = fixture.edgecore.heard().fault("plain", "level").unwrap();
    assert!(said.contains("Basic256Sha256 with SignAndEncrypt"), "{said}");
    fixture.add("clear", &[USER[0], USER[1]]).await;
    fixture.edgecore.until_fault("clear", "level", "whoever answers").await;
    // A password in a file of the mapper's.
    let password = fixture.folder.path().join("pki/password");
    std::fs::write(&password, "open sesame\n").unwrap();
    let password = password.display().to_string();
    fixture.add("file", &[SECURE, USER[0], ("passwordFile", &password)]).await;
    fixture.server.script.tell("set level 8");
    fixture.edgecore.until_value("file", "level", "8").await;
    let foreign = fixture.server.folder.path().join("server.pem").display().to_string();
    fixture.add("thief", &[SECURE, USER[0], ("password", &foreign)]).await;
    fixture.edgecore.until_fault("thief", "level", "has to lie in that folder").await;
    let state = ("thief".to_owned(), "unhealthy".to_owned());
    fixture.edgecore.until("unhealthy", |heard| heard.states.contains(&state).then_some(())).await;
    let is_of_thief = |said: &&(String, String)| said.0 == "thief";
    assert!(fixture.edgecore.heard().states.iter().filter(is_of_thief).all(|said| said.1 == "unhealthy"));
}
