//! Raw bytes at every decoder of a body and of a query: a refusal, or an object that can be read again.

use super::*;

/// 4,000 bodies.
const BODIES: usize = 4_000;
const MEDIA: &[(&str, Method)] = &[
    ("application/json", Method::POST),
    ("application/yaml", Method::POST),
    ("application/vnd.kubernetes.protobuf", Method::POST),
    ("application/json", Method::PUT),
    ("application/json-patch+json", Method::PATCH),
    ("application/merge-patch+json", Method::PATCH),
    ("application/strategic-merge-patch+json", Method::PATCH),
    ("application/json", Method::DELETE),
];
const SEEDS: &[&[u8]] = &[
    br#"{"metadata":{"name":"p","labels":{"app":"p"},"finalizers":["a/b"]},"spec":{"containers":[{"name":"c","image":"x:1","ports":[{"containerPort":80}],"resources":{"limits":{"cpu":"1"}}}],"tolerations":[{"key":"a","operator":"Exists"}]}}"#,
    br#"{"spec":{"containers":[{"name":"c","image":"y"},{"$patch":"delete","name":"d"}],"$setElementOrder/containers":[{"name":"c"}],"$retainKeys":["containers"]}}"#,
    br#"[{"op":"replace","path":"/spec/containers/0/image","value":"y"},{"op":"copy","from":"/metadata","path":"/metadata/annotations"},{"op":"test","path":"","value":{}}]"#,
    br#"{"kind":"DeleteOptions","gracePeriodSeconds":0,"preconditions":{"uid":"u"},"propagationPolicy":"Foreground"}"#,
    b"apiVersion: v1\nkind: Pod\nmetadata: {name: &a p}\nspec:\n  containers:\n  - {name: c, image: !!str x}\n",
    b"k8s\0\n\t\n\x02v1\x12\x03Pod\x12\x1c\n\x03\n\x01p\x12\x15\x12\x13\n\x01c\x12\x0ebusybox:latest",
];

/// xorshift64*: the same bytes at each run.
struct Xorshift(u64);

impl Xorshift {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % below
    }

    /// Bytes of a seed with a few of them changed, cut, doubled or put in.
    fn spoilt(&mut self) -> Vec<u8> {
        let mut bytes = SEEDS[self.roll(SEEDS.len())].to_vec();
        for _ in 0..self.roll(6) {
            let at = self.roll(bytes.len() + 1).min(bytes.len().saturating_sub(1));
            let words: &[&[u8]] = &[
                b"{",
                b"[",
                b"\"",
                b"null",
                b"-1e999",
                b"\\u0000",
                b"\xff\xfe",
                b"$patch",
                b"/",
                b"99999999999999999999",
                b"true",
                b"[[[[[[[[",
            ];
            match self.roll(5) {
                0 if !bytes.is_empty() => bytes[at] = self.roll(256) as u8,
                1 => bytes.truncate(at),
                2 => {
                    let word = words[self.roll(words.len())];
                    bytes.splice(at..at, word.iter().copied());
                }
                3 => {
                    let until = at + self.roll(bytes.len() - at + 1);
                    let piece = bytes[at..until].to_vec();
                    bytes.splice(at..at, piece);
                }
                _ => {
                    let until = at + self.roll((bytes.len() - at).min(8) + 1);
                    bytes.drain(at..until);
                }
            }
        }
        bytes
    }
}

#[tokio::test]
async fn bodies_are_refused_or_come_to_an_object() {
    let server = server().await;
    let mut random = Xorshift(0x9e37_79b9_7f4a_7c15);
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..BODIES {
        let (media, method) = &MEDIA[random.roll(MEDIA.len())];
        let parts = ["", "/p", "/p/status", "/p/binding", "/p/eviction"];
        let part =
            if *method == Method::POST && random.roll(4) > 0 { "" } else { parts[random.roll(parts.len())] };
        let strict = ["", "?fieldValidation=Strict", "?dryRun=All"][random.roll(3)];
        let body = random.spoilt();
        let message = format!("{method} {media} {part} {strict} {}", String::from_utf8_lossy(&body));
        let request = Request::builder().method(method).uri(format!("{PODS}{part}{strict}"));
        let request = request.header("content-type", *media).body(Bytes::from(body)).unwrap();
        let response = server.0.handle(request, &User::default()).await;
        let code = response.status().as_u16();
        // Never a mistake of the server's own.
        assert!((200..300).contains(&code) || (400..500).contains(&code), "{code}: {message}");
        if code < 300 { taken += 1 } else { refused += 1 }
    }
    // Both happened, and what was taken can be read.
    assert!(taken > BODIES / 100 && refused > BODIES / 10, "{taken} taken, {refused} refused");
    server.ok(Method::GET, PODS, Value::Null).await;
}

#[tokio::test]
async fn queries_and_paths_are_refused_or_answered() {
    let server = server().await;
    server.ok(Method::POST, PODS, pod("p")).await;
    let words = [
        "labelSelector",
        "fieldSelector",
        "limit",
        "continue",
        "resourceVersion",
        "=",
        "&",
        "%",
        "%00",
        "%2C",
        "%zz",
        "metadata.name",
        "spec.nodeName",
        "!=",
        " in ",
        "(",
        ")",
        ",",
        "!",
        "a",
        "99999999999999999999",
        "-1",
        "0",
        "resourceVersionMatch=Exact",
        "WzEsImEiLCJiIl0",
        "/",
        "..",
        "?",
        "watch",
        "namespaces",
        "pods",
        "~",
        "\u{e9}",
    ];
    let mut random = Xorshift(0x1234_5678_9abc_def1);
    for _ in 0..BODIES {
        let text: String = (0..random.roll(8)).map(|_| words[random.roll(words.len())]).collect();
        let text = text.replace(' ', "%20");
        let uri = match random.roll(3) {
            0 => format!("/api/v1/pods?{text}"),
            1 => format!("/api/v1/{text}"),
            _ => format!("/apis/{text}"),
        };
        let Ok(request) = Request::builder().uri(&uri).body(Bytes::new()) else { continue };
        let code = server.0.handle(request, &User::default()).await.status().as_u16();
        assert!((200..500).contains(&code), "{code}: {uri}");
    }
}
