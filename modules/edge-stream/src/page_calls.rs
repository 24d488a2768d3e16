//! The node's page, for who has come to edgecore's own socket: `POST /api/v1/page/invitation` is answered with a URL that opens it once
//! in a browser, `GET /page.json` with what stands on it.

use std::time::Duration;

use beehive::Address;
use bytes::Bytes;
use contract::edgepage::{EdgePageMsg, NoPage, PageForm};
use http::StatusCode;
use https::{Answer, body};

/// 8 s: a page has 2 s for each of those who are asked, and is written down then.
const WITHIN: Duration = Duration::from_secs(8);

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageCall {
    Invitation,
    Json,
}

/// Which it is that a request asks for.
pub(crate) fn of_request(method: &str, path: &str) -> Option<PageCall> {
    match (method, path) {
        ("POST", "/api/v1/page/invitation") => Some(PageCall::Invitation),
        ("GET", "/page.json") => Some(PageCall::Json),
        _ => None,
    }
}

/// Asks the page.
pub(crate) async fn answer(page: Option<&Address<EdgePageMsg>>, call: PageCall) -> Answer {
    let Some(page) = page else { return refused(&NoPage::Off) };
    let asked = match call {
        PageCall::Invitation => {
            let url = page.ask(WITHIN, |reply| EdgePageMsg::Invite { reply }).await;
            url.map(|url| url.map(|url| ("text/plain; charset=utf-8", Bytes::from(url))))
        }
        PageCall::Json => {
            let made = page.ask(WITHIN, |reply| EdgePageMsg::View { form: PageForm::Json, reply }).await;
            made.map(|made| made.map(|json| ("application/json", json)))
        }
    };
    match asked {
        Ok(Ok((content_type, bytes))) => body::answer(StatusCode::OK, content_type, bytes),
        Ok(Err(reason)) => refused(&reason),
        Err(error) => {
            let text = format!("the node's page does not answer: {error}");
            body::sentence(StatusCode::SERVICE_UNAVAILABLE, text)
        }
    }
}

fn refused(reason: &NoPage) -> Answer {
    let status = match reason {
        NoPage::Off => StatusCode::NOT_FOUND,
        NoPage::NotServed(_) | NoPage::Busy => StatusCode::SERVICE_UNAVAILABLE,
    };
    body::sentence(status, reason.to_string())
}
