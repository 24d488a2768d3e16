//! The page of nodes that are well, cut off, unknown, and full of names that somebody made to do harm.

use contract::edgepage::LinkFailure;

use super::*;
use crate::facts::OldestReport;

/// What others may write into names and words.
const HOSTILE: &str =
    "</td><script>alert(1)</script><img src=x onerror=alert(1)>\" onmouseover='x' &lt;\u{202e}\u{0}";
const NOW: i64 = 1_796_045_191;

fn event(unix: i64, about: &str, is_warning: bool) -> EventView {
    let (about, reason, message) = (about.to_owned(), "BackOff".to_owned(), "Back-off restarting".to_owned());
    EventView { unix, is_warning, about, reason, message, count: 3 }
}

fn pod(name: &str, phase: &str) -> PodView {
    PodView {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        phase: phase.to_owned(),
        ready: 1,
        containers: 1,
        restarts: 2,
        started: Some("2026-11-30T13:00:00Z".to_owned()),
        ..PodView::default()
    }
}

fn device(name: &str, state: &str) -> DeviceView {
    let property = PropertyView {
        name: "speed".to_owned(),
        reported: Some("1480".to_owned()),
        reported_unix_ms: Some((NOW - 5) * 1000),
        desired: Some("1500".to_owned()),
        error: None,
        is_stale: false,
    };
    DeviceView {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        state: state.to_owned(),
        protocol: "modbus".to_owned(),
        properties: vec![property],
        properties_in_all: 1,
        ..DeviceView::default()
    }
}

fn well() -> Facts {
    let link = LinkView {
        up: true,
        since_seconds: 7260,
        server: Some("192.0.2.10".to_owned()),
        carrier: Some("quic"),
        servers: vec!["192.0.2.10".to_owned()],
        certificate: Some(CertificateView {
            ends_unix: (NOW + 30 * 86_400).unsigned_abs(),
            renewed_unix: (NOW + 22 * 86_400).unsigned_abs(),
            rotates: true,
            is_renewing: false,
        }),
        events: vec![event(NOW - 7260, "Link", false)],
        ..LinkView::default()
    };
    let condition = |kind: &str, status: &str| ConditionView {
        kind: kind.to_owned(),
        status: status.to_owned(),
        reason: "R".to_owned(),
        message: "M".to_owned(),
        since: "2026-11-30T13:00:00Z".to_owned(),
    };
    let node_view = NodeView {
        pods: vec![pod("till", "Running")],
        pods_in_all: 1,
        resources: vec![
            ResourceView { signal: "memory.available", available: 3 << 30, capacity: 4 << 30 },
            ResourceView { signal: "nodefs.inodesFree", available: 5, capacity: 100 },
        ],
        conditions: vec![
            condition("Ready", "True"),
            condition("DiskPressure", "False"),
            condition("kubehive.io/Link", "True"),
        ],
        events: vec![event(NOW - 60, "Pod shop/till", true)],
    };
    Facts {
        node: "edge-1".to_owned(),
        version: "0.1.0",
        unix: NOW,
        running_seconds: 90_000,
        link: Some(link),
        outbox: OutboxView { rows_max: 20_000, bytes_max: 64 << 20, ..OutboxView::default() },
        node_view: Some(node_view),
        devices: Some(DevicesView { devices: vec![device("pump", "online")], devices_in_all: 1 }),
    }
}

#[test]
fn a_node_that_is_well_says_so() {
    let page = page(&well());
    for words in [
        "<title>edge-1: linked to the cloud for 2 h 1 min</title>",
        "class=\"state good\">linked to the cloud",
        "As of 2026-11-30 13:26:31 UTC",
        "192.0.2.10, over quic",
        "nothing: the cloud has confirmed all reports",
        "3.0 GiB of 4.0 GiB left, 75 %",
        "value=\"75\"",
        "5 of 100 left, 5 %",
        "Ready, and short of nothing.",
        "<td data-l=\"Pod\">shop/till</td>",
        "26 min ago",
        "shop/pump <span class=\"good\">online</span>",
        "<span>1480</span>",
        "in 30 d; renewed over the link from 2026-12-22 13:26:31 UTC on",
        "BackOff (3 times)",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    assert!(!page.contains("more."), "all is there");
    let (node, link) = (page.find("Pod shop/till").unwrap(), page.find("\">Link</td>").unwrap());
    assert!(node < link, "the newest first");
}

#[test]
fn a_node_that_is_cut_off_says_since_when_why_and_what_waits() {
    let mut facts = well();
    let link = facts.link.as_mut().unwrap();
    (link.up, link.server, link.since_seconds, link.failed_dials) = (false, None, 200_000, 9);
    link.last_failure = Some(LinkFailure { reason: "no route to host".to_owned(), seconds_ago: 4 });
    facts.outbox = OutboxView {
        rows: 20_001,
        bytes: 5 << 20,
        refused: 3,
        disk_refuses: Some("the disk is full".to_owned()),
        store_bytes: Some(7 << 20),
        oldest: Some(OldestReport {
            class: "event",
            key: "event/shop/till.1".to_owned(),
            unix: Some(NOW - 200_000),
        }),
        ..facts.outbox
    };
    let node = facts.node_view.as_mut().unwrap();
    node.conditions[1].status = "True".to_owned();
    node.pods = vec![PodView {
        phase: "Pending".to_owned(),
        reason: Some("ImagePullBackOff".to_owned()),
        message: Some("no such host".to_owned()),
        ready: 0,
        ..pod("till", "")
    }];
    let device = &mut facts.devices.as_mut().unwrap().devices[0];
    (device.state, device.last_online) = ("offline".to_owned(), Some("2026-11-30T13:25:31Z".to_owned()));
    device.properties[0].is_stale = true;
    let page = page(&facts);
    for words in [
        "class=\"state bad\">cut off from the cloud for 2 d 7 h",
        "<dd class=\"bad\">no route to host (4 s ago)</dd>",
        "20001 reports, 5.0 MiB",
        "event: event/shop/till.1, of 2 d 7 h ago",
        "<dt>Full at</dt><dd class=\"bad\">",
        "<dd class=\"bad\">3 commits since edgecore began</dd>",
        "<dd class=\"bad\">the disk is full</dd>",
        "DiskPressure: True (R)",
        "<span class=\"bad\">ImagePullBackOff</span>",
        "no such host",
        "<span class=\"bad\">offline</span>",
        "last online 1 min ago",
        "nothing heard since",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
}

#[test]
fn who_does_not_answer_is_named_and_the_rest_is_shown() {
    let facts = Facts { link: None, devices: None, node_view: None, ..well() };
    let page = page(&facts);
    for words in
        ["EdgeHub does not answer", "Edged does not answer", "DeviceTwin does not answer", "<h2>Outbox</h2>"]
    {
        assert!(page.contains(words), "{words}: {page}");
    }
    assert!(page.contains("nobody says whether there is a link") && page.contains("Nothing has happened"));
}

#[test]
fn a_certificate_near_its_end_is_red() {
    let mut facts = well();
    let mut said = |ends: i64, rotates: bool| {
        let certificate = facts.link.as_mut().unwrap().certificate.as_mut().unwrap();
        (certificate.ends_unix, certificate.rotates) = (ends.unsigned_abs(), rotates);
        page(&facts)
    };
    assert!(said(NOW + 86_400, true).contains("<dt>Certificate</dt><dd class=\"bad\">ends at"));
    assert!(said(NOW - 1, true).contains("<dd class=\"bad\">has ended at 2026-11-30 13:26:30 UTC"));
    assert!(said(NOW + 86_400 * 30, false).contains("edgecore does not renew it"));
}

/// Every text that others have a hand in.
fn hostile() -> Facts {
    let text = || HOSTILE.to_owned();
    let event = || EventView { about: text(), reason: text(), message: text(), ..event(NOW, "", true) };
    let condition =
        ConditionView { kind: text(), status: text(), reason: text(), message: text(), since: text() };
    let mut facts = well();
    facts.node = text();
    let link = facts.link.as_mut().unwrap();
    (link.server, link.servers) = (Some(text()), vec![text()]);
    link.last_failure = Some(LinkFailure { reason: text(), seconds_ago: 1 });
    link.events = vec![event()];
    facts.outbox.disk_refuses = Some(text());
    facts.outbox.oldest = Some(OldestReport { class: "telemetry", key: text(), unix: None });
    let node = facts.node_view.as_mut().unwrap();
    node.pods = vec![PodView {
        namespace: text(),
        name: text(),
        phase: text(),
        reason: Some(text()),
        message: Some(text()),
        started: Some(text()),
        ..PodView::default()
    }];
    (node.conditions, node.events) = (vec![condition.clone()], vec![event()]);
    let property = PropertyView {
        name: text(),
        reported: Some(text()),
        desired: Some(text()),
        error: Some(text()),
        ..PropertyView::default()
    };
    facts.devices = Some(DevicesView {
        devices: vec![DeviceView {
            namespace: text(),
            name: text(),
            state: text(),
            reason: Some(text()),
            last_online: Some(text()),
            protocol: text(),
            conditions: vec![condition],
            properties: vec![property],
            properties_in_all: 1,
        }],
        devices_in_all: 1,
    });
    facts
}

#[test]
fn no_name_or_word_of_others_is_markup() {
    let mut facts = hostile();
    for up in [true, false] {
        facts.link.as_mut().unwrap().up = up;
        let page = page(&facts);
        let body = page.split("</style>").last().unwrap();
        for word in ["<script", "<img", "'x'", "\u{202e}", "\u{0}", "&lt;\u{202e}"] {
            assert!(!page.contains(word), "{word}: {page}");
        }
        assert!(body.matches("&lt;script&gt;").count() >= 18, "they are there, as text: {page}");
        // Every tag is one that this program writes, with attributes of its own.
        for tag in page.split('<').skip(1) {
            let name = tag.split(['>', ' ', '\n']).next().unwrap();
            let known = [
                "!doctype", "html", "head", "meta", "title", "style", "body", "header", "main", "h1", "h2",
                "h3", "p", "a", "dl", "dt", "dd", "table", "thead", "tbody", "tr", "th", "td", "span",
                "meter", "code",
            ];
            assert!(known.contains(&name.trim_start_matches('/')), "{tag}");
        }
        assert!(!page.contains("onerror=alert(1)>\" "), "no attribute ends early");
    }
    let json: serde_json::Value = serde_json::to_value(&facts).unwrap();
    assert_eq!(json["deviceTwins"]["devices"][0]["name"], HOSTILE, "JSON has it as it is");
}

#[test]
fn a_page_stays_small_and_counts_what_is_left_out() {
    let mut facts = hostile();
    let node = facts.node_view.as_mut().unwrap();
    let long = PodView { message: Some("\"".repeat(4096)), ..node.pods[0].clone() };
    (node.pods, node.pods_in_all) = (vec![long; 5000], 6000);
    (node.events, node.conditions) = (vec![node.events[0].clone(); 5000], Vec::new());
    let devices = facts.devices.as_mut().unwrap();
    (devices.devices, devices.devices_in_all) = (vec![devices.devices[0].clone(); 5000], 5000);
    let page = page(&facts);
    assert!(page.len() < 400 << 10, "{}", page.len());
    assert!(
        page.contains("And 5000 more.") && page.ends_with("</html>\n"),
        "devices, which had no room at all"
    );
    assert!(page.contains("And 5001 more."), "events");
}
