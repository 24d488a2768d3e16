//! `dbMethod.influxdb2`: each reading is a point in line protocol, its field a text, as KubeEdge's framework writes it.

use std::time::Duration;

use beehive::Env;
use bytes::Bytes;
use dmi::v1beta1::DbMethodInfluxdb2;
use hyper::header::{AUTHORIZATION, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::push::credentials::Credentials;
use crate::push::endpoint::Endpoint;
use crate::push::post::Posts;
use crate::push::reading::Reading;
use crate::push::stream::Tls;
use crate::push::trouble::{Sent, Trouble};

/// 10 s for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// 512 KiB of lines in one request, or one line.
const LINES_MAX: usize = 512 << 10;
const LINES: &str = "text/plain; charset=utf-8";

/// A bucket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct InfluxTarget {
    endpoint: Endpoint,
    path: String,
    bucket: String,
}

/// What a property's points have before and after the value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Point {
    /// The measurement, the tags and the field's key, up to the quote before the value.
    before: String,
}

impl InfluxTarget {
    /// From `dbMethod.influxdb2`.
    pub(crate) fn read(database: &DbMethodInfluxdb2) -> Result<(Self, Point), String> {
        let client = database.influxdb2_client_config.clone().unwrap_or_default();
        let data = database.influxdb2_data_config.clone().unwrap_or_default();
        let (endpoint, base) = Endpoint::http("`url`", client.url.trim())?;
        if base.contains('?') {
            return Err("`url` has a query; write `org` and `bucket`".to_owned());
        }
        for (key, value) in [("org", &client.org), ("bucket", &client.bucket)] {
            if value.is_empty() || value.len() > 256 {
                return Err(format!("`{key}` is missing or too long"));
            }
        }
        let (org, bucket) = (encoded(&client.org), encoded(&client.bucket));
        let path =
            format!("{}/api/v2/write?org={org}&bucket={bucket}&precision=ns", base.trim_end_matches('/'));
        let measurement = name("measurement", &data.measurement, &[',', ' '])?;
        if measurement.starts_with('#') {
            return Err("`measurement` begins with #, which makes a comment of it".to_owned());
        }
        let mut before = measurement;
        for (key, value) in &data.tag {
            let what = format!("tag.{key}");
            let (key, value) = (name(&what, key, &[',', '=', ' '])?, name(&what, value, &[',', '=', ' '])?);
            before.push_str(&format!(",{key}={value}"));
        }
        let field = name("fieldKey", &data.field_key, &[',', '=', ' '])?;
        before.push_str(&format!(" {field}=\""));
        Ok((InfluxTarget { endpoint, path, bucket: client.bucket }, Point { before }))
    }

    /// How it is named to people.
    pub(crate) fn shown(&self) -> String {
        let scheme = if self.endpoint.is_tls { "https" } else { "http" };
        format!("{scheme}://{} bucket {}", self.endpoint, self.bucket)
    }
}

/// A name in line protocol: what parts names has a backslash before it. What would end the line, and a backslash at the end, which
/// would take what follows along, cannot be written at all.
fn name(what: &str, text: &str, special: &[char]) -> Result<String, String> {
    if text.is_empty() || text.len() > 1024 {
        return Err(format!("`{what}` is missing, empty or too long"));
    }
    if text.chars().any(char::is_control) || text.ends_with('\\') {
        return Err(format!("`{what}` has a control character in it, or ends with a backslash"));
    }
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        if special.contains(&letter) {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    Ok(escaped)
}

/// For a query: all but unreserved letters as `%20`.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Writes points.
pub(crate) struct InfluxClient {
    path: String,
    posts: Posts,
    /// `None`: the token cannot stand in a header.
    login: Option<Vec<(hyper::header::HeaderName, HeaderValue)>>,
}

impl InfluxClient {
    pub(crate) fn to(target: &InfluxTarget, tls: Tls, credentials: &Credentials) -> Self {
        let token = credentials.token.trim();
        let login = match HeaderValue::from_str(&format!("Token {token}")) {
            _ if token.is_empty() => Some(Vec::new()),
            Ok(mut value) => {
                value.set_sensitive(true);
                Some(vec![(AUTHORIZATION, value)])
            }
            Err(_) => None,
        };
        let posts = Posts::to(target.endpoint.clone(), tls, ANSWER_WITHIN);
        InfluxClient { path: target.path.clone(), posts, login }
    }

    pub(crate) async fn send(&mut self, batch: &[(&Point, &Reading)], env: &Env) -> Sent {
        let Some(login) = &self.login else {
            let reason =
                "TOKEN in the mapper's environment has characters that no header can have".to_owned();
            return Sent { taken: 0, trouble: Some(Trouble::Away(reason)) };
        };
        let (mut lines, mut count) = (String::new(), 0);
        for (point, reading) in batch {
            line(point, reading, &mut lines);
            count += 1;
            if lines.len() > LINES_MAX {
                break;
            }
        }
        let answer = self.posts.post(&self.path, login, LINES, &Bytes::from(lines), env).await;
        let taken = answer.and_then(|answer| answer.taken()).map_err(|trouble| match trouble {
            Trouble::Refused(reason) => Trouble::OneRefused(reason),
            other => other,
        });
        Sent::all(count, taken)
    }
}

/// One line. In a text a quote and a backslash have a backslash before them, and a line may end.
fn line(point: &Point, reading: &Reading, lines: &mut String) {
    lines.push_str(&point.before);
    for letter in reading.value.to_string().chars() {
        if matches!(letter, '"' | '\\') {
            lines.push('\\');
        }
        lines.push(letter);
    }
    lines.push_str(&format!("\" {}\n", reading.since_1970().as_nanos()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::reading::reading;
    use crate::value::Value;
    use dmi::v1beta1::{Influxdb2ClientConfig, Influxdb2DataConfig};

    fn read(
        url: &str,
        measurement: &str,
        tags: &[(&str, &str)],
        field: &str,
    ) -> Result<(InfluxTarget, Point), String> {
        let client =
            Influxdb2ClientConfig { url: url.to_owned(), org: "my org".to_owned(), bucket: "b&c".to_owned() };
        let tag = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let data =
            Influxdb2DataConfig { measurement: measurement.to_owned(), tag, field_key: field.to_owned() };
        InfluxTarget::read(&DbMethodInfluxdb2 {
            influxdb2_client_config: Some(client),
            influxdb2_data_config: Some(data),
        })
    }

    #[test]
    fn a_point_is_one_line_whatever_is_in_it() {
        let (target, point) =
            read("https://h/influx/", "room, one", &[("a b", "c=d"), ("x", "ü")], "f,k").unwrap();
        assert_eq!(target.path, "/influx/api/v2/write?org=my%20org&bucket=b%26c&precision=ns");
        assert_eq!(target.shown(), "https://h:443 bucket b&c");
        let mut lines = String::new();
        line(&point, &reading("p", Value::Int(9_007_199_254_740_993)), &mut lines);
        line(&point, &reading("p", Value::Text("a\" 1\\\nx,y=z".to_owned())), &mut lines);
        let before = r"room\,\ one,a\ b=c\=d,x=ü f\,k=";
        assert_eq!(
            lines,
            format!(
                "{before}\"9007199254740993\" 1795947630123000000\n{before}\"a\\\" 1\\\\\nx,y=z\" 1795947630123000000\n"
            )
        );
    }

    #[test]
    fn what_cannot_be_written_is_refused_by_name() {
        for (url, measurement, tags, field, said) in [
            ("", "m", vec![], "f", "`url` is missing"),
            ("http://h?x=y", "m", vec![], "f", "`url` has a query"),
            ("http://h", "", vec![], "f", "`measurement`"),
            ("http://h", "#m", vec![], "f", "comment"),
            ("http://h", "m\nn", vec![], "f", "`measurement`"),
            ("http://h", "m", vec![("a", "")], "f", "`tag.a`"),
            ("http://h", "m", vec![("a", "x\\")], "f", "`tag.a`"),
            ("http://h", "m", vec![], "", "`fieldKey`"),
        ] {
            let Err(refusal) = read(url, measurement, &tags, field) else { panic!("{said}") };
            assert!(refusal.contains(said), "{refusal}");
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        let credentials = Credentials { token: "s3cret".to_owned(), ..Default::default() };
        let (target, _) = read("http://h", "m", &[], "f").unwrap();
        let client = InfluxClient::to(&target, Tls::default(), &credentials);
        let shown = format!("{:?} {credentials:?}", client.login);
        assert!(client.login.unwrap()[0].1 == "Token s3cret" && !shown.contains("s3cret"), "{shown}");
    }
}
