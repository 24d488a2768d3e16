use serde_json::json;

use super::*;

/// The gantry of the guide.
const GANTRY: &str = r#"
- name: cool
  when: {property: temperature, above: 80, clear: 75, for: 10s}
  then:
  - set: {device: fan, property: on, value: true}
  - call: {url: "http://192.168.7.9/horn", body: '{"on":true}'}
  otherwise:
  - set: {device: fan, property: on, value: false}
- name: lost
  when: {offline: true, for: 30s}
  then:
  - publish: {topic: hall/alarm}
"#;

fn device(text: &str) -> Device {
    serde_json::from_value(
        json!({ "metadata": { "name": "gantry", "annotations": { EDGE_RULES_ANNOTATION: text } },
        "spec": { "properties": [{ "name": "temperature" }, { "name": "brake" }, { "name": "mode" }] } }),
    )
    .unwrap()
}

fn model() -> DeviceModel {
    serde_json::from_value(json!({ "metadata": { "name": "m" }, "spec": { "properties": [
        { "name": "temperature", "type": "FLOAT", "accessMode": "ReadOnly" },
        { "name": "brake", "type": "BOOLEAN", "accessMode": "ReadWrite" },
        { "name": "mode", "type": "STRING", "accessMode": "ReadWrite" } ] } }))
    .unwrap()
}

#[test]
fn the_rules_of_the_guide_are_read() {
    let rules = edge_rules(&device(GANTRY), Some(&model())).unwrap();
    let cool = &rules[0];
    let above = EdgeCondition::Above { property: "temperature".into(), limit: 80.0, clear: 75.0 };
    assert_eq!((&cool.condition, cool.hold_for), (&above, Duration::from_secs(10)));
    let set = |value: &str| EdgeAction::Set {
        device: Some("fan".into()),
        property: "on".into(),
        value: value.into(),
    };
    let url = LocalUrl::parse("http://192.168.7.9/horn").unwrap();
    let call = EdgeAction::Call { method: "POST".into(), url, body: Some(r#"{"on":true}"#.into()) };
    assert_eq!((&cool.then, &cool.otherwise), (&vec![set("true"), call], &vec![set("false")]));
    assert_eq!((&rules[1].condition, rules[1].otherwise.len()), (&EdgeCondition::Offline, 0));
    let in_json =
        r#"[{"name":"a","when":{"property":"mode","equals":"off"},"then":[{"publish":{"topic":"t"}}]}]"#;
    assert_eq!(edge_rules(&device(in_json), None).unwrap().len(), 1);
    let bare: Device = serde_json::from_value(json!({ "metadata": { "name": "d" }, "spec": {} })).unwrap();
    assert_eq!(edge_rules(&bare, None), Ok(Vec::new()));
}

fn refusal(text: &str) -> String {
    let faults = edge_rules(&device(text), Some(&model())).unwrap_err();
    assert_eq!(faults.len(), 1, "{faults:?}");
    faults[0].clone()
}

/// A rule with this in place of what stands in it.
fn rule(when: &str, then: &str) -> String {
    format!("[{{name: a, when: {{{when}}}, then: [{then}]}}]")
}

#[test]
fn each_refusal_names_the_rule_and_what_is_wrong() {
    let publish = "{publish: {topic: t}}";
    let hot = "property: temperature, above: 80";
    for (text, words) in [
        ("name: a".to_owned(), "no list"),
        ("[".to_owned(), ""),
        (rule("property: temperature, abov: 80", publish), "`a`: unknown field `abov`"),
        (rule("property: temperature, above: '80'", publish), "invalid type: string \"80\", expected f64"),
        (rule("property: temperature, above: .nan", publish), "non-finite"),
        (rule("property: temperature", publish), "one of `above`"),
        (rule("property: temperature, above: 1, below: 0", publish), "one of `above`"),
        (rule("above: 80", publish), "names no `property`"),
        (rule("property: temperature, above: 80, clear: 85", publish), "would end what has just begun"),
        (rule("property: temperature, below: 8, clear: 5", publish), "would end what has just begun"),
        (rule("property: temperature, stale: true, clear: 5", publish), "`clear` goes with"),
        (rule("offline: false", publish), "`true` or not there"),
        (rule("offline: true, property: brake", publish), "takes no `property`"),
        (rule("property: temperatur, stale: true", publish), "`a`: the device has no property `temperatur`"),
        (rule("property: mode, above: 8", publish), "no number by its model"),
        (rule("offline: true, for: 10", publish), "invalid type: integer"),
        (rule("offline: true, for: 10d", publish), "`for: 10d` is no whole number"),
        (rule("offline: true, for: 25h", publish), "up to 24h"),
        (rule("offline: true, for: -1s", publish), "no whole number"),
        (rule(hot, ""), "`then` is empty"),
        (rule(hot, "{email: {}}"), "unknown variant `email`"),
        (rule(hot, "{publish: {topic: a/#}}"), "without + and #"),
        (rule(hot, "{publish: {topic: $hw/events/x}}"), "the node's own"),
        (rule(hot, "{publish: {topic: SYS/dis/upload_records}}"), "the node's own"),
        (rule(hot, "{publish: {topic: t, qos: 2}}"), "unknown field `qos`"),
        (rule(hot, &format!("{{publish: {{topic: t, payload: {}}}}}", "x".repeat(1025))), "1025 bytes"),
        (rule(hot, "{set: {property: temperature, value: 1}}"), "would trigger itself"),
        (rule(hot, "{set: {device: gantry, property: temperature, value: 1}}"), "would trigger itself"),
        (rule(hot, "{set: {property: brakes, value: true}}"), "no property `brakes` to set"),
        (rule(hot, "{set: {property: brake, value: maybe}}"), "none of true and false"),
        (rule(hot, "{set: {device: other/fan, property: on, value: true}}"), "one of this namespace"),
        (rule(hot, "{call: {url: 'http://169.254.169.254/'}}"), "no rule calls"),
        (rule(hot, "{call: {url: 'http://10.0.0.1/', method: DELETE}}"), "none of GET, POST and PUT"),
        (rule(hot, "{call: {url: 'http://10.0.0.1/', method: GET, body: x}}"), "a GET has no `body`"),
        (rule(hot, &[publish; 9].join(", ")), "at most 8"),
        (rule(hot, publish).replace("name: a", "name: A"), "a name is"),
        (
            format!("{0}, {0}]", "[{name: a, when: {offline: true}, then: [{publish: {topic: t}}]}")
                .replace(", [", ", "),
            "twice",
        ),
        (format!("[{}]", vec!["{}"; 17].join(",")), "there are 17"),
        (format!("# {}\n[]", "x".repeat(EDGE_RULES_BYTES)), "at most 16384"),
        ("- &a {name: a}\n- *a".to_owned(), ""),
    ] {
        let fault = refusal(&text);
        assert!(fault.contains(words) && !fault.contains('\n'), "{text}: {fault}");
    }
}

#[test]
fn all_faults_are_told_and_one_of_them_takes_all_rules_away() {
    let text = GANTRY.replace("clear: 75", "clear: 90").replace("topic: hall/alarm", "topic: ''");
    assert_eq!(edge_rules(&device(&text), None).unwrap_err().len(), 2);
    // Without its model nobody knows of which type a property is.
    assert!(edge_rules(&device(&rule("property: mode, above: 8", "{publish: {topic: t}}")), None).is_ok());
    assert_eq!(edge_rules(&device(""), None).unwrap_err().len(), 1, "an empty annotation is no list");
    assert_eq!(edge_rules(&device("[]"), None), Ok(Vec::new()));
}
