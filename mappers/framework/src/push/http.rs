//! `pushMethod.http`: each reading is a form, `NAME=VALUE&time=2006-01-02 15:04:05`, as KubeEdge's framework posts it.

use std::fmt::Write as _;
use std::time::Duration;

use beehive::Env;
use bytes::Bytes;
use dmi::v1beta1::PushMethodHttp;

use crate::push::endpoint::Endpoint;
use crate::push::post::Posts;
use crate::push::reading::Reading;
use crate::push::stream::Tls;
use crate::push::trouble::Trouble;

const FORM: &str = "application/x-www-form-urlencoded";
/// 10 s for an answer, unless `timeout` says otherwise.
const ANSWER_SECONDS: u64 = 10;
/// 20 s: the longest `timeout`; a target that takes longer is away.
const ANSWER_SECONDS_MAX: u64 = 20;

/// Where readings are posted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HttpTarget {
    endpoint: Endpoint,
    path: String,
    within: Duration,
}

impl HttpTarget {
    /// From `pushMethod.http`.
    pub(crate) fn read(http: &PushMethodHttp, warnings: &mut Vec<String>) -> Result<Self, String> {
        let host = http.hostname.trim().trim_end_matches('/');
        if host.is_empty() {
            return Err("`hostName` is missing".to_owned());
        }
        let host = if host.contains("://") { host.to_owned() } else { format!("http://{host}") };
        let path = http.requestpath.trim();
        let (given, own_path) = Endpoint::http("`hostName`", &host)?;
        if own_path != "/" {
            return Err("`hostName` has a path; write it into `requestPath`".to_owned());
        }
        let port = match http.port {
            0 => given.port,
            port => u16::try_from(port).map_err(|_| format!("`port` is {port}; ports are 1 to 65535"))?,
        };
        let endpoint = Endpoint { port, ..given };
        let scheme = if endpoint.is_tls { "https" } else { "http" };
        let slash = if path.is_empty() || path.starts_with('/') { "" } else { "/" };
        let (endpoint, path) =
            Endpoint::http("`requestPath`", &format!("{scheme}://{}{slash}{path}", endpoint.authority()))?;
        let seconds = match u64::try_from(http.timeout) {
            Ok(0) => ANSWER_SECONDS,
            Ok(seconds) if seconds <= ANSWER_SECONDS_MAX => seconds,
            Ok(seconds) => {
                warnings
                    .push(format!("http: `timeout` is {seconds} s; it is taken as {ANSWER_SECONDS_MAX} s"));
                ANSWER_SECONDS_MAX
            }
            Err(_) => return Err(format!("`timeout` is {}; write seconds", http.timeout)),
        };
        Ok(HttpTarget { endpoint, path, within: Duration::from_secs(seconds) })
    }

    /// How it is named to people.
    pub(crate) fn shown(&self) -> String {
        let scheme = if self.endpoint.is_tls { "https" } else { "http" };
        // Whatever a query holds, it may be a secret.
        let path = self.path.split('?').next().unwrap_or_default();
        format!("{scheme}://{}{path}", self.endpoint)
    }
}

/// Posts readings.
pub(crate) struct HttpClient {
    path: String,
    posts: Posts,
}

impl HttpClient {
    pub(crate) fn to(target: &HttpTarget, tls: Tls) -> Self {
        HttpClient {
            path: target.path.clone(),
            posts: Posts::to(target.endpoint.clone(), tls, target.within),
        }
    }

    pub(crate) async fn send(&mut self, reading: &Reading, env: &Env) -> Result<(), Trouble> {
        let body = Bytes::from(form(reading));
        self.posts.post(&self.path, &[], FORM, &body, env).await?.taken()
    }
}

/// The form. KubeEdge's framework writes name and value as they are; here what would be a second field, or another text after a
/// form is read, is written as `%26`. The rest is the same to the byte.
fn form(reading: &Reading) -> String {
    let mut form = String::new();
    escape(&reading.property, &mut form);
    form.push('=');
    escape(&reading.value.to_string(), &mut form);
    form.push_str("&time=");
    form.push_str(&reading.seconds());
    form
}

fn escape(text: &str, form: &mut String) {
    for letter in text.chars() {
        if letter.is_ascii_control() || "%&+=;#".contains(letter) {
            // A text takes whatever is written into it.
            let _ = write!(form, "%{:02X}", u32::from(letter));
        } else {
            form.push(letter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::reading::reading;
    use crate::value::Value;

    fn read(host: &str, port: i64, path: &str, timeout: i64) -> Result<String, String> {
        let http = PushMethodHttp { hostname: host.to_owned(), port, requestpath: path.to_owned(), timeout };
        HttpTarget::read(&http, &mut Vec::new())
            .map(|target| format!("{} {:?}", target.shown(), target.within))
    }

    #[test]
    fn a_url_is_made_of_its_three_parts() {
        assert_eq!(read("http://127.0.0.1", 8080, "/a/b", 0), Ok("http://127.0.0.1:8080/a/b 10s".to_owned()));
        assert_eq!(read("https://h/", 0, "a?key=1", 3), Ok("https://h:443/a 3s".to_owned()));
        assert_eq!(read("h", 0, "", 99), Ok("http://h:80/ 20s".to_owned()));
        for (host, port, path, timeout, said) in [
            ("", 80, "/", 0, "`hostName` is missing"),
            ("http://h/x", 80, "/", 0, "`requestPath`"),
            ("http://u:p@h", 80, "/", 0, "a login"),
            ("http://h", 70_000, "/", 0, "`port`"),
            ("http://h", 80, "/a b", 0, "`requestPath`"),
            ("http://h", 80, "/\r\nX: y", 0, "`requestPath`"),
            ("http://h", 80, "/", -1, "`timeout`"),
        ] {
            let refusal = read(host, port, path, timeout).unwrap_err();
            assert!(refusal.contains(said), "{refusal}");
        }
    }

    #[test]
    fn a_form_is_kubeedges_and_nothing_in_a_value_is_another_field() {
        let of = |name, value| form(&reading(name, value));
        assert_eq!(
            of("level", Value::Int(9_007_199_254_740_993)),
            "level=9007199254740993&time=2026-11-29 10:20:30"
        );
        assert_eq!(of("t", Value::Float(21.5)), "t=21.5&time=2026-11-29 10:20:30");
        let text = Value::Text("a&time=b=c 100%+;\n\"ü'".to_owned());
        assert_eq!(of("n&m", text), "n%26m=a%26time%3Db%3Dc 100%25%2B%3B%0A\"ü'&time=2026-11-29 10:20:30");
    }
}
