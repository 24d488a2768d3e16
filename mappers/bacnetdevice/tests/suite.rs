//! BACnet in the suite that every mapper passes, against a device of bacpypes3; and what else that device shows.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bacpypes;
#[path = "../../framework/tests/conformance/mod.rs"]
mod conformance;
#[path = "../../framework/tests/edgecore/mod.rs"]
mod edgecore;
#[path = "../../framework/tests/python/mod.rs"]
mod python;

use bacnetdevice::{Bacnet, BacnetSession, Visitor};
use bacpypes::{Bacpypes, INSTANCE};
use dmi::Scalar;
use dmi::v1beta1::UpdateDeviceRequest;
use edgecore::{EdgeCore, Mapper, desiring, device, eventually, model, modelled, property};
use framework::{Fault, Kind, Property, Protocol as _, Session as _, Settings, Value};

fn text(text: &str) -> Scalar {
    Scalar::Text(text.to_owned())
}

fn object(object_type: &str, instance: i64) -> Vec<(&'static str, Scalar)> {
    vec![("objectType", text(object_type)), ("objectInstance", Scalar::Int(instance))]
}

impl conformance::Peer for Bacpypes {
    type Protocol = Bacnet;

    fn protocol(&self) -> Bacnet {
        Bacnet::default()
    }
    fn place(&self) -> Vec<(&'static str, Scalar)> {
        Bacpypes::place(self)
    }
    fn visitors(&self, property: &str) -> Vec<(&'static str, Scalar)> {
        match property {
            "int" => object("positive-integer-value", 1),
            "float" => object("analogValue", 2),
            "double" => object("large-analog-value", 1),
            "string" => object("characterstring-value", 1),
            "boolean" => object("BV", 1),
            "seen" => object("multi-state-input", 1),
            _ => object("integer-value", 1),
        }
    }
    fn has(&self, property: &str) -> String {
        let value = self.ask(&format!("get {property}"));
        match property {
            // Python has one size of floats.
            "float" => (value.parse::<f64>().unwrap() as f32).to_string(),
            "double" => value.parse::<f64>().unwrap().to_string(),
            "boolean" => (value == "1").to_string(),
            _ => value,
        }
    }
    fn set(&self, property: &str, value: &str) {
        self.tell(&format!("set {property} {value}"));
    }
    async fn switch(&self, on: bool) -> bool {
        Bacpypes::switch(self, on);
        true
    }
}

#[tokio::test]
async fn bacnet_conforms() {
    conformance::conforms(&Bacpypes::start()).await;
}

async fn session(place: &[(&'static str, Scalar)]) -> Result<BacnetSession, Fault> {
    let protocol = Bacnet::default();
    let address = protocol.address(&Settings::from_pairs(place.iter().cloned())).unwrap();
    protocol.connect(&address).await
}

fn visitor(kind: Kind, pairs: Vec<(&'static str, Scalar)>) -> Visitor {
    Visitor::read(&Property::new("p", kind), &Settings::from_pairs(pairs)).unwrap()
}

fn more(
    mut pairs: Vec<(&'static str, Scalar)>,
    key: &'static str,
    value: &str,
) -> Vec<(&'static str, Scalar)> {
    pairs.push((key, text(value)));
    pairs
}

#[test]
fn names_have_the_numbers_that_somebody_else_gives_them() {
    let device = Bacpypes::start();
    let mut known = (0, 0);
    let tables = include_str!("../src/names.rs").split("#[cfg(test)]").next().unwrap();
    for name in tables.lines().filter_map(|line| {
        let inside = line.trim().strip_prefix("(\"")?;
        inside.split_once('"').map(|(name, _)| name)
    }) {
        let of = |key: &'static str, name: &str| {
            let pairs = match key {
                "object" => object(name, 1),
                _ => more(object("analog-input", 1), "property", name),
            };
            let settings = Settings::from_pairs(pairs);
            Visitor::read(&Property::new("p", Kind::Text), &settings).ok().map(|visitor| match key {
                "object" => u32::from(visitor.target.object.object_type),
                _ => visitor.target.property,
            })
        };
        if name.len() <= 3 {
            continue;
        }
        for (key, count) in [("object", &mut known.0), ("property", &mut known.1)] {
            if let Some(ours) = of(key, name) {
                assert_eq!(device.ask(&format!("{key} {name}")), ours.to_string(), "{name}");
                *count += 1;
            }
        }
    }
    assert!(known.0 > 55 && known.1 > 50, "{known:?}");
}

#[tokio::test]
async fn many_values_come_at_once_and_what_is_not_there_costs_no_other() {
    let device = Bacpypes::start();
    device.tell("reliability room no-sensor");
    let mut place = device.place();
    // Asked as itself, it says how long its answers may be.
    place.push(("deviceInstance", Scalar::Int(INSTANCE.into())));
    let mut session = session(&place).await.unwrap();
    let input = |at| visitor(Kind::Double, object("AI", at));
    let mut visitors: Vec<Visitor> = (10..40).map(input).collect();
    visitors[1] = input(99);
    visitors[2] = visitor(Kind::Double, more(object("AI", 12), "property", "9999"));
    visitors[3] = visitor(Kind::Double, more(object("AI", 13), "index", "1"));
    visitors[4] = input(1);
    visitors[5] = visitor(Kind::Text, more(object("device", INSTANCE.into()), "property", "object-name"));
    visitors[6] = visitor(Kind::Text, more(object("device", INSTANCE.into()), "property", "object-list"));
    visitors[7] = visitor(
        Kind::Text,
        more(more(object("device", INSTANCE.into()), "property", "object-list"), "index", "1"),
    );
    let read = session.read_many(&visitors.iter().collect::<Vec<_>>()).await;
    assert_eq!(read.len(), 30, "all of them, with their status flags");
    for (at, outcome) in read {
        let refused = |said: &str| {
            assert!(
                matches!(&outcome, Err(Fault::Device(reason)) if reason.contains(said)),
                "{at}: {outcome:?}"
            );
        };
        match at {
            1 => refused("no such object"),
            2 => refused("no such property"),
            3 => refused("leave out `index`"),
            4 => {
                let doubt = "the object is in fault".to_owned();
                assert_eq!(outcome, Err(Fault::Doubtful(Value::Double(21.5), doubt)));
            }
            5 => assert_eq!(outcome, Ok(Value::Text(format!("device {INSTANCE}")))),
            6 => refused("`index`"),
            7 => assert_eq!(outcome, Ok(Value::Text(format!("device,{INSTANCE}")))),
            at => assert_eq!(outcome, Ok(Value::Double(f64::from(u32::try_from(at).unwrap() + 10)))),
        }
    }
}

#[tokio::test]
async fn without_read_property_multiple_and_with_little_room_all_of_it_is_read_all_the_same() {
    let device = Bacpypes::start();
    let visitors: Vec<Visitor> = (10..40).map(|at| visitor(Kind::Double, object("AI", at))).collect();
    for command in ["room 100", "multiple no"] {
        device.tell(command);
        let mut session = session(&device.place()).await.unwrap();
        let mut from = 0;
        while from < visitors.len() {
            let rest: Vec<&Visitor> = visitors[from..].iter().collect();
            let read = session.read_many(&rest).await;
            for (at, outcome) in &read {
                let wanted = f64::from(u32::try_from(from + at).unwrap() + 10);
                assert_eq!(*outcome, Ok(Value::Double(wanted)), "{command}");
            }
            assert!(read.len() < 5, "{command}: {}", read.len());
            from += read.len();
        }
    }
}

#[tokio::test]
async fn refusals_are_in_words() {
    let device = Bacpypes::start();
    let mut session = session(&device.place()).await.unwrap();
    for (asked, value, said) in [
        (visitor(Kind::Double, object("AI", 99)), Value::Double(1.0), "no such object"),
        (visitor(Kind::Double, more(object("AI", 1), "property", "9999")), Value::Double(1.0), "error"),
        (
            visitor(Kind::Text, more(object("AV", 2), "dataType", "string")),
            Value::Text("x".to_owned()),
            "set `dataType`",
        ),
    ] {
        let refused = session.write(&asked, &value).await.unwrap_err();
        assert!(matches!(&refused, Fault::Device(reason) if reason.contains(said)), "{refused}");
    }
    let state = visitor(Kind::Int, object("MSV", 1));
    let refused = session.write(&state, &Value::Int(0)).await.unwrap_err();
    assert!(matches!(&refused, Fault::Unfit(reason) if reason.contains("count from 1")), "{refused}");
}

/// A device with one property, and a mapper of it.
async fn mapped(
    peer: &Bacpypes,
    edgecore: &EdgeCore,
    folder: &tempfile::TempDir,
    (name, kind): (&str, &str),
    (visitors, lifetime): (&[(&str, Scalar)], i64),
    desired: &str,
) -> (Mapper, dmi::v1beta1::Device) {
    let mode = if desired.is_empty() { "ReadOnly" } else { "ReadWrite" };
    let mut place = peer.place();
    place.push(("covLifetime", Scalar::Int(lifetime)));
    let plain = device("one", "plant", "bacnet", &place, vec![property(name, "bacnet", visitors)]);
    let wanted = if desired.is_empty() { plain } else { desiring(plain, name, desired) };
    {
        let mut objects = edgecore.objects.lock().unwrap();
        objects.models = vec![model("plant", vec![modelled(name, kind, mode)])];
        objects.devices = vec![wanted.clone()];
    }
    edgecore.start();
    (Mapper::start(folder.path(), Bacnet::default()), wanted)
}

#[tokio::test]
async fn a_set_point_is_written_at_its_priority_and_relinquished_when_it_is_desired_no_more() {
    let peer = Bacpypes::start();
    let folder = tempfile::tempdir().unwrap();
    let edgecore = EdgeCore::at(folder.path());
    // Somebody else holds it with a higher priority, at the value that is desired.
    peer.tell("put heating 5 23");
    let visitors = more(more(object("AV", 1), "priority", "10"), "relinquish", "true");
    let (mut mapper, wanted) =
        mapped(&peer, &edgecore, &folder, ("heating", "DOUBLE"), (&visitors, 300), "23").await;
    eventually("ours beside theirs", async || peer.ask("at heating 10") == "23.0").await;
    peer.tell("put heating 5 null");
    let both = Some(("23".to_owned(), "23".to_owned()));
    edgecore.until("23", |heard| (heard.last("one", "heating") == both).then_some(())).await;
    let unset = UpdateDeviceRequest { device: Some(desiring(wanted.clone(), "heating", "")) };
    mapper.calls.update_device(unset).await.unwrap();
    eventually("ours is gone", async || peer.ask("at heating 10") == "null").await;
    edgecore.until_value("one", "heating", "19").await;
    let nothing = Some((String::new(), "19".to_owned()));
    edgecore.until("nothing desired", |heard| (heard.last("one", "heating") == nothing).then_some(())).await;
    mapper.stop().await;
    // What a mapper before this one has left there goes, too; what others have at other priorities stays.
    peer.tell("put heating 10 30");
    peer.tell("put heating 12 31");
    edgecore.objects.lock().unwrap().devices = vec![desiring(wanted, "heating", "")];
    let mapper = Mapper::start(folder.path(), Bacnet::default());
    edgecore.until_value("one", "heating", "31").await;
    assert_eq!(peer.ask("at heating 10"), "null");
    mapper.stop().await;
}

#[tokio::test]
async fn what_has_no_priorities_is_not_relinquished_and_says_so() {
    let peer = Bacpypes::start();
    let mut session = session(&peer.place()).await.unwrap();
    let plain = visitor(Kind::Double, more(object("AV", 2), "relinquish", "true"));
    let refused = session.release(&plain).await.unwrap_err();
    assert!(
        matches!(&refused, Fault::Unfit(reason) if reason.contains("leave out `relinquish`")),
        "{refused}"
    );
    let heating = visitor(Kind::Double, more(object("AV", 1), "relinquish", "true"));
    assert_eq!(session.release(&heating).await, Ok(false), "there is nothing of ours");
    session.write(&heating, &Value::Double(25.0)).await.unwrap();
    assert_eq!(peer.ask("at heating 16"), "25.0");
    assert_eq!(session.holds(&heating, &Value::Double(25.0)).await, Ok(true));
    assert_eq!(session.release(&heating).await, Ok(true));
    assert_eq!(peer.ask("at heating 16"), "null");
}

#[tokio::test]
async fn changes_are_told_by_the_device_and_what_it_forgets_is_asked_for_again() {
    let peer = Bacpypes::start();
    let folder = tempfile::tempdir().unwrap();
    let edgecore = EdgeCore::at(folder.path());
    let visitors = more(object("BV", 1), "cov", "true");
    let (mapper, _) = mapped(&peer, &edgecore, &folder, ("boolean", "BOOLEAN"), (&visitors, 10), "").await;
    edgecore.until_value("one", "boolean", "false").await;
    assert_eq!(peer.ask("subscriptions"), "1");
    // A value comes without a question, unless a look is just then.
    let mut unasked = 0;
    for value in ["true", "false", "true"] {
        let reads = peer.ask("reads");
        peer.tell(&format!("set boolean {value}"));
        edgecore.until_value("one", "boolean", value).await;
        unasked += usize::from(peer.ask("reads") == reads);
    }
    assert!(unasked > 0);
    eventually("confirmed", async || peer.ask("confirmed").parse::<usize>().unwrap() >= 4).await;
    // Without a word from the device a look finds it, and that it does not tell.
    peer.tell("forget");
    assert_eq!(peer.ask("subscriptions"), "0");
    peer.tell("set boolean false");
    edgecore.until_value("one", "boolean", "false").await;
    eventually("asked anew", async || peer.ask("subscriptions") == "1").await;
    peer.tell("set boolean true");
    edgecore.until_value("one", "boolean", "true").await;
    let asked = || peer.ask("asked").parse::<usize>().unwrap();
    let before = asked();
    eventually("asked anew in its time", async || asked() > before).await;
    assert_eq!(peer.ask("subscriptions"), "1");
    mapper.stop().await;
    assert_eq!(peer.ask("subscriptions"), "0", "it took leave");
}

#[tokio::test]
async fn a_device_that_tells_of_changes_and_goes_is_offline_and_tells_again_when_it_is_back() {
    let peer = Bacpypes::start();
    let folder = tempfile::tempdir().unwrap();
    let edgecore = EdgeCore::at(folder.path());
    let visitors = more(object("BV", 1), "cov", "true");
    let (mapper, _) = mapped(&peer, &edgecore, &folder, ("boolean", "BOOLEAN"), (&visitors, 10), "").await;
    edgecore.until_value("one", "boolean", "false").await;
    peer.switch(false);
    let is = |state: &str| ("one".to_owned(), state.to_owned());
    let (offline, online) = (is("offline"), is("online"));
    edgecore.until("offline", |heard| (heard.states.last() == Some(&offline)).then_some(())).await;
    peer.switch(true);
    edgecore.until("online", |heard| (heard.states.last() == Some(&online)).then_some(())).await;
    eventually("it tells again", async || peer.ask("subscriptions") == "1").await;
    peer.tell("set boolean true");
    edgecore.until_value("one", "boolean", "true").await;
    mapper.stop().await;
}

#[tokio::test]
async fn a_device_that_says_that_it_has_started_is_asked_for_changes_again() {
    let peer = Bacpypes::start();
    let folder = tempfile::tempdir().unwrap();
    let edgecore = EdgeCore::at(folder.path());
    // Small changes of such a value are not told, so that a look finds nothing wrong, and its time is far away.
    let visitors = more(object("AI", 1), "cov", "true");
    let (mapper, _) = mapped(&peer, &edgecore, &folder, ("room", "DOUBLE"), (&visitors, 300), "").await;
    edgecore.until_value("one", "room", "21.5").await;
    peer.tell("starts");
    eventually("asked anew", async || peer.ask("subscriptions") == "1").await;
    peer.tell("set room 22.5");
    edgecore.until_value("one", "room", "22.5").await;
    mapper.stop().await;
}

#[tokio::test]
async fn what_a_device_does_not_tell_of_is_read_in_its_cycle() {
    let peer = Bacpypes::start();
    peer.tell("changes no");
    let folder = tempfile::tempdir().unwrap();
    let edgecore = EdgeCore::at(folder.path());
    let visitors = more(object("BV", 1), "cov", "true");
    let (mapper, _) = mapped(&peer, &edgecore, &folder, ("boolean", "BOOLEAN"), (&visitors, 10), "").await;
    edgecore.until_value("one", "boolean", "false").await;
    assert_eq!(peer.ask("asked"), "1");
    // Of what is told of there would be two looks in this time.
    eventually("its cycles", async || peer.ask("reads").parse::<usize>().unwrap() > 50).await;
    peer.tell("set boolean true");
    edgecore.until_value("one", "boolean", "true").await;
    mapper.stop().await;
}

#[tokio::test]
async fn a_device_behind_a_router_is_reached_by_its_address_there_and_found_by_its_instance() {
    let [port] = testhost::free_ports().unwrap();
    let mut router = bacpypes::router(port);
    let own = [
        ("port", Scalar::Int(port.into())),
        ("localPort", Scalar::Int(0)),
        ("timeoutMs", Scalar::Int(500)),
        ("retries", Scalar::Int(1)),
    ];
    let value = visitor(Kind::Double, object("AV", 1));
    let there = [("ip", text("127.0.0.1")), ("network", Scalar::Int(5)), ("mac", text("12"))];
    let found = [("deviceInstance", Scalar::Int(77)), ("broadcast", text("127.0.0.1"))];
    for (place, written) in [(there.to_vec(), "6.5"), (found.to_vec(), "7.5")] {
        let mut session = session(&[own.to_vec(), place].concat()).await.unwrap();
        router.tell("set 4.5");
        assert_eq!(session.read(&value).await, Ok(Value::Double(4.5)));
        session.write(&value, &Value::Double(written.parse().unwrap())).await.unwrap();
        assert_eq!(router.ask("get"), written);
    }
    let nobody = [("ip", text("127.0.0.1")), ("network", Scalar::Int(5)), ("mac", text("13"))];
    let fault = session(&[own.to_vec(), nobody.to_vec()].concat()).await.unwrap_err();
    assert!(
        matches!(&fault, Fault::NotSent(reason) if reason.contains("(network 5, address 13) has not answered")),
        "{fault}"
    );
}

#[tokio::test]
async fn a_device_is_found_by_its_instance() {
    let peer = Bacpypes::start();
    let port = Scalar::Int(peer.port.into());
    let place = |instance: u32, more: Vec<(&'static str, Scalar)>| {
        let own = [
            ("deviceInstance", Scalar::Int(instance.into())),
            ("localPort", Scalar::Int(0)),
            ("timeoutMs", Scalar::Int(500)),
            ("retries", Scalar::Int(1)),
        ];
        [own.to_vec(), more].concat()
    };
    let room = visitor(Kind::Double, object("AI", 1));
    // By a broadcast of our own, and by a BBMD's at which we are a foreign device.
    let broadcast = vec![("broadcast", text("127.255.255.255")), ("port", port.clone())];
    let mut found = session(&place(INSTANCE, broadcast.clone())).await.unwrap();
    assert_eq!(found.read(&room).await, Ok(Value::Double(21.5)));
    assert_eq!(peer.ask("foreign"), "0");
    let bbmd = vec![("bbmd", text(&format!("127.0.0.1:{}", peer.port))), ("ttl", Scalar::Int(30))];
    let mut found = session(&place(INSTANCE, bbmd)).await.unwrap();
    assert_eq!(found.read(&room).await, Ok(Value::Double(21.5)));
    assert_eq!(peer.ask("foreign"), "1");
    let lost = session(&place(INSTANCE + 1, broadcast)).await.unwrap_err();
    assert!(
        matches!(&lost, Fault::NotSent(reason) if reason.contains("no device says that it is 1235")),
        "{lost}"
    );
    // At an address with another instance than is said.
    let mut at = peer.place();
    at.push(("deviceInstance", Scalar::Int(7)));
    let wrong = session(&at).await.unwrap_err();
    assert!(matches!(&wrong, Fault::NotSent(reason) if reason.contains("is not 7")), "{wrong}");
}
