//! What leaves a machine in an archive, without what opens doors: keys, tokens, passwords. Pure.
//!
//! Who collects hands the archive to somebody else, so what looks like a secret is one. Texts are taken line by line; `edgecore.yaml` by its
//! keys, too.

use serde_json::Value;

/// What stands in its place.
pub(super) const MASK: &str = "(redacted)";
/// A key whose last word is one of these has a secret as its value: `mqttPassword`, `auth_token`.
const SECRET_WORDS: [&str; 14] = [
    "password",
    "passwd",
    "passphrase",
    "pass",
    "secret",
    "secretkey",
    "secretaccesskey",
    "accesskey",
    "token",
    "tokens",
    "credential",
    "credentials",
    "apikey",
    "keydata",
];
/// Words before a secret in a line of a log or of mounts: `password=hunter2`, `Authorization: Bearer …`.
const MARKS: [&str; 16] = [
    "password",
    "passwd",
    "passphrase",
    "pass",
    "secret",
    "token",
    "authorization",
    "credential",
    "api-key",
    "api_key",
    "apikey",
    "access-key",
    "access_key",
    "accesskey",
    "key-data",
    // `"auth": "dXNlcjpwYXNz"`, as docker's configuration has it; the word without quotes is none.
    "\"auth\"",
];
/// What may follow a mark and still be of its word: `secretKey`, `AWS_SECRET_ACCESS_KEY`, `tokens`. `tokenFile` is a path.
const MARK_ENDS: [&str; 7] = ["s", "key", "_key", "-key", "accesskey", "_access_key", "-access-key"];
/// A part of a JWT has so many letters at least; shorter ones with two dots are versions and names.
const JWT_PART_MIN: usize = 16;

/// A document by its keys, and all texts in it.
pub(super) fn document(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let is_empty = matches!(value, Value::Null | Value::Bool(_)) || value.as_str() == Some("");
                if is_secret(key) && !is_empty {
                    *value = Value::from(MASK);
                } else {
                    document(value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(document),
        Value::String(text) => *text = self::text(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// `mqttPassword`, and not `tokenFile`: that is a path.
fn is_secret(key: &str) -> bool {
    let lower = key.to_lowercase().replace(['-', '_'], "");
    SECRET_WORDS.iter().any(|word| lower.ends_with(word))
}

/// A text of many lines.
pub(super) fn text(text: &str) -> String {
    let mut is_key = false;
    let mut lines = Vec::new();
    for line in text.split('\n') {
        if is_key {
            is_key = !line.contains("-----END");
            continue;
        }
        if let Some(at) = begin_of_key(line) {
            lines.push(format!("{}{MASK}", &line[..at]));
            // One on a single line, as JSON has it, ends there.
            is_key = !line[at..].contains("-----END");
            continue;
        }
        lines.push(self::line(line));
    }
    lines.join("\n")
}

/// Where a private key begins in a line.
fn begin_of_key(line: &str) -> Option<usize> {
    let at = line.find("-----BEGIN")?;
    line[at..].contains("PRIVATE KEY").then_some(at)
}

fn line(line: &str) -> String {
    let line = user_information(line);
    let line = marked(&line);
    jwts(&line)
}

/// `scheme://user:password@host` without what stands before the `@`.
fn user_information(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after
            .find(|letter: char| letter.is_whitespace() || "/\"'?#,)".contains(letter))
            .unwrap_or(after.len());
        match after[..end].rfind('@') {
            Some(sign) => {
                out.push_str(MASK);
                rest = &after[sign..];
            }
            None => rest = after,
        }
    }
    out + rest
}

/// The word behind `password=`, `"token": `, `Authorization: Bearer ` and their like.
fn marked(line: &str) -> String {
    // The bytes of ASCII letters stay where they are.
    let lower = line.to_ascii_lowercase();
    let (mut out, mut copied, mut at) = (String::with_capacity(line.len()), 0, 0);
    while at < line.len() {
        let mark = lower.get(at..).and_then(|rest| MARKS.iter().find(|mark| rest.starts_with(**mark)));
        let Some(mark) = mark else {
            at += 1;
            continue;
        };
        at += mark.len();
        if let Some((gap, length)) = value_behind(&line[at..]) {
            out.push_str(&line[copied..at + gap]);
            out.push_str(MASK);
            at += gap + length;
            copied = at;
        }
    }
    out.push_str(&line[copied..]);
    out
}

/// Behind a mark: how far its value is, and how long; `None` where it has none.
fn value_behind(after: &str) -> Option<(usize, usize)> {
    let begins = |end: &str| after.get(..end.len()).is_some_and(|own| own.eq_ignore_ascii_case(end));
    let longer = MARK_ENDS.iter().filter(|end| begins(end)).map(|end| end.len());
    std::iter::once(0)
        .chain(longer)
        .find_map(|end| value_after(&after[end..]).map(|(gap, length)| (end + gap, length)))
}

fn value_after(after: &str) -> Option<(usize, usize)> {
    let spaced = after.trim_start_matches(['"', '\'', '\\']).trim_start();
    let value = spaced.strip_prefix([':', '='])?.trim_start();
    let escapes = value.len() - value.trim_start_matches('\\').len();
    let bare = &value[escapes..];
    let (value, length) = match bare.chars().next() {
        Some(quote @ ('"' | '\'')) => (&bare[1..], quoted(&bare[1..], quote, escapes)),
        // A list or an object is one as a whole.
        Some('[') => (bare, bare.rfind(']').map_or(bare.len(), |at| at + 1)),
        Some('{') => (bare, bare.rfind('}').map_or(bare.len(), |at| at + 1)),
        _ => {
            let kinds = ["Bearer ", "bearer ", "Basic ", "basic "];
            let value = kinds.iter().find_map(|kind| bare.strip_prefix(kind)).unwrap_or(bare);
            let ends = |letter: char| letter.is_whitespace() || "\"',;&)}]".contains(letter);
            (value, value.find(ends).unwrap_or(value.len()))
        }
    };
    (length > 0).then_some((after.len() - value.len(), length))
}

/// How long a text is whose quotes have so many `\` before them: one with more is of the text.
fn quoted(text: &str, quote: char, escapes: usize) -> usize {
    let mut before = 0;
    for (at, letter) in text.char_indices() {
        match letter {
            '\\' => before += 1,
            letter if letter == quote && before <= escapes => return at - before,
            _ => before = 0,
        }
    }
    text.len()
}

/// Words of three or four parts, as tokens have them: `eyJ….eyJ….sig`, and a join token with its pin before.
fn jwts(line: &str) -> String {
    let is_of_token = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(is_of_token) {
        let (before, from) = rest.split_at(at);
        let end = from.find(|letter: char| !is_of_token(letter)).unwrap_or(from.len());
        out.push_str(before);
        out.push_str(if is_token(&from[..end]) { MASK } else { &from[..end] });
        rest = &from[end..];
    }
    out + rest
}

fn is_token(word: &str) -> bool {
    let parts: Vec<&str> = word.trim_matches('.').split('.').collect();
    let of_jwt = match parts.len() {
        3 => &parts[..],
        4 => &parts[1..],
        _ => return false,
    };
    of_jwt[0].starts_with("eyJ") && of_jwt[0].len() >= JWT_PART_MIN && of_jwt[1].len() >= JWT_PART_MIN
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const WORD: &str = "hunter2";

    #[test]
    fn what_opens_doors_is_taken_out_of_lines() {
        let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjIwMDAwMDAwMDB9.c2lnbmF0dXJlX2h1bnRlcjI";
        let pin = "a".repeat(64);
        for (line, left) in [
            (format!("mount //nas/x type cifs (rw,username=u,password={WORD},uid=0)"), "uid=0)"),
            (format!("Authorization: Bearer {WORD} next"), "next"),
            (format!("{{\"token\": \"{WORD}\", \"other\": 7}}"), "\"other\": 7"),
            (format!("dialled mqtt://user:{WORD}@broker:1883/x"), "@broker:1883/x"),
            (format!("joined with {jwt} at 10:02"), "at 10:02"),
            (format!("joined with {pin}.{jwt}"), "joined with"),
            (format!("password: \"a {WORD} b\", next"), ", next"),
            (format!("said {{\\\"token\\\":\\\"{WORD}\\\"}} end"), "end"),
            (format!("MQTT_PASSWORD='{WORD}' and PASSWD = {WORD}"), "and PASSWD"),
            (format!("password: \"ab\\\"{WORD}\" end"), "end"),
            (format!("said {{\\\"token\\\":\\\"ab\\\\\\\"{WORD}\\\"}} end"), "end"),
            (format!("AWS_SECRET_ACCESS_KEY={WORD} end"), "end"),
            (format!("secretKey: {WORD}"), "secretKey: "),
            (format!("{{\"auths\": {{\"r\": {{\"auth\": \"{WORD}\"}}}}}}"), "\"r\""),
            (format!("client-key-data: {WORD}"), "client-key-data: "),
            (format!("{{\"password\":[\"a\", \"{WORD}\"]}}"), "password"),
            (format!("tokens=[a {WORD}] end"), "end"),
            (format!("pass=x{WORD}, passphrase: {WORD}"), ", passphrase: "),
            (
                format!("a-----BEGIN EC PRIVATE KEY-----\n{WORD}\n-----END EC PRIVATE KEY-----\nafter"),
                "after",
            ),
            (format!("k=\"-----BEGIN PRIVATE KEY-----\\n{WORD}\\n-----END PRIVATE KEY-----\"\nnext"), "next"),
        ] {
            let out = text(&line);
            assert!(!out.contains(WORD) && !out.contains("c2lnbmF0dXJl") && out.contains(MASK), "{out}");
            assert!(out.contains(left), "{out}");
        }
    }

    #[test]
    fn what_opens_none_stays() {
        for line in [
            "the token stands in the command line",
            "tokenFile: /var/lib/kubeedge/kubelet.token",
            "kubernetes.io/kube-api-access 6.1.0-37-amd64 a.b.c",
            "https://cloud.example:10002/x@y",
            "-----BEGIN CERTIFICATE-----",
            "pod default/web of registry.example/shop/till:v1.2.3",
            "é password",
            "auth: by certificate",
            "secretName: till, tokenExpirationSeconds: 3600",
        ] {
            assert_eq!(text(line), line);
        }
    }

    #[test]
    fn settings_are_masked_by_their_keys() {
        let mut settings = json!({"modules": {"eventBus": {"mqttPassword": WORD, "mqttUsername": "u", "passwordFile": "/p"},
            "x": [{"apiKey": WORD, "token": 4711, "tokens": [WORD], "credential": {"a": WORD}, "url": format!("tcp://u:{WORD}@h:1")}], "empty": {"secret": ""}}});
        document(&mut settings);
        let out = settings.to_string();
        assert!(!out.contains(WORD) && !out.contains("4711"), "{out}");
        assert_eq!(settings["modules"]["eventBus"]["passwordFile"], "/p");
        assert_eq!(settings["modules"]["eventBus"]["mqttUsername"], "u");
        assert_eq!(settings["modules"]["empty"]["secret"], "");
        assert_eq!(settings["modules"]["x"][0]["url"], format!("tcp://{MASK}@h:1"));
    }

    /// Whatever a log has in it, nothing ends the collection.
    #[test]
    fn odd_texts_are_no_trouble() {
        let begun = std::time::Instant::now();
        text(&"token".repeat(200_000));
        text(&format!("token: {}", "\"'= ".repeat(200_000)));
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "in the time of its length");
        for odd in [
            "",
            "password",
            "password=",
            "token:\"",
            "://",
            "a://@",
            "@://é@é",
            "ﬀ token=é\u{1}",
            "-----BEGIN PRIVATE KEY-----",
            "...",
        ] {
            let _ = text(odd);
        }
    }
}
