use super::*;
use proptest::prelude::*;

fn acl(text: &str) -> Acl {
    Acl::parse(text).unwrap()
}

fn writes(rights: &Rights, topic: &str) -> bool {
    rights.may_write(&topic::router_form(topic))
}

fn reads(rights: &Rights, topic: &str) -> bool {
    rights.may_read(&topic::router_form(topic))
}

fn subscribes(rights: &Rights, filter: &str) -> bool {
    rights.may_subscribe(&topic::router_form(filter))
}

/// What devices and applications of KubeEdge publish (section 3.2 of the contracts).
const CLIENTS: [&str; 13] = [
    "$hw/events/device/default/sensor-1/state/update",
    "$hw/events/device/default/sensor-1/twin/update",
    "$hw/events/device/default/sensor-1/twin/get",
    "$hw/events/device/default/sensor-1/method/call",
    "$hw/events/node/edge-1/membership/get",
    "$hw/events/upload",
    "$hw/events/upload/a/b",
    "$ke/events/device/default/sensor-1/data/update",
    "SYS/dis/upload_records",
    "app/user/x",
    "a/rule/of/the/router",
    "hw/events/node/edge-1/membership/updated",
    "é",
];

/// What `edgecore` or the broker says, and what nobody does.
const NOT_CLIENTS: [&str; 23] = [
    "$hw/events/device/default/sensor-1/state/update/result",
    "$hw/events/device/default/sensor-1/twin/update/result",
    "$hw/events/device/default/sensor-1/twin/update/delta",
    "$hw/events/device/default/sensor-1/twin/update/document",
    "$hw/events/device/default/sensor-1/twin/get/result",
    "$hw/events/device/default/sensor-1/method/call/result",
    "$hw/events/device/default/sensor-1/twin/cloud_updated",
    "$hw/events/device/default/sensor-1/twin/edge_updated",
    "$hw/events/device/default/sensor-1/updated",
    "$hw/events/device/default/sensor-1/twin/update/",
    "$hw/events/device/default/sensor-1/twin/Update",
    "$hw/events/device/sensor-1/twin/update",
    "$hw/events/device//twin/update",
    "$hw/events/node/edge-1/membership/get/result",
    "$hw/events/node/edge-1/membership/updated",
    "$hw/events/node/edge-1/membership/detail",
    "$hw/events/node/edge-1/authInfo/get/result",
    "$hw/events/connected/x",
    "$hw/events/edgeGroup/x",
    "$hw",
    "$hw/",
    "$hw/events/uploads",
    "$hw//events/upload",
];

#[test]
fn without_a_file_clients_publish_what_kubeedges_publish_and_read_everything() {
    let rights = Acl::KubeEdge.rights("anyone");
    for topic in CLIENTS {
        assert!(writes(&rights, topic), "{topic}");
    }
    for topic in
        NOT_CLIENTS.into_iter().chain(["$x", "$", "$HW/events/upload/x", "$SYS/x", "$share/g/x", "$ke/x"])
    {
        assert!(!writes(&rights, topic), "{topic}");
        assert!(reads(&rights, topic) && subscribes(&rights, topic), "{topic}");
    }
    assert_eq!(Acl::KubeEdge.rights("user=plc;x"), rights);
}

#[test]
fn no_line_makes_a_client_edgecore() {
    let all = acl(
        "topic readwrite $hw/#\ntopic #\npattern readwrite $hw/#\npattern $SYS/#\ntopic $foo/#\nuser plc\ntopic $hw/#\ntopic #",
    );
    for name in ["anyone", "user=plc;x"] {
        let rights = all.rights(name);
        for topic in CLIENTS.into_iter().filter(|topic| !topic.starts_with("$ke")) {
            assert!(writes(&rights, topic), "{topic}");
        }
        for topic in NOT_CLIENTS.into_iter().chain(["$SYS/x"]) {
            assert!(!writes(&rights, topic), "{topic}");
        }
        assert!(reads(&rights, NOT_CLIENTS[0]));
    }
    assert!(writes(&all.rights("anyone"), "$foo/x") && !writes(&all.rights("user=plc;x"), "$foo/x"));
}

#[test]
fn a_user_is_bound_to_devices_by_lines_and_patterns() {
    let file = "# anonymous clients\r\ntopic read public/#\r\n\r\nuser plc\r\n\
                topic readwrite $hw/events/device/default/press/#\r\ntopic  write  upload space\r\n\
                topic deny $hw/events/device/default/press/state/update\r\n\
                user meter\ntopic a\nuser plc\ntopic own\n\
                pattern read cmd/%u/%c\npattern write $hw/events/device/default/%c/twin/update\npattern deny cmd/%u/spy";
    let acl = acl(file);
    let plc = acl.rights("user=plc;line-7");
    let press = "$hw/events/device/default/press";
    assert!(
        writes(&plc, &format!("{press}/twin/update")) && writes(&plc, "upload space") && writes(&plc, "own")
    );
    assert!(
        !writes(&plc, &format!("{press}/state/update"))
            && !writes(&plc, "$hw/events/device/default/saw/twin/update")
    );
    assert!(
        writes(&plc, "$hw/events/device/default/line-7/twin/update")
            && !writes(&plc, "a")
            && !writes(&plc, "public/x")
    );
    assert!(
        reads(&plc, "cmd/plc/line-7") && !reads(&plc, "cmd/meter/line-7") && !writes(&plc, "cmd/plc/line-7")
    );
    assert!(reads(&plc, &format!("{press}/twin/update/delta")) && !reads(&plc, "upload space"));
    let meter = acl.rights("user=meter;x");
    assert!(writes(&meter, "a") && reads(&meter, "a") && !writes(&meter, "own"));
    // Who has no line has what the patterns say.
    let other = acl.rights("user=other;spy");
    assert!(writes(&other, "$hw/events/device/default/spy/twin/update") && !reads(&other, "cmd/other/spy"));
    let anonymous = acl.rights("line-7");
    assert!(
        reads(&anonymous, "public/x") && !writes(&anonymous, "public/x") && !reads(&anonymous, "cmd//line-7")
    );
    assert!(writes(&anonymous, "$hw/events/device/default/line-7/twin/update"));
}

#[test]
fn an_id_with_wildcards_or_levels_gets_nothing_by_a_pattern_and_is_denied_what_it_could_mean() {
    let acl = acl("pattern d/%c/x\npattern read all/#\npattern deny all/%c/y");
    for id in ["+", "#", "a/x", "a/#"] {
        let rights = acl.rights(&format!("user=plc;{id}"));
        assert!(
            !writes(&rights, "d/a/x") && !writes(&rights, &format!("d/{id}/x")) && !reads(&rights, "all/a/y"),
            "{id}"
        );
    }
    assert!(reads(&acl.rights("user=plc;b"), "all/a/y") && !reads(&acl.rights("user=plc;a"), "all/a/y"));
    // What a name has of %c stays as it is.
    let rights = Acl::parse("pattern x-%u-%c%/y").unwrap().rights("user=%c;%u");
    assert!(writes(&rights, "x-%c-%u%/y"));
}

#[test]
fn a_subscription_that_can_bring_nothing_is_told_from_one_that_may() {
    let rights = acl("user plc\ntopic read a/+/c\ntopic write w/#\ntopic deny a/secret/#\ntopic read $hw/events/device/d/d/#")
        .rights("user=plc;x");
    for filter in
        ["a/+/c", "a/b/c", "a/#", "#", "+/+/+", "$hw/#", "$hw/events/device/+/+/twin/update/delta", "a/+/+"]
    {
        assert!(subscribes(&rights, filter), "{filter}");
    }
    for filter in
        ["w/#", "b/#", "a/secret/c", "a/secret/+", "a/b", "+", "$SYS/#", "$hw/events/device/e/#", "hw/#"]
    {
        assert!(!subscribes(&rights, filter), "{filter}");
    }
    assert!(!subscribes(&Acl::closed().rights("x"), "#") && !writes(&Acl::closed().rights("x"), "a"));
}

#[test]
fn a_mistake_is_named_by_its_line() {
    for (file, line, what) in [
        ("topic a\nuesr plc", 2, "`uesr` is none of user, topic and pattern"),
        ("\n\nuser", 3, "user name is empty"),
        ("user a/b", 1, "user name has one of"),
        ("topic", 1, "topic filter is empty"),
        ("topic read a/#/b", 1, "wildcard"),
        ("pattern write %c+", 1, "wildcard"),
        ("topic write $hw/events/device/+/+/twin/update/delta", 1, "only edgecore"),
        ("topic write $hw/events/node/edge-1/membership/updated", 1, "only edgecore"),
        ("pattern write $SYS/%c", 1, "only edgecore or the broker"),
        ("topic $share/g/x", 1, "nothing is published in"),
        ("topic dney a/b", 1, "`dney` is none of read, write, readwrite and deny"),
        ("pattern reed %c/a", 1, "`reed` is none of"),
        ("topic upload space", 1, "`upload` is none of"),
    ] {
        let defect = Acl::parse(file).unwrap_err();
        assert!(defect.line == line && defect.what.contains(what), "{file}: {defect:?}");
    }
    assert!(
        Acl::parse(
            "topic write $hw/events/device/+/+/twin/#\npattern write $hw/events/device/default/%c/twin/update"
        )
        .is_ok()
    );
    let many = "topic a\n".repeat(RULES + 1);
    assert_eq!(Acl::parse(&many).unwrap_err().line, RULES + 1);
}

proptest! {
    #[test]
    fn no_text_is_too_strange_and_what_it_says_never_opens_edgecores_topics(
        lines in proptest::collection::vec(
            (proptest::sample::select(vec!["topic", "pattern", "user", "#", "x"]), "(read |write |readwrite |deny )?",
             "(\\$hw/|\\$SYS/|)([a-z%cu+]{0,3}/){0,3}#?"), 0..8),
        id in "[a-z/+#%]{0,6}",
    ) {
        let text: String = lines.iter().map(|(word, right, filter)| format!("{word} {right}{filter}\n")).collect();
        if let Ok(acl) = Acl::parse(&text) {
            for name in [id.clone(), format!("user=plc;{id}")] {
                let rights = acl.rights(&name);
                for topic in NOT_CLIENTS {
                    prop_assert!(!writes(&rights, topic));
                }
                // What may be read by a filter can be subscribed to by it.
                for topic in ["a/b", "$hw/a", "a", "b/c/d"] {
                    prop_assert!(!reads(&rights, topic) || subscribes(&rights, topic));
                }
            }
        }
    }
}
