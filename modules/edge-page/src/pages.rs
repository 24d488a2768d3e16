//! What is around every page: its head, its style, and the headers of an answer; and the small pages that are not the page. Pure.

use http::{HeaderName, HeaderValue, header};
use https::Answer;

use crate::html::Html;

/// The style, which is all that a browser takes beside the document.
const STYLE: &str = include_str!("style.css");
/// Nothing is loaded, framed, sent or run; `style-src` is the SHA-256 of [`STYLE`], which a test compares.
const POLICY: &str = "default-src 'none'; style-src 'sha256-ILWcgxt72B4NY4JRrM47gNiQrYYuDSjMz4gkLk2bFn8='; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// The headers of every answer.
const HEADERS: [(&str, &str); 8] = [
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cache-control", "no-store"),
    ("vary", "cookie, sec-fetch-site"),
];

/// An answer with them. A connection whose sender is not let in ends with it: its place is for others.
pub(crate) fn guarded(mut answer: Answer, is_in: bool) -> Answer {
    let headers = answer.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    if !is_in {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// A document up to the beginning of its body.
pub(crate) fn begin(title: &str) -> Html {
    let mut html = Html::default();
    html.raw("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>");
    html.text(title).raw("</title><style>").raw(STYLE).raw("</style></head><body>\n");
    html
}

/// The end of a document.
pub(crate) fn end(mut html: Html) -> String {
    html.raw("</body></html>\n");
    html.into_string()
}

/// A page of one sentence.
pub(crate) fn sentence(title: &str, text: &str) -> String {
    let mut html = begin(title);
    html.around("<h1>", title, "</h1><p>").text(text).raw("</p>");
    end(html)
}

/// For who has no credential: how to come by one.
pub(crate) fn how_to_come_in() -> String {
    let mut html = begin("A node's page");
    html.raw(
        "<h1>This is a node's page</h1><p>Run <code>keadm ctl page</code> on the node, as root, and open the URL that it prints. \
         It opens once, within 2 minutes, and then for 12 hours in that browser, or until edgecore starts anew.</p>",
    );
    end(html)
}

/// For a browser that has just come in: it goes on to the page by itself.
pub(crate) fn come_in() -> String {
    let mut html = begin("A node's page");
    html.raw("<h1>The node's page opens</h1><p>If it does not, run <code>keadm ctl page</code> again: this address opens nothing a second time.</p>");
    end(html)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use sha2::{Digest as _, Sha256};

    use super::*;

    #[test]
    fn the_policy_lets_this_style_in_and_nothing_else() {
        let hash = STANDARD.encode(Sha256::digest(STYLE));
        assert!(POLICY.contains(&format!("style-src 'sha256-{hash}'")), "the hash of style.css is {hash}");
        assert!(POLICY.starts_with("default-src 'none'; ") && !POLICY.contains("unsafe"));
        let loads = ["url(", "@import", "image("];
        assert!(loads.iter().all(|word| !STYLE.contains(word)), "it loads nothing");
    }

    #[test]
    fn no_page_has_a_script_or_loads_anything() {
        for page in [how_to_come_in(), come_in(), sentence("<b>", "\"<script>")] {
            let lower = page.to_lowercase();
            for word in ["<script", "javascript:", "src=", "<link", "<img", "http-equiv", "<form"] {
                assert!(!lower.contains(word), "{word}: {page}");
            }
            assert!(page.contains("<title>") && page.ends_with("</html>\n"));
        }
    }
}
