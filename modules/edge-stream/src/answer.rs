//! How a call is answered, wherever it comes from.

use std::fs::File;

use crate::budget::BudgetPermit;
use crate::error::Refusal;
use crate::log::instance::Instance;
use crate::log::options::LogOptions;
use crate::pod_list::PodList;
use crate::upgrade::Upgraded;

/// An answer's head and what is to come behind it.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Body,
    /// What a whole body counts as until it is taken; `None`: it is small.
    pub(crate) held: Option<BudgetPermit>,
}

/// What comes behind an answer's head.
#[derive(Debug)]
pub(crate) enum Body {
    Whole(Vec<u8>),
    /// The node's pods, one after the other.
    Pods(Box<PodList>),
    /// The log of an instance of a container.
    Log(Instance, LogOptions),
    /// So many bytes of a file.
    Content(File, u64),
    /// The bytes of a connection to the runtime.
    Upgraded(Box<Upgraded>),
}

impl Reply {
    pub(crate) fn new(content_type: &str, bytes: impl Into<Vec<u8>>) -> Reply {
        Reply { status: 200, headers: Vec::new(), body: Body::Whole(bytes.into()), held: None }
            .with("content-type", content_type)
    }

    pub(crate) fn text(text: impl Into<String>) -> Reply {
        Reply::new("text/plain; charset=utf-8", text.into())
    }

    pub(crate) fn json(bytes: impl Into<Vec<u8>>) -> Reply {
        Reply::new("application/json", bytes)
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Reply {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

impl Reply {
    /// What refuses an upgrade is said so that client-go can read it ([`apimachinery::upgrade_refused`]).
    pub(crate) fn refuse_upgrade(&mut self) {
        let (400.., Body::Whole(text)) = (self.status, &self.body) else { return };
        let (content_type, body) = apimachinery::upgrade_refused(self.status, &String::from_utf8_lossy(text));
        self.body = Body::Whole(body.into_bytes());
        self.headers.retain(|(name, _)| name != "content-type");
        self.headers.push(("content-type".to_owned(), content_type.to_owned()));
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Reply {
        let Refusal { status, text, headers } = refusal;
        let mut reply = Reply::text(text);
        reply.status = status;
        // What the runtime says of its body counts.
        if headers.iter().any(|(name, _)| name == "content-type") {
            reply.headers.clear();
        }
        reply.headers.extend(headers);
        reply
    }
}
