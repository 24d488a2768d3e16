//! The page: facts as a document. Pure.

use contract::edgepage::{
    CertificateView, ConditionView, DeviceView, DevicesView, EVENTS_MAX, EventView, LinkView, NodeView,
    PodView, PropertyView, ResourceView,
};

use crate::facts::{Facts, OutboxView};
use crate::html::Html;
use crate::pages;
use crate::quantities::{ago, bytes, span, time, time_ago};

/// A week before a certificate's end it is said in red: by then it should have been renewed.
const WEEK: u64 = 7 * 86_400;
/// Less than a tenth left of something is said in red.
const LOW_PERCENT: u64 = 10;

/// The document.
pub(crate) fn page(facts: &Facts) -> String {
    let (is_good, state) = state_of(facts.link.as_ref());
    let mut html = pages::begin(&format!("{}: {state}", facts.node));
    html.around("<header><h1>", &facts.node, "</h1>");
    html.raw(if is_good { "<p class=\"state good\">" } else { "<p class=\"state bad\">" });
    html.text(&state).raw("</p><p class=\"soft\">");
    html.around("As of ", &time(facts.unix), " by this node's clock; this page renews itself every 10 s. ");
    html.around("edgecore ", facts.version, " has run for ");
    html.around(
        "",
        &span(facts.running_seconds),
        ". <a href=\"page.json\">The same as JSON</a></p></header><main>",
    );
    link(&mut html, facts);
    outbox(&mut html, &facts.outbox, facts.unix);
    match &facts.node_view {
        Some(node) => {
            room(&mut html, &node.resources);
            conditions(&mut html, &node.conditions, facts.unix);
            pods(&mut html, node, facts.unix);
        }
        None => unknown(&mut html, "<h2>Pods, disk and memory</h2>", "Edged"),
    }
    match &facts.devices {
        Some(found) => devices(&mut html, found, facts.unix),
        None => unknown(&mut html, "<h2>Devices</h2>", "DeviceTwin"),
    }
    events(&mut html, facts);
    html.raw("</main>");
    pages::end(html)
}

/// How the link is, in a few words, and whether that is good.
fn state_of(link: Option<&LinkView>) -> (bool, String) {
    match link {
        Some(link) if link.up => (true, format!("linked to the cloud for {}", span(link.since_seconds))),
        Some(link) => (false, format!("cut off from the cloud for {}", span(link.since_seconds))),
        None => (false, "nobody says whether there is a link".to_owned()),
    }
}

fn unknown(html: &mut Html, heading: &'static str, who: &'static str) {
    html.raw(heading).raw("<p class=\"bad\">").raw(who).raw(
        " does not answer within 2 s: it is busy, or starts anew. The log says more (<code>journalctl -u edgecore</code>).</p>",
    );
}

/// A line of a list of what and how.
fn line(html: &mut Html, name: &'static str, text: &str) {
    html.raw("<dt>").raw(name).around("</dt><dd>", text, "</dd>");
}

/// The same, of something that is not as it should be.
fn bad_line(html: &mut Html, name: &'static str, text: &str) {
    html.raw("<dt>").raw(name).around("</dt><dd class=\"bad\">", text, "</dd>");
}

fn link(html: &mut Html, facts: &Facts) {
    let Some(link) = &facts.link else { return unknown(html, "<h2>Link</h2>", "EdgeHub") };
    html.raw("<h2>Link</h2><dl>");
    if let Some(server) = &link.server {
        let carrier = link.carrier.unwrap_or_default();
        line(html, "Server", &format!("{server}, over {carrier}"));
    }
    if !link.up {
        line(html, "Dials that failed", &link.failed_dials.to_string());
        line(html, "Servers that are dialled", &link.servers.join(", "));
    }
    match &link.last_failure {
        Some(failure) => {
            let text = format!("{} ({} ago)", failure.reason, span(failure.seconds_ago));
            if link.up { line(html, "Failed last", &text) } else { bad_line(html, "Failed last", &text) }
        }
        None => line(html, "Failed last", "nothing since edgecore began"),
    }
    if let Some(certificate) = &link.certificate {
        certificate_line(html, certificate, facts.unix);
    }
    html.raw("</dl>");
}

fn certificate_line(html: &mut Html, certificate: &CertificateView, now: i64) {
    let now = u64::try_from(now).unwrap_or(0);
    let at = |unix: u64| time(i64::try_from(unix).unwrap_or(i64::MAX));
    let left = certificate.ends_unix.saturating_sub(now);
    let renewal = match (certificate.rotates, certificate.is_renewing) {
        (false, _) => "edgecore does not renew it (rotateCertificates)".to_owned(),
        (true, true) => "it is being renewed".to_owned(),
        (true, false) => format!("renewed over the link from {} on", at(certificate.renewed_unix)),
    };
    let ends = at(certificate.ends_unix);
    match left {
        0 => bad_line(html, "Certificate", &format!("has ended at {ends}; {renewal}")),
        left if left < WEEK => {
            bad_line(html, "Certificate", &format!("ends at {ends}, in {}; {renewal}", span(left)));
        }
        left => line(html, "Certificate", &format!("ends at {ends}, in {}; {renewal}", span(left))),
    }
}

fn outbox(html: &mut Html, outbox: &OutboxView, now: i64) {
    html.raw("<h2>Outbox</h2><dl>");
    let OutboxView { rows, rows_max, bytes_max, .. } = outbox;
    let waiting = match rows {
        0 => "nothing: the cloud has confirmed all reports".to_owned(),
        _ => format!("{rows} reports, {}", bytes(outbox.bytes)),
    };
    line(html, "Waits for the cloud", &waiting);
    if let Some(oldest) = &outbox.oldest {
        let since = oldest.unix.map(|unix| format!(", of {}", ago(unix, now))).unwrap_or_default();
        line(html, "Oldest", &format!("{}: {}{since}", oldest.class, oldest.key));
    }
    let is_full = rows >= rows_max || outbox.bytes >= *bytes_max;
    let room = format!("{rows_max} reports or {}; beyond that status alone is kept", bytes(*bytes_max));
    if is_full {
        bad_line(html, "Full at", &room)
    } else {
        line(html, "Full at", &room)
    }
    match outbox.refused {
        0 => line(html, "Refused", "nothing since edgecore began"),
        refused => bad_line(html, "Refused", &format!("{refused} commits since edgecore began")),
    }
    if let Some(reason) = &outbox.disk_refuses {
        bad_line(html, "The disk refuses", reason);
    }
    if let Some(size) = outbox.store_bytes {
        line(html, "The store's file", &bytes(size));
    }
    html.raw("</dl>");
}

/// A kubelet's signal in a person's words.
fn resource_name(signal: &str) -> &'static str {
    match signal {
        "memory.available" => "Memory",
        "allocatableMemory.available" => "Memory for pods",
        "nodefs.available" => "Disk of the node",
        "nodefs.inodesFree" => "Its inodes",
        "imagefs.available" => "Disk of images",
        "imagefs.inodesFree" => "Its inodes",
        "pid.available" => "Processes",
        _ => "Something else",
    }
}

fn room(html: &mut Html, resources: &[ResourceView]) {
    html.raw("<h2>Disk and memory</h2>");
    if resources.is_empty() {
        html.raw("<p>Nothing was measured yet.</p>");
        return;
    }
    html.raw("<dl>");
    for ResourceView { signal, available, capacity } in resources {
        let percent = u128::from(*available) * 100 / u128::from(*capacity).max(1);
        let percent = u64::try_from(percent).unwrap_or(100).min(100);
        let is_size = !(signal.ends_with("inodesFree") || signal.starts_with("pid"));
        let amount = |number: u64| if is_size { bytes(number) } else { number.to_string() };
        html.raw("<dt>").raw(resource_name(signal)).raw("</dt><dd>");
        html.around(
            "<meter min=\"0\" max=\"100\" low=\"10\" high=\"20\" optimum=\"100\" value=\"",
            &percent.to_string(),
            "\"></meter> ",
        );
        html.raw(if percent < LOW_PERCENT { "<span class=\"bad\">" } else { "<span>" });
        html.text(&format!("{} of {} left, {percent} %", amount(*available), amount(*capacity)));
        html.raw("</span></dd>");
    }
    html.raw("</dl>");
}

/// Those that are not as on a node that is well.
fn conditions(html: &mut Html, conditions: &[ConditionView], now: i64) {
    let is_well = |own: &&ConditionView| (own.kind == "Ready") == (own.status == "True");
    // Others than a kubelet's say themselves what is good.
    let kubelets = |own: &&ConditionView| !own.kind.contains('/');
    let wrong: Vec<_> = conditions.iter().filter(kubelets).filter(|own| !is_well(own)).collect();
    html.raw("<h2>Node</h2>");
    if conditions.is_empty() {
        html.raw("<p>It has reported nothing yet.</p>");
    } else if wrong.is_empty() {
        html.raw("<p class=\"good\">Ready, and short of nothing.</p>");
    }
    for own in wrong {
        html.raw("<p class=\"bad\">");
        html.text(&format!("{}: {} ({})", own.kind, own.status, own.reason)).raw("</p><p>");
        html.text(&own.message)
            .raw(" <span class=\"soft\">")
            .text(&time_ago(&own.since, now))
            .raw("</span></p>");
    }
}

/// What of a list is not there.
fn rest(html: &mut Html, listed: usize, in_all: usize) {
    if in_all > listed {
        html.raw("<p class=\"soft\">").text(&format!("And {} more.", in_all - listed)).raw("</p>");
    }
}

/// A cell with the name of its column, which a narrow page shows beside it.
fn cell(html: &mut Html, column: &'static str, text: &str) {
    html.raw("<td data-l=\"").raw(column).around("\">", text, "</td>");
}

/// The same, in red where something is wrong.
fn judged_cell(html: &mut Html, column: &'static str, text: &str, is_bad: bool) {
    if text.is_empty() {
        // A narrow page leaves out the name of a column of which there is nothing.
        return cell(html, column, text);
    }
    html.raw("<td data-l=\"").raw(column).raw(if is_bad { "\"><span class=\"bad\">" } else { "\"><span>" });
    html.text(text).raw("</span></td>");
}

fn pods(html: &mut Html, node: &NodeView, now: i64) {
    html.around("<h2>Pods (", &node.pods_in_all.to_string(), ")</h2>");
    if node.pods.is_empty() {
        html.raw("<p>There are none.</p>");
        return;
    }
    html.raw(
        "<table><thead><tr><th>Pod</th><th>State</th><th>Ready</th><th>Restarts</th><th>Began</th><th>What is wrong</th></tr></thead><tbody>",
    );
    let mut listed = 0;
    for pod in &node.pods {
        if !html.has_room() {
            break;
        }
        listed += 1;
        pod_row(html, pod, now);
    }
    html.raw("</tbody></table>");
    rest(html, listed, node.pods_in_all);
}

fn pod_row(html: &mut Html, pod: &PodView, now: i64) {
    let is_bad = pod.reason.is_some() || !matches!(pod.phase.as_str(), "Running" | "Succeeded");
    let phase = if pod.phase.is_empty() { "Unknown" } else { &pod.phase };
    html.raw("<tr>");
    cell(html, "Pod", &format!("{}/{}", pod.namespace, pod.name));
    judged_cell(html, "State", pod.reason.as_deref().unwrap_or(phase), is_bad);
    let is_done = pod.phase == "Succeeded";
    judged_cell(
        html,
        "Ready",
        &format!("{}/{}", pod.ready, pod.containers),
        !is_done && pod.ready < pod.containers,
    );
    cell(html, "Restarts", &pod.restarts.to_string());
    cell(html, "Began", &pod.started.as_deref().map(|started| time_ago(started, now)).unwrap_or_default());
    cell(html, "What is wrong", pod.message.as_deref().unwrap_or_default());
    html.raw("</tr>");
}

fn devices(html: &mut Html, found: &DevicesView, now: i64) {
    html.around("<h2>Devices (", &found.devices_in_all.to_string(), ")</h2>");
    if found.devices.is_empty() {
        html.raw("<p>There are none.</p>");
        return;
    }
    let mut listed = 0;
    for device in &found.devices {
        if !html.has_room() {
            break;
        }
        listed += 1;
        one_device(html, device, now);
    }
    rest(html, listed, found.devices_in_all);
}

fn one_device(html: &mut Html, device: &DeviceView, now: i64) {
    html.around("<h3>", &format!("{}/{} ", device.namespace, device.name), "");
    let is_good = ["online", "ok"].iter().any(|good| device.state.eq_ignore_ascii_case(good));
    html.raw(if is_good { "<span class=\"good\">" } else { "<span class=\"bad\">" });
    html.text(&device.state).raw("</span></h3><p class=\"soft\">").text(&device.protocol);
    if let Some(last) = device.last_online.as_ref().filter(|_| !is_good) {
        html.around(", last online ", &time_ago(last, now), "");
    }
    html.raw("</p>");
    let has_said =
        |reason: &String| !device.conditions.iter().any(|own| own.message.contains(reason.as_str()));
    if let Some(reason) = device.reason.as_ref().filter(|reason| has_said(reason)) {
        html.around("<p class=\"bad\">", reason, "</p>");
    }
    for own in &device.conditions {
        html.around("<p class=\"bad\">", &format!("{}: {}", own.reason, own.message), "</p>");
    }
    if device.properties.is_empty() {
        return;
    }
    html.raw(
        "<table><thead><tr><th>Property</th><th>Reported</th><th>Desired</th><th>When</th><th>What is wrong</th></tr></thead><tbody>",
    );
    for property in &device.properties {
        property_row(html, property, now);
    }
    html.raw("</tbody></table>");
    rest(html, device.properties.len(), device.properties_in_all);
}

fn property_row(html: &mut Html, property: &PropertyView, now: i64) {
    html.raw("<tr>");
    cell(html, "Property", &property.name);
    judged_cell(html, "Reported", property.reported.as_deref().unwrap_or("—"), property.is_stale);
    cell(html, "Desired", property.desired.as_deref().unwrap_or_default());
    let when = property.reported_unix_ms.map(|at| ago(at / 1000, now)).unwrap_or_default();
    judged_cell(html, "When", &when, property.is_stale);
    let stale = if property.is_stale { "nothing heard since" } else { "" };
    cell(html, "What is wrong", property.error.as_deref().unwrap_or(stale));
    html.raw("</tr>");
}

fn events(html: &mut Html, facts: &Facts) {
    let of_node = facts.node_view.iter().flat_map(|node| &node.events);
    let of_link = facts.link.iter().flat_map(|link| &link.events);
    let mut all: Vec<&EventView> = of_node.chain(of_link).collect();
    all.sort_by_key(|event| std::cmp::Reverse(event.unix));
    html.raw("<h2>Last events</h2>");
    if all.is_empty() {
        html.raw("<p>Nothing has happened since edgecore began.</p>");
        return;
    }
    html.raw("<table><thead><tr><th>When</th><th>About</th><th>Event</th><th>Words</th></tr></thead><tbody>");
    let mut listed = 0;
    for event in all.iter().take(EVENTS_MAX) {
        if !html.has_room() {
            break;
        }
        listed += 1;
        html.raw("<tr>");
        cell(html, "When", &ago(event.unix, facts.unix));
        cell(html, "About", &event.about);
        let times = if event.count > 1 { format!(" ({} times)", event.count) } else { String::new() };
        judged_cell(html, "Event", &format!("{}{times}", event.reason), event.is_warning);
        cell(html, "Words", &event.message);
        html.raw("</tr>");
    }
    html.raw("</tbody></table>");
    rest(html, listed, all.len());
}

#[cfg(test)]
mod tests;
