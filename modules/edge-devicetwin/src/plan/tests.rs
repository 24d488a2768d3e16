use super::*;
use contract::devicetwin::ObservedTwin;
use crd::Device;
use serde_json::{Value, json};

type Twins = BTreeMap<String, Twin>;

fn value(side: &Value) -> Option<String> {
    side["value"].as_str().map(str::to_owned)
}

/// A client's message of which all could be read.
fn readable(updates: BTreeMap<String, PropertyUpdate>) -> Wanted {
    Wanted { updates, ..Wanted::default() }
}

/// What `twin` of a client's message comes to.
fn request(twin: Value) -> BTreeMap<String, PropertyUpdate> {
    let update = |property: &Value| {
        let value_type = property["metadata"]["type"].as_str();
        if property.is_null() || value_type == Some("deleted") {
            return PropertyUpdate::Delete;
        }
        PropertyUpdate::Set(PropertyValues {
            expected: value(&property["expected"]),
            actual: value(&property["actual"]),
            optional: property["optional"].as_bool(),
            value_type: value_type.map(str::to_owned),
        })
    };
    twin.as_object().unwrap().iter().map(|(name, property)| (name.clone(), update(property))).collect()
}

fn apply(twins: &mut Twins, changes: &[TwinChange]) {
    for change in changes {
        twins.insert(change.property.clone(), change.after.clone());
    }
}

fn told(twins: &mut Twins, twin: Value) -> Result<Vec<TwinChange>, Refused> {
    let changes = update(twins, &request(twin), None, 5)?;
    apply(twins, &changes);
    Ok(changes)
}

fn device(properties: Value) -> Device {
    serde_json::from_value(json!({ "metadata": { "name": "pump" }, "spec": { "properties": properties } }))
        .unwrap()
}

fn wanted(twins: &mut Twins, desired: Option<&str>) -> Vec<TwinChange> {
    let device = device(match desired {
        Some(value) => json!([{ "name": "led", "desired": { "value": value } }]),
        None => json!([{ "name": "led" }]),
    });
    let changes = desire(twins, &device, None, &BTreeSet::new(), 9);
    apply(twins, &changes);
    changes
}

fn report(property: &str, observed: &str, reported: &str) -> ObservedTwin {
    ObservedTwin {
        property: property.to_owned(),
        observed: observed.to_owned(),
        reported: reported.to_owned(),
        ..ObservedTwin::default()
    }
}

/// The changes of a report of which nothing is refused.
fn observe(
    held: &Twins,
    reports: &[ObservedTwin],
    modelled: &Modelled<'_>,
    now: i64,
) -> Result<Vec<TwinChange>, String> {
    let observation = super::observe(held, reports, modelled, now)?;
    observation.refusal().map_or(Ok(observation.changes), Err)
}

fn expected(twins: &Twins) -> Option<&str> {
    twins["led"].expected.as_ref().map(|side| side.value.as_str())
}

#[test]
fn an_update_counts_each_side_that_it_names() {
    let mut twins = Twins::new();
    told(&mut twins, json!({ "t": { "actual": { "value": "21.5" }, "metadata": { "type": "float" } } }))
        .unwrap();
    told(&mut twins, json!({ "t": { "actual": { "value": "22" } } })).unwrap();
    let twin = &twins["t"];
    assert_eq!((twin.actual_version.edge, twin.expected_version.edge), (2, 0));
    // The node's clock, not the client's.
    assert_eq!(twin.actual, Some(Side { value: "22".into(), timestamp: 5 }));
    assert_eq!((twin.value_type.as_str(), twin.optional), ("float", true));
    let changes = told(&mut twins, json!({ "t": { "actual": { "value": "22" } } })).unwrap();
    assert!(!changes[0].is_new());
}

#[test]
fn the_first_type_stays_and_values_are_of_it() {
    let mut twins = Twins::new();
    told(&mut twins, json!({ "t": { "actual": { "value": "1" }, "metadata": { "type": "int" } } })).unwrap();
    assert!(
        told(&mut twins, json!({ "t": { "actual": { "value": "x" }, "metadata": { "type": "string" } } }))
            .is_err()
    );
    for (kind, good, bad) in [
        ("int", "-3", "3.5"),
        ("int", "18446744073709551615", "18446744073709551616"),
        ("integer", "7", ""),
        ("float", "1e3", "one"),
        ("float", "-0.5", "NaN"),
        ("float", "1e308", "-inf"),
        ("boolean", "true", "yes"),
    ] {
        let part =
            |value: &str| json!({ "p": { "actual": { "value": value }, "metadata": { "type": kind } } });
        assert!(update(&Twins::new(), &request(part(good)), None, 0).is_ok(), "{kind}");
        assert!(update(&Twins::new(), &request(part(bad)), None, 0).is_err(), "{kind}");
    }
    let strange = json!({ "p": { "metadata": { "type": "blob" } } });
    assert_eq!(update(&Twins::new(), &request(strange), None, 0).unwrap_err().code, Code::BadRequest);
}

#[test]
fn one_bad_name_or_value_refuses_all() {
    let long = "a".repeat(129);
    for twin in [
        json!({ "good": { "actual": { "value": "1" } }, "b d": { "actual": { "value": "1" } } }),
        json!({ "good": { "actual": { "value": "1" } }, "bad": { "actual": { "value": "a b" } } }),
        json!({ "good": { "actual": { "value": "{}" } } }),
        json!({ "": { "actual": { "value": "1" } } }),
        json!({ long: { "actual": { "value": "1" } } }),
        json!({ "good": { "actual": { "value": "a".repeat(513) } } }),
    ] {
        assert!(update(&Twins::new(), &request(twin.clone()), None, 0).is_err(), "{twin}");
    }
    let many: serde_json::Map<String, Value> = (0..1025).map(|n| (format!("p{n}"), json!({}))).collect();
    assert!(update(&Twins::new(), &request(Value::Object(many)), None, 0).is_err());
    let full: Twins = (0..1024).map(|n| (format!("p{n}"), Twin::new("string"))).collect();
    assert!(update(&full, &request(json!({ "one-more": {} })), None, 0).is_err());
    assert!(update(&full, &request(json!({ "p3": {} })), None, 0).is_ok());
}

#[test]
fn what_a_refused_update_tells_of_the_device_holds_no_more() {
    let mut twins = Twins::new();
    let float = |value: &str| json!({ "actual": { "value": value }, "metadata": { "type": "float" } });
    told(&mut twins, json!({ "heat": float("1.5"), "calm": float("1"), "gone": float("1") })).unwrap();
    told(&mut twins, json!({ "gone": null })).unwrap();
    let update = readable(request(
        json!({ "heat": float("NaN"), "calm": float("2"), "gone": float("NaN"), "new": float("NaN"),
        "named": { "actual": { "value": "a b" } }, "wish": { "expected": { "value": "a b" } } }),
    ));
    let named = Modelled { named: ["named".to_owned(), "wish".to_owned()].into(), ..Modelled::default() };
    let Observation { changes, refused } = refused_values(&twins, &update, &named, 7);
    let properties: Vec<_> = changes.iter().map(|change| change.property.as_str()).collect();
    assert_eq!(properties, ["heat", "named"], "what is good waits, and what nobody has stays nobody's");
    let heat = changes[0].after.clone();
    assert_eq!(heat.actual, Some(Side { value: String::new(), timestamp: 7 }));
    assert!(heat.actual_error.as_ref().unwrap().contains("`heat` is not a finite number"), "{heat:?}");
    assert!(refused.iter().all(|refused| refused.is_new));
    twins.insert("heat".to_owned(), heat);
    assert!(!refused_values(&twins, &update, &named, 8).refused[0].is_new);
}

#[test]
fn what_could_not_be_read_of_a_property_stands_in_the_place_of_its_value() {
    let mut twins = Twins::new();
    told(&mut twins, json!({ "heat": { "actual": { "value": "1.5" } } })).unwrap();
    let malformed = |reason: &str, is_of_actual| Malformed { reason: reason.to_owned(), is_of_actual };
    let message = Wanted {
        updates: request(json!({ "calm": { "actual": { "value": "1" } } })),
        malformed: [
            ("heat", malformed("the value of `heat` is an object", true)),
            ("calm-wish", malformed("`expected` is a list", false)),
            ("nobodys", malformed("the value is a list", true)),
            ("a b", malformed("the value is a list", true)),
        ]
        .map(|(name, malformed)| (name.to_owned(), malformed))
        .into(),
    };
    let named = ["calm", "calm-wish", "a b"].map(str::to_owned).into();
    let modelled = Modelled { named, ..Modelled::default() };
    assert_eq!(message.check().unwrap_err().code, Code::BadRequest);
    let found = refused_values(&twins, &message, &modelled, 7);
    assert_eq!(found.changes.len(), 1, "{found:?}");
    let heat = found.changes[0].after.clone();
    assert_eq!(heat.actual, Some(Side { value: String::new(), timestamp: 7 }));
    assert_eq!(
        heat.actual_error.as_deref(),
        Some("edgecore does not take the value: the value of `heat` is an object")
    );
    twins.insert("heat".to_owned(), heat);
    assert!(!refused_values(&twins, &message, &modelled, 8).refused[0].is_new);
    told(&mut twins, json!({ "heat": { "actual": { "value": "2" } } })).unwrap();
    assert_eq!(twins["heat"].actual_error, None, "the next good value mends it");
}

#[test]
fn null_deletes_what_is_optional_and_versions_go_on() {
    let mut twins = Twins::new();
    told(&mut twins, json!({ "a": { "actual": { "value": "1" } }, "b": { "optional": false } })).unwrap();
    // As KubeEdge's edgecore: it stays, and the rest of the message is taken.
    let changes = told(&mut twins, json!({ "b": null, "c": { "actual": { "value": "1" } } })).unwrap();
    assert!(changes.len() == 2 && !changes[0].is_new() && !twins["b"].deleted && !twins["c"].deleted);
    // Once obligatory, always obligatory.
    told(&mut twins, json!({ "b": { "optional": true } })).unwrap();
    told(&mut twins, json!({ "b": null })).unwrap();
    assert!(!twins["b"].deleted);
    told(&mut twins, json!({ "a": null })).unwrap();
    assert!(twins["a"].deleted && twins["a"].actual.is_none());
    // What is not there is gone.
    assert_eq!(told(&mut twins, json!({ "a": null, "never": null })).unwrap(), []);
    assert!(!twins.contains_key("never"));
    told(&mut twins, json!({ "a": { "actual": { "value": "true" }, "metadata": { "type": "boolean" } } }))
        .unwrap();
    assert_eq!((twins["a"].deleted, twins["a"].actual_version.edge), (false, 3));
    told(&mut twins, json!({ "a": { "metadata": { "type": "deleted" } } })).unwrap();
    assert!(twins["a"].deleted);
}

#[test]
fn a_wish_of_the_cloud_is_taken_once() {
    let mut twins = Twins::new();
    assert_eq!(wanted(&mut twins, Some("on")).len(), 1);
    assert_eq!((expected(&twins), twins["led"].expected_version.cloud), (Some("on"), 1));
    assert!(wanted(&mut twins, Some("on")).is_empty());
    // A client's word stays until the cloud wants something else.
    told(&mut twins, json!({ "led": { "expected": { "value": "off" } } })).unwrap();
    assert!(wanted(&mut twins, Some("on")).is_empty());
    assert_eq!(expected(&twins), Some("off"));
    wanted(&mut twins, Some("blue"));
    assert_eq!(expected(&twins), Some("blue"));
    wanted(&mut twins, None);
    assert_eq!(expected(&twins), None);
    assert!(wanted(&mut twins, None).is_empty());
    assert!(wanted(&mut twins, Some("")).is_empty(), "an empty value is none");
}

#[test]
fn a_client_may_delete_a_property_that_the_cloud_has_a_wish_for() {
    let mut twins = Twins::new();
    wanted(&mut twins, Some("on"));
    told(&mut twins, json!({ "led": null })).unwrap();
    assert!(wanted(&mut twins, Some("on")).is_empty());
    wanted(&mut twins, Some("off"));
    assert!(!twins["led"].deleted);
}

#[test]
fn a_mapper_reports_without_changing_the_wish_of_the_cloud() {
    let mut twins = Twins::new();
    wanted(&mut twins, Some("20"));
    // The mapper has not heard of 20 yet.
    let changes = observe(&twins, &[report("led", "10", "9")], &Modelled::default(), 3).unwrap();
    apply(&mut twins, &changes);
    assert_eq!(expected(&twins), Some("20"));
    let id = DeviceName::parse("d", "pump").unwrap();
    let contract::UpReport::Twin { reported, observed_desired, .. } = twins["led"].report(&id, "led") else {
        panic!()
    };
    assert_eq!((reported.unwrap().value, observed_desired.unwrap().value), ("9".into(), "10".into()));
}

#[test]
fn a_value_that_the_device_was_not_given_is_shown_with_its_own_reason() {
    let mut twins = Twins::new();
    wanted(&mut twins, Some("42"));
    let given = observe(&twins, &[report("led", "42", "42")], &Modelled::default(), 3).unwrap();
    apply(&mut twins, &given);
    wanted(&mut twins, Some("44"));
    let refusal = Some("exception 3".to_owned());
    let refused = [ObservedTwin { refusal, ..report("led", "42", "42") }];
    let changes = observe(&twins, &refused, &Modelled::default(), 4).unwrap();
    apply(&mut twins, &changes);
    let shown = |twins: &Twins| {
        let id = DeviceName::parse("d", "pump").unwrap();
        let contract::UpReport::Twin { observed_desired, .. } = twins["led"].report(&id, "led") else {
            panic!()
        };
        let side = observed_desired.unwrap();
        (side.value, side.metadata.get("error").cloned(), side.metadata.get("setBy").cloned())
    };
    assert_eq!(shown(&twins), ("44".into(), Some("exception 3".into()), None));
    wanted(&mut twins, Some("45"));
    assert_eq!(shown(&twins), ("42".into(), None, None), "nobody has refused that one yet");
    told(&mut twins, json!({ "led": { "expected": { "value": "46" } } })).unwrap();
    let changes = observe(&twins, &refused, &Modelled::default(), 5).unwrap();
    apply(&mut twins, &changes);
    assert_eq!(shown(&twins), ("46".into(), Some("exception 3".into()), Some("edge".into())));
}

#[test]
fn without_a_wish_of_the_cloud_the_mapper_says_what_should_be() {
    let mut twins = Twins::new();
    let types = Modelled { types: BTreeMap::from([("led", "int")]), ..Modelled::default() };
    let changes = observe(&twins, &[report("led", "", "1")], &types, 3).unwrap();
    apply(&mut twins, &changes);
    assert_eq!((expected(&twins), twins["led"].value_type.as_str()), (None, "int"));
    // A mapper's value is the device's own word, whatever the type.
    let changes = observe(&twins, &[report("led", "5", "no reading °C")], &types, 3).unwrap();
    apply(&mut twins, &changes);
    assert_eq!(expected(&twins), Some("5"));
    assert!(observe(&twins, &[report("b d", "", "1")], &types, 3).is_err());
    assert!(observe(&twins, &[report("led", "", &"x".repeat(5000))], &types, 3).is_err());
}

#[test]
fn the_delta_is_over_the_whole_device() {
    let mut twins = Twins::new();
    let part = |expected: &str, actual: &str| json!({ "expected": { "value": expected }, "actual": { "value": actual } });
    told(&mut twins, json!({ "same": part("1", "1"), "other": part("on", "off"), "free": part("", "x"), "gone": part("1", "2") }))
        .unwrap();
    told(&mut twins, json!({ "gone": null, "unread": { "expected": { "value": "1" } } })).unwrap();
    assert_eq!(delta(&twins, None), BTreeMap::from([("other", "on"), ("unread", "1")]));
}

#[test]
fn states_are_words() {
    for (word, online) in
        [("online", true), ("OK", true), ("Offline", false), ("unhealthy", false), ("unknown", false)]
    {
        assert_eq!(is_online(word), Some(online), "{word}");
    }
    assert_eq!(is_online("disconnected"), None);
    assert_eq!(is_online(""), None);
}

#[test]
fn what_cannot_be_read_is_no_absence() {
    let id = |name: &str| DeviceName::parse("d", name).unwrap();
    let known =
        [("a", "1"), ("b", "1"), ("c", "1"), ("e", "1")].map(|(name, uid)| (id(name), uid.to_owned())).into();
    let found = [("a", "1"), ("c", "2"), ("d", "1")].map(|(name, uid)| (id(name), uid.to_owned())).into();
    let present = ["a", "b", "c", "d"].map(id).into();
    let change = membership(&known, &found, &present);
    assert_eq!(change, Membership { added: vec![id("d")], removed: vec![id("e")], replaced: vec![id("c")] });
}

#[test]
fn an_application_may_want_what_the_model_allows_until_the_cloud_wants_something_else() {
    let model: DeviceModel =
        serde_json::from_value(json!({ "metadata": { "name": "m" }, "spec": { "properties": [
        { "name": "led", "type": "INT", "accessMode": "ReadWrite", "minimum": "1", "maximum": "9" },
        { "name": "heat", "type": "INT", "accessMode": "ReadOnly" } ] } }))
        .unwrap();
    let mut twins = Twins::new();
    wanted(&mut twins, Some("3"));
    let try_it = |twins: &Twins, property: &str, value: &str| {
        update(twins, &request(json!({ property: { "expected": { "value": value } } })), Some(&model), 5)
    };
    for (property, value, word) in
        [("led", "10", "above the maximum"), ("led", "on", "whole number"), ("heat", "5", "ReadOnly")]
    {
        assert!(try_it(&twins, property, value).unwrap_err().reason.contains(word), "{property} {value}");
    }
    let changes = try_it(&twins, "led", "7").unwrap();
    apply(&mut twins, &changes);
    assert_eq!((expected(&twins), twins["led"].edge_desired.as_deref()), (Some("7"), Some("7")));
    // What the mapper works towards changes nothing of it, and the cloud's old word is not said again.
    let observed = observe(&twins, &[report("led", "3", "3")], &Modelled::default(), 6).unwrap();
    apply(&mut twins, &observed);
    assert_eq!(wanted(&mut twins, Some("3")), []);
    assert_eq!(expected(&twins), Some("7"));
    wanted(&mut twins, Some("4"));
    assert_eq!((expected(&twins), &twins["led"].edge_desired), (Some("4"), &None));
    // A property of the application's own is not the model's business.
    assert!(try_it(&twins, "mood", "good").is_ok());
    let changes = try_it(&twins, "led", "").unwrap();
    assert_eq!(changes[0].after.edge_desired, None);
}

#[test]
fn a_value_that_an_application_set_is_shown_as_its_own_with_a_mapper_too_until_the_cloud_rules_again() {
    let mut twins = Twins::new();
    let id = DeviceName::parse("d", "pump").unwrap();
    // What the cloud is told: the value, and who has set it.
    let told_of = |twins: &Twins| {
        let contract::UpReport::Twin { observed_desired, .. } = twins["led"].report(&id, "led") else {
            panic!()
        };
        let desired = observed_desired.unwrap();
        (desired.value, desired.metadata.get("setBy").cloned())
    };
    let of = |value: &str, by: Option<&str>| (value.to_owned(), by.map(str::to_owned));
    let observes = |twins: &mut Twins, value: &str| {
        let changes = observe(twins, &[report("led", value, "1")], &Modelled::default(), 6).unwrap();
        apply(twins, &changes);
    };
    wanted(&mut twins, Some("3"));
    observes(&mut twins, "3");
    assert_eq!(told_of(&twins), of("3", None));
    told(&mut twins, json!({ "led": { "expected": { "value": "7" } } })).unwrap();
    assert_eq!(told_of(&twins), of("7", Some("edge")));
    observes(&mut twins, "3");
    assert_eq!(told_of(&twins), of("3", None), "the mapper works towards the cloud's still");
    observes(&mut twins, "7");
    assert_eq!(told_of(&twins), of("7", Some("edge")));
    // The cloud wants the very same: it is the cloud's now, and that is news.
    let changes = wanted(&mut twins, Some("7"));
    assert!(changes[0].is_new());
    assert_eq!(told_of(&twins), of("7", None));
    told(&mut twins, json!({ "led": { "expected": { "value": "8" } } })).unwrap();
    observes(&mut twins, "8");
    wanted(&mut twins, Some("4"));
    assert_eq!(told_of(&twins), of("8", None), "what the mapper has not let go of yet");
}

#[test]
fn a_model_settles_types_whenever_it_comes() {
    let model: DeviceModel = serde_json::from_value(json!({ "metadata": { "name": "m" }, "spec": { "properties": [
        { "name": "t", "type": "FLOAT" }, { "name": "led", "type": "INT" }, { "name": "gone", "type": "INT" } ] } }))
    .unwrap();
    let device = device(json!([{ "name": "led", "desired": { "value": "3" } }, { "name": "t" }]));
    let late = |twins: &mut Twins| {
        let changes = desire(twins, &device, Some(&model), &BTreeSet::new(), 9);
        apply(twins, &changes);
        changes
    };
    let typed = |twins: &Twins, property: &str| twins[property].value_type.clone();
    let mut twins = Twins::new();
    let values =
        json!({ "t": { "actual": { "value": "21.5" } }, "own": { "actual": { "value": "1" } }, "gone": {} });
    told(&mut twins, values).unwrap();
    told(&mut twins, json!({ "gone": null })).unwrap();
    wanted(&mut twins, Some("3"));
    let before = twins["t"].clone();
    let changes = late(&mut twins);
    assert!(changes.iter().all(TwinChange::is_new) && changes.len() == 2, "{changes:?}");
    assert_eq!(twins["t"], Twin { value_type: "float".to_owned(), ..before });
    assert_eq!((typed(&twins, "led"), typed(&twins, "own")), ("int".to_owned(), TEXT.to_owned()));
    assert_eq!(late(&mut twins), []);
    // What the model says is not a client's to say.
    let said = json!({ "t": { "actual": { "value": "x" }, "metadata": { "type": "string" } } });
    for held in [&twins, &Twins::new()] {
        let refused = update(held, &request(said.clone()), Some(&model), 5).unwrap_err();
        assert_eq!(refused.reason, "the value of `t` is not of its type, float");
    }
    // So his word for it is not looked at: KubeEdge's mappers write `Updated`, be the property new or not.
    let said = json!({ "t": { "actual": { "value": "20" }, "metadata": { "type": "Updated" } } });
    for held in [&twins, &Twins::new()] {
        let changes = update(held, &request(said.clone()), Some(&model), 5).unwrap();
        assert_eq!(changes[0].after.value_type, "float");
    }
    // Nor is what was there before it.
    twins.get_mut("t").unwrap().value_type = TEXT.to_owned();
    let changes = observe(
        &twins,
        &[report("t", "", "22")],
        &Modelled { types: types(Some(&model)), ..Modelled::default() },
        6,
    )
    .unwrap();
    assert_eq!(changes[0].after.value_type, "float");
}

#[test]
fn what_the_model_does_not_allow_is_ordered_from_nobody() {
    let model = |maximum: &str| -> DeviceModel {
        serde_json::from_value(json!({ "metadata": { "name": "m" }, "spec": { "properties": [
            { "name": "led", "type": "INT", "accessMode": "ReadWrite", "maximum": maximum }] } }))
        .unwrap()
    };
    let mut twins = Twins::new();
    let mut wanted = |value: &str, maximum: &str| {
        let device = device(json!([{ "name": "led", "desired": { "value": value } }]));
        let changes = desire(&twins, &device, Some(&model(maximum)), &BTreeSet::new(), 9);
        apply(&mut twins, &changes);
        twins.get("led").and_then(|twin| Some(twin.expected.as_ref()?.value.clone()))
    };
    assert_eq!(wanted("500", "100"), None);
    assert_eq!(wanted("20", "100").as_deref(), Some("20"));
    assert_eq!(wanted("500", "100").as_deref(), Some("20"), "the last one that was allowed stays");
    assert_eq!(wanted("20", "10").as_deref(), Some("20"), "a model of later takes nothing from the device");
    assert_eq!(wanted("500", "1000").as_deref(), Some("500"), "a model that allows it heals it");
    // What an application wanted by a model of before.
    assert_eq!(delta(&twins, Some(&model("1000"))), BTreeMap::from([("led", "500")]));
    assert_eq!(delta(&twins, Some(&model("100"))), BTreeMap::new());
}

#[test]
fn a_property_that_its_device_names_no_more_goes_with_its_twin() {
    let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let mut twins = Twins::new();
    told(&mut twins, json!({ "clients": { "actual": { "value": "1" } } })).unwrap();
    let changes = observe(&twins, &[report("heat", "", "21")], &Modelled::default(), 1).unwrap();
    apply(&mut twins, &changes);
    let whole = device(json!([{ "name": "heat" }, { "name": "led", "desired": { "value": "on" } }]));
    let changes = desire(&twins, &whole, None, &named(&[]), 9);
    apply(&mut twins, &changes);
    assert_eq!(named_by(&whole), named(&["heat", "led"]));
    assert_eq!(desire(&twins, &whole, None, &named_by(&whole), 9), [], "it is named");
    let bare = device(json!([]));
    let changes = desire(&twins, &bare, None, &named_by(&whole), 9);
    let gone: Vec<&str> = changes.iter().map(|change| change.property.as_str()).collect();
    assert_eq!(gone, ["heat", "led"], "what a client has made stays");
    for TwinChange { after, .. } in &changes {
        assert!(after.deleted && after.actual.is_none() && after.expected.is_none(), "{after:?}");
        assert_eq!(after.desired, None, "what is wanted when it comes back is new");
    }
    apply(&mut twins, &changes);
    assert_eq!(desire(&twins, &bare, None, &named_by(&whole), 9), [], "once");
    // The mapper was not told yet.
    let late = |device: &Device| {
        let modelled = Modelled { named: named_by(device), ..Modelled::default() };
        observe(&twins, &[report("heat", "", "22")], &modelled, 10).unwrap().len()
    };
    assert_eq!((late(&bare), late(&whole)), (0, 1));
}

#[test]
fn each_state_that_kubeedges_framework_sends_is_known() {
    let mean = |said: &'static str| state_of_mapper(said);
    for state in ["ok", "online", "offline", "unhealthy", "unknown", "OK"] {
        assert_eq!(mean(state), Some(state));
    }
    assert_eq!(mean("disconnected"), Some("offline"));
    assert_eq!((mean("healthy"), mean("weird"), mean("")), (None, None, None));
}
