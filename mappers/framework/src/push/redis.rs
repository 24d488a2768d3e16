//! `dbMethod.redis`: each reading is a member of the sorted set that is called as the device, its score the time in milliseconds, its
//! text JSON, as KubeEdge's framework writes it.

use std::time::Duration;

use beehive::Env;
use dmi::v1beta1::DbMethodRedis;
use futures::future::AbortHandle;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, RedisConnectionInfo, RedisError, ServerErrorKind};
use serde::Serialize;

use crate::push::credentials::Credentials;
use crate::push::endpoint::Endpoint;
use crate::push::reading::Reading;
use crate::push::resp::Lines;
use crate::push::stream::{Tls, dial};
use crate::push::trouble::{Sent, Trouble};

/// 10 s for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// 64 readings in one transaction.
const PIPELINE_MAX: usize = 64;

/// A database.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RedisTarget {
    endpoint: Endpoint,
    database: i32,
}

impl RedisTarget {
    /// From `dbMethod.redis`.
    pub(crate) fn read(database: &DbMethodRedis, warnings: &mut Vec<String>) -> Result<Self, String> {
        let config = database.redis_client_config.clone().unwrap_or_default();
        let (endpoint, login) =
            Endpoint::with_schemes("`addr`", &config.addr, (&["redis"], 6379), (&["rediss"], 6379))?;
        if login.is_some() {
            return Err("`addr` has a login in it; the mapper's environment has PASSWORD".to_owned());
        }
        if config.db < 0 {
            return Err(format!("`db` is {}; databases count from 0", config.db));
        }
        if config.poolsize > 1 || config.min_idle_conns > 1 {
            warnings.push(
                "dbMethod.redis: one connection serves all; poolSize and minIdleConns have no effect"
                    .to_owned(),
            );
        }
        Ok(RedisTarget { endpoint, database: config.db })
    }

    /// How it is named to people.
    pub(crate) fn shown(&self) -> String {
        format!("{} database {}", self.endpoint, self.database)
    }
}

/// The fields of KubeEdge's data model, in their order.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Member<'a> {
    device_name: &'a str,
    property_name: &'a str,
    namespace: &'a str,
    value: String,
    #[serde(rename = "Type")]
    kind: &'static str,
    time_stamp: u64,
}

/// Adds to sorted sets.
pub(crate) struct RedisClient {
    target: RedisTarget,
    tls: Tls,
    password: String,
    connection: Option<Connection>,
}

struct Connection {
    commands: MultiplexedConnection,
    driver: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl RedisClient {
    pub(crate) fn to(target: &RedisTarget, tls: Tls, credentials: &Credentials) -> Self {
        RedisClient { target: target.clone(), tls, password: credentials.password.clone(), connection: None }
    }

    pub(crate) async fn send(&mut self, batch: &[&Reading], env: &Env) -> Sent {
        let mut pipeline = redis::pipe();
        // All or none: what is sent again is not there already.
        pipeline.atomic();
        let count = batch.len().min(PIPELINE_MAX);
        for reading in batch.iter().take(count) {
            let (member, score) = match member(reading) {
                Ok(member) => member,
                Err(reason) => return Sent { taken: 0, trouble: Some(Trouble::OneRefused(reason)) },
            };
            pipeline.zadd(&reading.device.name, member, score).ignore();
        }
        let was_kept = self.connection.is_some();
        let mut outcome = self.once(&pipeline, env).await;
        if matches!(outcome, Err(Trouble::Away(_))) && was_kept {
            // It was closed while it was idle, or the server has started anew.
            outcome = self.once(&pipeline, env).await;
        }
        Sent::all(count, outcome)
    }

    async fn once(&mut self, pipeline: &redis::Pipeline, env: &Env) -> Result<(), Trouble> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect(env).await.map_err(Trouble::Away)?,
        };
        match env.timeout(ANSWER_WITHIN, pipeline.query_async::<()>(&mut connection.commands)).await {
            Some(Ok(())) => {
                self.connection = Some(connection);
                Ok(())
            }
            Some(Err(error)) => Err(trouble(&error)),
            None => Err(Trouble::Away(format!("no answer within {} s", ANSWER_WITHIN.as_secs()))),
        }
    }

    async fn connect(&self, env: &Env) -> Result<Connection, String> {
        let stream = Lines::of(dial(&self.target.endpoint, &self.tls, env).await?, PIPELINE_MAX);
        let mut info =
            RedisConnectionInfo::default().set_db(i64::from(self.target.database)).set_skip_set_lib_name();
        if !self.password.is_empty() {
            info = info.set_password(&self.password);
        }
        // The time is ours to keep: the hive has its own clock.
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
        let opening = async {
            let made = MultiplexedConnection::new_with_config(&info, stream, config).await;
            made.map_err(|error| format!("it refuses the connection: {}", said(&error)))
        };
        let opened = env.timeout(ANSWER_WITHIN, opening).await;
        let (commands, driver) =
            opened.unwrap_or_else(|| Err("it takes the connection and says nothing".to_owned()))?;
        let (driver, handle) = futures::future::abortable(driver);
        env.spawn(async move {
            let _ = driver.await;
        });
        Ok(Connection { commands, driver: handle })
    }
}

#[allow(clippy::cast_precision_loss)]
fn member(reading: &Reading) -> Result<(String, f64), String> {
    let millis = u64::try_from(reading.since_1970().as_millis()).unwrap_or(u64::MAX);
    let member = serde_json::to_string(&Member {
        device_name: &reading.device.name,
        property_name: &reading.property,
        namespace: &reading.device.namespace,
        value: reading.value.to_string(),
        kind: reading.value.kind().twin_type(),
        time_stamp: millis,
    });
    Ok((member.map_err(|error| error.to_string())?, millis as f64))
}

fn said(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    }
}

/// What a key of another type answers is about that reading; the rest passes, or is mended at the server.
fn trouble(error: &RedisError) -> Trouble {
    let reason = said(error);
    let is_about_it = error.code() == Some("WRONGTYPE")
        || matches!(error.kind(), ErrorKind::Server(ServerErrorKind::ExecAbort))
            && reason.contains("WRONGTYPE");
    if is_about_it { Trouble::OneRefused(reason) } else { Trouble::Away(reason) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::reading::reading;
    use crate::value::Value;
    use dmi::v1beta1::RedisClientConfig;

    #[test]
    fn an_address_and_a_database_are_read() {
        let read = |addr: &str, db, poolsize| {
            let config = RedisClientConfig { addr: addr.to_owned(), db, poolsize, min_idle_conns: 0 };
            let mut warnings = Vec::new();
            let read = RedisTarget::read(&DbMethodRedis { redis_client_config: Some(config) }, &mut warnings);
            (read.map(|target| target.shown()), warnings.len())
        };
        assert_eq!(read("127.0.0.1:6379", 0, 0), (Ok("127.0.0.1:6379 database 0".to_owned()), 0));
        assert_eq!(read("rediss://h", 3, 30), (Ok("h:6379 database 3".to_owned()), 1));
        assert!(read("", 0, 0).0.unwrap_err().contains("`addr` is missing"));
        assert!(read("redis://:p@h", 0, 0).0.unwrap_err().contains("PASSWORD"));
        assert!(read("h", -1, 0).0.unwrap_err().contains("`db`"));
    }

    #[test]
    fn a_member_is_kubeedges_json() {
        let (member, score) = member(&reading("a\"b", Value::Int(9_007_199_254_740_993))).unwrap();
        assert_eq!(
            member,
            r#"{"DeviceName":"pump","PropertyName":"a\"b","Namespace":"default","Value":"9007199254740993","Type":"int","TimeStamp":1795947630123}"#
        );
        assert!((score - 1_795_947_630_123.0).abs() < 0.5);
    }
}
