//! What leaves a machine in an archive, without what opens doors: keys, tokens, passwords. Pure.
//!
//! Who collects hands the archive to somebody else, so what looks like a secret is one. Texts are taken line by line, with what the lines below a
//! secret's key hold by their indentation; `edgecore.yaml` by its keys, too.

use serde_json::Value;

/// What stands in its place.
pub(super) const MASK: &str = "(redacted)";
/// A key whose last word is one of these has a secret as its value: `mqttPassword`, `auth_token`.
const SECRET_WORDS: [&str; 19] = [
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
    // Of a kubeconfig: whose cluster it is, and as whom one is there.
    "certificatedata",
    "authoritydata",
    // Of a Secret.
    "stringdata",
    "dockerconfigjson",
    "dockercfg",
];
/// Words before a secret in a line of a log or of mounts: `password=hunter2`, `Authorization: Bearer …`.
const MARKS: [&str; 21] = [
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
    "certificate-data",
    "authority-data",
    "stringdata",
    "dockerconfigjson",
    "dockercfg",
    // `"auth": "dXNlcjpwYXNz"`, as docker's configuration has it; the word without quotes is none.
    "\"auth\"",
];
/// What may follow a mark and still be of its word: `secretKey`, `AWS_SECRET_ACCESS_KEY`, `tokens`. `tokenFile` is a path.
const MARK_ENDS: [&str; 7] = ["s", "key", "_key", "-key", "accesskey", "_access_key", "-access-key"];
/// A part of a JWT has so many letters at least; shorter ones with two dots are versions and names.
const JWT_PART_MIN: usize = 16;
/// In the 2 lines below a secret's name (`- name: TOKEN`) its `value` stands.
const VALUE_WITHIN: usize = 2;
/// 256 bytes of what may be such a name are looked at.
const NAME_MAX: usize = 256;
/// A line of a key in PEM has so many letters at least, but for the last.
const PEM_LINE_MIN: usize = 16;

/// A document by its keys, and all texts in it.
pub(super) fn document(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let named = ["name", "key"].iter().find_map(|of| fields.get(*of)?.as_str());
            let is_named = named.is_some_and(is_secret);
            for (key, value) in fields {
                let is_secret = |key: &str| is_secret(key) || (is_named && key == "value");
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
    let (mut is_key, mut open, mut named) = (false, None::<Open>, 0);
    let mut lines = Vec::new();
    for line in text.split('\n') {
        if is_key {
            is_key = !line.contains("-----END");
            continue;
        }
        match &mut open {
            Some(_) if line.trim().is_empty() => {
                lines.push(line.to_owned());
                continue;
            }
            Some(of) if of.has(line) => {
                if !std::mem::replace(&mut of.is_masked, true) {
                    lines.push(format!("{}{MASK}", &line[..indentation(line)]));
                }
                continue;
            }
            _ => open = None,
        }
        if let Some(at) = begin_of_key(line) {
            lines.push(format!("{}{MASK}", &line[..at]));
            // One on a single line, as JSON has it, ends there.
            is_key = !line[at..].contains("-----END");
            continue;
        }
        if is_end_of_key(line) {
            // It began before what is here, as in a log that is not whole.
            while lines.last().is_some_and(|line| is_of_key(line)) {
                lines.pop();
            }
            lines.push(MASK.to_owned());
            continue;
        }
        let (line, below) = self::line(line, &mut named);
        lines.push(line);
        open = below;
    }
    lines.join("\n")
}

/// A secret whose value goes on in the lines below: those that are indented more than its key.
#[derive(Debug, Clone, Copy)]
struct Open {
    /// Where the key stands.
    indent: usize,
    /// Nothing stands behind the key: a list may be as far as the key itself.
    is_empty: bool,
    /// It is said already that something was here.
    is_masked: bool,
}

impl Open {
    fn has(&self, line: &str) -> bool {
        let indent = indentation(line);
        let rest = &line[indent..];
        let is_item = self.is_empty && indent == self.indent && (rest == "-" || rest.starts_with("- "));
        indent > self.indent || is_item
    }
}

/// How many bytes of white space a line begins with.
fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn is_end_of_key(line: &str) -> bool {
    line.find("-----END").is_some_and(|at| line[at..].contains("PRIVATE KEY"))
}

/// Whether a line may be one of a key, behind what a log has before each.
fn is_of_key(line: &str) -> bool {
    let word = line.split_whitespace().next_back().unwrap_or_default();
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
    word.bytes().all(is_base64) && (word.len() >= PEM_LINE_MIN || word.ends_with('='))
}

/// Where a private key begins in a line.
fn begin_of_key(line: &str) -> Option<usize> {
    let at = line.find("-----BEGIN")?;
    line[at..].contains("PRIVATE KEY").then_some(at)
}

/// A line, and what of it goes on in those below. `named`: in so many lines a `value` is that of a secret.
fn line(line: &str, named: &mut usize) -> (String, Option<Open>) {
    let line = user_information(line);
    let (line, open) = marked(&line);
    let (line, of_pair) = paired(&line, named);
    (jwts(&line), open.or(of_pair))
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
fn marked(line: &str) -> (String, Option<Open>) {
    // The bytes of ASCII letters stay where they are.
    let lower = line.to_ascii_lowercase();
    let mut masked = Masked::of(line);
    let mut at = 0;
    while at < line.len() {
        let mark = lower.get(at..).and_then(|rest| MARKS.iter().find(|mark| rest.starts_with(**mark)));
        let Some(mark) = mark else {
            at += 1;
            continue;
        };
        let key = at;
        at += mark.len();
        if let Some(value) = value_behind(line, at) {
            at = masked.mask(key, value);
        }
    }
    masked.end()
}

/// What stands behind `value` where a secret's name stands before it (`name: TOKEN`, `value: x`), here or in the lines above.
fn paired(line: &str, named: &mut usize) -> (String, Option<Open>) {
    *named = named.saturating_sub(1);
    let mut masked = Masked::of(line);
    let is_of_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let mut at = 0;
    while let Some(begin) = line[at..].find(is_of_word).map(|found| at + found) {
        at = line[begin..].find(|letter| !is_of_word(letter)).map_or(line.len(), |found| begin + found);
        match line[begin..at].to_ascii_lowercase().as_str() {
            "name" | "key" => {
                let near = &line[..line.floor_char_boundary(at + NAME_MAX)];
                let Some(value) = value_after(near, at, false) else { continue };
                let name = &near[value.begin..value.end];
                *named = if is_secret(name) { VALUE_WITHIN + 1 } else { 0 };
            }
            "value" if *named > 0 => {
                if let Some(value) = value_after(line, at, begins_line(line, begin)) {
                    at = masked.mask(begin, value);
                }
            }
            _ => {}
        }
    }
    masked.end()
}

/// A line that is written anew without its secrets.
struct Masked<'a> {
    line: &'a str,
    out: String,
    copied: usize,
    /// Where the last key stands whose value goes on below, and whether nothing stands behind it.
    open: Option<(usize, bool)>,
}

impl<'a> Masked<'a> {
    fn of(line: &'a str) -> Self {
        Masked { line, out: String::with_capacity(line.len()), copied: 0, open: None }
    }

    /// Takes the value of the key out that has something at `key`. Answers where it ended.
    fn mask(&mut self, key: usize, value: Found) -> usize {
        self.open = value.is_open.then_some((key, value.begin == value.end));
        if value.begin < value.end {
            self.out.push_str(&self.line[self.copied..value.begin]);
            self.out.push_str(MASK);
            self.copied = value.end;
        }
        value.end
    }

    fn end(mut self) -> (String, Option<Open>) {
        self.out.push_str(&self.line[self.copied..]);
        let open = self.open.map(|(key, is_empty)| {
            let begins = begin_of_word(self.line, key);
            // Behind something else, as in a log, whatever is indented is below it.
            let indent = if begins_line(self.line, key) { begins } else { indentation(self.line) };
            Open { indent, is_empty, is_masked: !is_empty }
        });
        (self.out, open)
    }
}

/// Where the word begins of which something is at `at`.
fn begin_of_word(line: &str, at: usize) -> usize {
    let is_of_word = |letter: char| letter.is_ascii_alphanumeric() || "_-.\"'".contains(letter);
    let before = line[..at].trim_end_matches(is_of_word).len();
    // An item of a list begins with a dash that is none of the word's.
    before + (line[before..].len() - line[before..].trim_start_matches(['-']).len()).min(at - before)
}

/// Whether nothing stands before a word but what YAML and JSON have there.
fn begins_line(line: &str, at: usize) -> bool {
    line[..begin_of_word(line, at)].trim_start_matches([' ', '\t', '-', '{']).is_empty()
}

/// A value in a line.
#[derive(Debug, Clone, Copy)]
struct Found {
    begin: usize,
    end: usize,
    /// It may go on in the lines below.
    is_open: bool,
}

/// Behind a mark that ends at `at`; `None` where it has no value.
fn value_behind(line: &str, at: usize) -> Option<Found> {
    let after = &line[at..];
    let begins = |end: &str| after.get(..end.len()).is_some_and(|own| own.eq_ignore_ascii_case(end));
    let longer = MARK_ENDS.iter().filter(|end| begins(end)).map(|end| end.len());
    std::iter::once(0).chain(longer).find_map(|end| {
        let end = at + end;
        // Whether it begins the line is looked at where it has a value at all.
        value_after(line, end, false)?;
        value_after(line, end, begins_line(line, at))
    })
}

/// Behind a key that ends at `at`. `is_line`: the key begins its line, so that its value has the whole rest.
fn value_after(line: &str, at: usize, is_line: bool) -> Option<Found> {
    let after = &line[at..];
    let spaced = after.trim_start_matches(['"', '\'', '\\']).trim_start();
    let is_key = spaced.starts_with(':');
    let value = spaced.strip_prefix([':', '='])?.trim_start();
    let escapes = value.len() - value.trim_start_matches('\\').len();
    let bare = &value[escapes..];
    let (value, length, is_whole) = match bare.chars().next() {
        Some(quote @ ('"' | '\'')) => {
            let length = quoted(&bare[1..], quote, escapes);
            (&bare[1..], length, length < bare.len() - 1)
        }
        // A list or an object is one as a whole.
        Some(bracket @ ('[' | '{')) => {
            let end = bare.rfind(if bracket == '[' { ']' } else { '}' });
            (bare, end.map_or(bare.len(), |end| end + 1), end.is_some())
        }
        _ => {
            let kinds = ["Bearer ", "bearer ", "Basic ", "basic "];
            let of_kind = kinds.iter().find_map(|kind| bare.strip_prefix(kind));
            let value = of_kind.unwrap_or(bare);
            let is_block = is_key && value.starts_with(['|', '>', '!', '&']);
            let ends = |letter: char| letter.is_whitespace() || "\"',;&)}]".contains(letter);
            let length = match is_block || (is_line && is_key && of_kind.is_none()) {
                true => value.trim_end().len(),
                false => value.find(ends).unwrap_or(value.len()),
            };
            (value, length, !is_key || !value[length..].trim().is_empty())
        }
    };
    let begin = line.len() - value.len();
    // Nothing at all behind a `=` is nothing.
    (length > 0 || !is_whole).then_some(Found { begin, end: begin + length, is_open: !is_whole })
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
    fn what_stands_below_a_secrets_key_is_taken_out_as_far_as_it_is_indented() {
        for (lines, left) in [
            ("token: |\n  {}\n  {}\nafter: 1", "after: 1"),
            ("  token: >-\n\n    {}\n  after: 1", "  after: 1"),
            ("password:\n  {}\nafter: 1", "after: 1"),
            ("password: !!str |\n  {}\nafter: 1", "after: 1"),
            ("password: a\n  {}\nafter: 1", "after: 1"),
            ("password: a {}\nafter: 1", "after: 1"),
            ("- password: |\n    {}\n  after: 1", "  after: 1"),
            ("tokens:\n- {}\n- {}\nafter: 1", "after: 1"),
            ("tokens:\n  - a: 1\n    b: {}\nafter: 1", "after: 1"),
            ("{\n  \"tokens\": [\n    \"{}\"\n  ],\n  \"after\": 1\n}", "  \"after\": 1"),
            ("{\n  \"password\":\n    \"{}\",\n  \"after\": 1\n}", "  \"after\": 1"),
            ("password: \"a\n  {}\"\nafter: 1", "after: 1"),
            ("Login {\n    token: Some(\n        \"{}\",\n    ),\n    after: 1,\n}", "    after: 1,"),
            ("Dec 01 host edgecore[7]: token: |\n                  {}\nDec 01 after", "Dec 01 after"),
            ("    client-certificate-data: {}\n    client-key-data: |\n      {}\n  after: 1", "  after: 1"),
            ("    certificate-authority-data: {}\n    server: https://after", "    server: https://after"),
            ("stringData:\n  a: {}\nkind: Secret", "kind: Secret"),
            ("  .dockerconfigjson: {}\n  after: 1", "  after: 1"),
            ("- name: MQTT_TOKEN\n  value: {}\n- name: LEVEL\n  value: after", "  value: after"),
            ("- name: TOKEN\n  value: |\n    {}\n- name: LEVEL\n  value: after", "  value: after"),
            (r#"[{"name":"TOKEN","value":"{}"},{"name":"LEVEL","value":"after"}]"#, r#""value":"after"}]"#),
            ("\"name\": \"DB_PASSWORD\",\n\"value\": \"{}\"\nafter", "after"),
            (r#"KeyValue { key: "AWS_SECRET_ACCESS_KEY", value: "{}" } after"#, "after"),
            ("aHVudGVyMmh1bnRlcjI=\n-----END PRIVATE KEY-----\nafter", "after"),
            ("Dec 01 aHVudGVyMmh1bnRlcjJodW50\naHVudGVyMg==\n-----END RSA PRIVATE KEY-----\nafter", "after"),
        ] {
            let out = text(&lines.replace("{}", WORD));
            assert!(!out.contains(WORD) && !out.contains("aHVudGVy") && out.contains(MASK), "{lines}: {out}");
            assert!(out.lines().any(|line| line.ends_with(left)), "{lines}: {out}");
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
            "- name: LEVEL\n  value: debug\n- name: TOKEN\n  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}",
            "  tokenFile: /a\n    deeper",
            "line\n-----END CERTIFICATE-----",
        ] {
            assert_eq!(text(line), line);
        }
    }

    #[test]
    fn settings_are_masked_by_their_keys() {
        let mut settings = json!({"modules": {"eventBus": {"mqttPassword": WORD, "mqttUsername": "u", "passwordFile": "/p"},
            "env": [{"name": "DB_PASSWORD", "value": WORD}, {"name": "LEVEL", "value": "debug"}],
            "x": [{"apiKey": WORD, "token": 4711, "tokens": [WORD], "credential": {"a": WORD}, "url": format!("tcp://u:{WORD}@h:1")}], "empty": {"secret": ""}}});
        document(&mut settings);
        let out = settings.to_string();
        assert!(!out.contains(WORD) && !out.contains("4711"), "{out}");
        assert_eq!(settings["modules"]["eventBus"]["passwordFile"], "/p");
        assert_eq!(settings["modules"]["eventBus"]["mqttUsername"], "u");
        assert_eq!(settings["modules"]["empty"]["secret"], "");
        assert_eq!(settings["modules"]["env"][1]["value"], "debug");
        assert_eq!(settings["modules"]["x"][0]["url"], format!("tcp://{MASK}@h:1"));
    }

    /// Whatever a log has in it, nothing ends the collection.
    #[test]
    fn odd_texts_are_no_trouble() {
        let begun = std::time::Instant::now();
        text(&"token".repeat(200_000));
        text(&format!("token: {}", "\"'= ".repeat(200_000)));
        text(&"token:\n ".repeat(200_000));
        text(&"name:token value: [".repeat(100_000));
        text(&"x-token:".repeat(100_000));
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
