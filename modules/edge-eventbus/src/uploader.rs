//! What clients publish for the cloud, without the broker around it: for whoever leaves MQTT itself outside.

use std::rc::Rc;

use beehive::{Address, Env};
use bytes::Bytes;
use contract::metamanager::MetaMsg;
use edge_store::{OutboxQueue, Store};

use crate::plan;
use crate::upload_sources::UploadSource;
use crate::uploads::{self, Upload, UploadOrder, Uploads};

/// The way into the outbox that the broker's own connections take.
#[derive(Clone, Default)]
pub struct Uploader(Rc<Uploads>);

impl Uploader {
    /// Brings into the outbox of `store` what comes, and tells `meta`. Runs until it is dropped.
    pub fn keep(&self, env: Env, store: Store, meta: Address<MetaMsg>) -> impl Future<Output = ()> + 'static {
        uploads::keep(Rc::clone(&self.0), env, store, meta)
    }

    /// A connection of a client. Once a message of QoS 1 was refused on it, nothing behind it is taken: the broker closes
    /// such a connection, and the client sends again over the next.
    pub fn connect(&self, client: &str) -> Publisher {
        Publisher { uploads: Rc::clone(&self.0), client: client.into(), line: Rc::default() }
    }
}

/// See [`Uploader::connect`].
pub struct Publisher {
    uploads: Rc<Uploads>,
    client: Rc<str>,
    line: Rc<UploadOrder>,
}

impl Publisher {
    /// Publishes with QoS 1. `Ok` comes after the commit, as the PUBACK does.
    ///
    /// # Errors
    /// Why it was not kept.
    pub async fn publish(&self, topic: &str, payload: Bytes, dup: bool) -> Result<(), String> {
        if !plan::is_for_the_cloud(topic) {
            return Err(format!("`{topic}` is not for the cloud"));
        }
        let room = self.uploads.room(&self.client, topic.len() + payload.len()).await;
        let source = UploadSource { client: Rc::clone(&self.client), topic: topic.into() };
        let (queue, line) = (OutboxQueue::Telemetry, Rc::clone(&self.line));
        let item = Upload { source, queue, payload, qos: 1, dup, line, room };
        let told = self.uploads.put(item);
        match told.await {
            Ok(outcome) => outcome.map_err(|why| why.to_string()),
            Err(_) => Err("nobody brings it into the outbox".to_owned()),
        }
    }
}
