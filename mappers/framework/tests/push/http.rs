//! `pushMethod.http`, against Python's HTTP server and its reader of forms.

use dmi::v1beta1::{PushMethod, PushMethodHttp, PushMethodMqtt, PushMethodOtel};
use framework::Value;

use crate::edgecore::eventually;
use crate::pushing::{LARGE, Pushing, Target, device, distinct};

fn to(port: u16, path: &str) -> Option<PushMethod> {
    let http = PushMethodHttp {
        hostname: "http://127.0.0.1".to_owned(),
        port: port.into(),
        requestpath: path.to_owned(),
        timeout: 1,
    };
    Some(PushMethod { http: Some(http), ..Default::default() })
}

/// The values of a property that were posted to a path, each once, in order.
fn posted(target: &mut Target, path: &str, property: &str) -> Vec<String> {
    let took = target.took();
    let forms = took.iter().filter(|form| form[0] == path && form[1][0][0] == property);
    distinct(forms.map(|form| form[1][0][1].as_str().unwrap().to_owned()))
}

fn has(path: &'static str, value: &str) -> impl Fn(&serde_json::Value) -> bool + use<> {
    let value = value.to_owned();
    move |form| form[0] == path && form[1][0][1] == value.as_str()
}

#[tokio::test]
async fn readings_are_posted_in_order_and_a_form_is_kubeedges() {
    let mut target = Target::start(&[], "form.py");
    let push = device(to(target.port, "/level"), to(target.port, "/label"));
    let pushing = Pushing::start(push).await;
    for level in [7, LARGE, u64::MAX.into(), i64::MIN.into()] {
        pushing.level(level).await;
    }
    let strange = "a&time=b=c 100%+\n\"ü'; #";
    pushing.label(strange).await;
    target.until_took("the last number", has("/level", &i64::MIN.to_string())).await;
    target.until_took("the text", has("/label", strange)).await;
    let wanted = ["7", "9007199254740993", "18446744073709551615", "-9223372036854775808"];
    assert_eq!(posted(&mut target, "/level", "level"), wanted);
    let raw = target.took().iter().find(|form| form[0] == "/level").unwrap()[2].clone();
    let (reading, time) = raw.as_str().unwrap().split_once("&time=").unwrap();
    assert_eq!((reading, time.len(), &time[..2]), ("level=7", "2006-01-02 15:04:05".len(), "20"), "{raw}");
    assert_eq!(pushing.edgecore.heard().fault("one", "level"), None);
    pushing.mapper.stop().await;
}

#[tokio::test]
async fn what_waits_for_a_target_outlives_the_mapper() {
    let mut target = Target::start(&[], "form.py");
    target.script.tell("off");
    let pushing = Pushing::start(device(to(target.port, "/"), None)).await;
    pushing.until_said("level", "readings wait").await;
    for level in [8, 9] {
        pushing.level(level).await;
    }
    let pushing = pushing.restart().await;
    assert_eq!(pushing.kept(), 1);
    pushing.until_said("level", "readings wait").await;
    pushing.level(10).await;
    let pushing = pushing.restart().await;
    pushing.level(11).await;
    target.script.tell("on");
    target.until_took("the last one", has("/", "11")).await;
    pushing.until_well("level").await;
    assert_eq!(posted(&mut target, "/", "level"), ["7", "8", "9", "10", "11"], "in order, each");
    eventually("nothing waits on the disk", async || pushing.kept() == 0).await;
    // What nobody pushes any more is not kept for anybody.
    target.script.tell("off");
    pushing.level(12).await;
    pushing.until_said("level", "readings wait").await;
    let mut pushing = pushing.restart().await;
    assert_eq!(pushing.kept(), 1);
    // It has begun.
    pushing.level(13).await;
    pushing.update(device(None, None)).await;
    eventually("what was kept is gone", async || pushing.kept() == 0).await;
    pushing.mapper.stop().await;
}

#[tokio::test]
async fn what_waits_for_a_target_that_is_away_comes_in_order_and_its_restart_heals() {
    let mut target = Target::start(&[], "form.py");
    target.script.tell("off");
    let pushing = Pushing::start(device(to(target.port, "/"), None)).await;
    pushing.until_said("level", "readings wait").await;
    for level in [8, 9] {
        pushing.level(level).await;
    }
    assert!(pushing.edgecore.heard().fault("one", "label").is_none(), "it is not pushed");
    target.script.tell("on");
    target.until_took("what waited", has("/", "9")).await;
    pushing.until_well("level").await;
    // Its end closes the connection that is kept.
    target.script.tell("off");
    pushing.until_said("level", "no connection to 127.0.0.1").await;
    pushing.level(10).await;
    target.script.tell("mode busy");
    target.script.tell("on");
    pushing.until_said("level", "503 Service Unavailable: later").await;
    target.script.tell("mode well");
    pushing.level(11).await;
    target.until_took("the last one", has("/", "11")).await;
    pushing.until_well("level").await;
    assert_eq!(
        posted(&mut target, "/", "level"),
        ["7", "8", "9", "10", "11"],
        "in order, and nothing is missing"
    );
    pushing.mapper.stop().await;
}

#[tokio::test]
async fn a_target_that_never_answers_holds_up_nothing_else() {
    let (mut silent, mut good) = (Target::start(&[], "form.py"), Target::start(&[], "form.py"));
    silent.script.tell("mode silent");
    let pushing = Pushing::start(device(to(silent.port, "/"), to(good.port, "/"))).await;
    silent.until_asked().await;
    for (level, label) in [(8, "tea"), (9, "rice"), (10, "salt")] {
        pushing.level(level).await;
        pushing.label(label).await;
    }
    good.until_took("the other one's", has("/", "salt")).await;
    assert_eq!(posted(&mut good, "/", "label"), ["jam", "tea", "rice", "salt"]);
    pushing.until_said("level", "has not answered within 1 s").await;
    pushing.mapper.stop().await;
}

#[tokio::test]
async fn a_reading_that_is_refused_is_lost_and_said_and_a_redirect_is_not_followed() {
    let mut target = Target::start(&[], "form.py");
    target.script.tell("mode odd");
    let pushing = Pushing::start(device(None, to(target.port, "/"))).await;
    pushing.label("an odd one").await;
    pushing
        .until_said("label", "refused and is lost: it answers 422 Unprocessable Entity: that is odd")
        .await;
    pushing.label("an even one").await;
    target.until_took("the next one", has("/", "an even one")).await;
    pushing.until_well("label").await;
    target.script.tell("mode elsewhere");
    pushing.until_said("label", "not followed").await;
    target.script.tell("mode well");
    pushing.until_well("label").await;
    let took = target.took();
    assert!(took.iter().all(|form| form[0] == "/"), "{took:?}");
    pushing.mapper.stop().await;
}

#[tokio::test]
async fn a_device_is_described_anew_without_a_restart() {
    let mut target = Target::start(&[], "form.py");
    let mut pushing = Pushing::start(device(to(target.port, "/old"), None)).await;
    target.until_took("the first one", has("/old", "7")).await;
    pushing.update(device(to(target.port, "/new"), to(target.port, "/new"))).await;
    target.until_took("at its new place", has("/new", "7")).await;
    target.until_took("the other one", has("/new", "jam")).await;
    pushing.level(8).await;
    target.until_took("the next one", has("/new", "8")).await;
    assert_eq!(posted(&mut target, "/old", "level"), ["7"]);
    // What is pushed nowhere any more is asked for no more, and what waited has gone.
    pushing.update(device(None, to(target.port, "/new"))).await;
    pushing.level(9).await;
    pushing.label("tea").await;
    target.until_took("the other one goes on", has("/new", "tea")).await;
    assert_eq!(posted(&mut target, "/new", "level"), ["7", "8"]);
    pushing.mapper.stop().await;
}

#[tokio::test]
async fn what_is_asked_for_and_cannot_be_done_is_said_by_name_and_heals() {
    let mut target = Target::start(&[], "form.py");
    let mut push = to(target.port, "/").unwrap();
    push.mqtt = Some(PushMethodMqtt { address: "ws://127.0.0.1".to_owned(), ..Default::default() });
    let mut pushing = Pushing::start(device(Some(push), None)).await;
    pushing.until_said("level", "pushMethod.mqtt: `address` begins with a scheme that is not served").await;
    target.until_took("what can be done is done", has("/", "7")).await;
    pushing.update(device(to(target.port, "/"), None)).await;
    pushing.until_well("level").await;
    let otel = PushMethodOtel { endpoint_url: "http://127.0.0.1:1".to_owned() };
    let push = PushMethod { otel: Some(otel), ..Default::default() };
    pushing.update(device(None, Some(push))).await;
    pushing.until_said("label", "pushMethod.otel: ").await;
    pushing.mapper.stop().await;
}

#[tokio::test]
async fn what_is_only_pushed_is_read_and_not_told() {
    let mut target = Target::start(&[], "form.py");
    let mut only_pushed = device(to(target.port, "/"), None);
    only_pushed.spec.as_mut().unwrap().properties[0].report_to_cloud = false;
    let pushing = Pushing::start(only_pushed).await;
    for level in [7, 8, 9] {
        pushing.shelf.put(1, Value::Int(level));
        target.until_took("a reading", has("/", &level.to_string())).await;
    }
    assert_eq!(pushing.edgecore.heard().last("one", "level"), None);
    target.script.tell("off");
    pushing.until_said("level", "readings wait").await;
    assert_eq!(pushing.edgecore.heard().last("one", "level").unwrap().1, "", "no value is told");
    target.script.tell("on");
    pushing.until_well("level").await;
    pushing.mapper.stop().await;
}
