//! `dbMethod.TDEngine`: rows over TDengine's REST interface. The columns are those of KubeEdge's framework; a super table is a device
//! (`NAMESPACE/NAME`, with `_` for `-`), and a table of it is a property.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use beehive::Env;
use bytes::Bytes;
use dmi::v1beta1::DbMethodTdEngine;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use serde::Deserialize;

use crate::push::credentials::Credentials;
use crate::push::endpoint::Endpoint;
use crate::push::post::Posts;
use crate::push::reading::Reading;
use crate::push::stream::Tls;
use crate::push::trouble::{Sent, Trouble};

/// 10 s for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// 512 KiB of SQL: half of what a server takes.
const SQL_MAX: usize = 512 << 10;
/// 64 bytes: the longest name of a database.
const DATABASE_MAX: usize = 64;
/// 192 bytes: the longest name of a table.
const TABLE_MAX: usize = 192;
const SQL: &str = "text/plain; charset=utf-8";
/// Codes that say of a statement that it will never do: a syntax error (of the client, of the parser), a value that is too long, one
/// of another type.
const REFUSED: [i64; 5] = [0x0200, 0x0216, 0x2600, 0x2605, 0x2653];

/// A database.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TdengineTarget {
    endpoint: Endpoint,
    database: String,
}

impl TdengineTarget {
    /// From `dbMethod.TDEngine`.
    pub(crate) fn read(database: &DbMethodTdEngine) -> Result<Self, String> {
        let config = database.td_engine_client_config.clone().unwrap_or_default();
        let (endpoint, login) =
            Endpoint::with_schemes("`addr`", &config.addr, (&["http"], 6041), (&["https"], 6041))?;
        if login.is_some() {
            return Err(
                "`addr` has a login in it; the mapper's environment has USERNAME and PASSWORD".to_owned()
            );
        }
        let name = config.dbname;
        let is_word = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_word || name.is_empty() || name.len() > DATABASE_MAX || name.as_bytes()[0].is_ascii_digit() {
            return Err(format!(
                "`dbName` is no name of a database: letters, digits and _, at most {DATABASE_MAX}, no digit first"
            ));
        }
        Ok(TdengineTarget { endpoint, database: name })
    }

    /// How it is named to people.
    pub(crate) fn shown(&self) -> String {
        format!("{} database {}", self.endpoint, self.database)
    }
}

/// Writes rows.
pub(crate) struct TdengineClient {
    path: String,
    posts: Posts,
    login: Vec<(HeaderName, HeaderValue)>,
    /// The super tables that are there.
    made: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Verdict {
    code: i64,
    #[serde(default)]
    desc: String,
}

impl TdengineClient {
    pub(crate) fn to(target: &TdengineTarget, tls: Tls, credentials: &Credentials) -> Self {
        let login = STANDARD.encode(format!("{}:{}", credentials.username, credentials.password));
        let login = HeaderValue::from_str(&format!("Basic {login}")).ok().map(|mut value| {
            value.set_sensitive(true);
            (AUTHORIZATION, value)
        });
        TdengineClient {
            path: format!("/rest/sql/{}", target.database),
            posts: Posts::to(target.endpoint.clone(), tls, ANSWER_WITHIN),
            login: login.into_iter().collect(),
            made: BTreeSet::new(),
        }
    }

    pub(crate) async fn send(&mut self, batch: &[&Reading], env: &Env) -> Sent {
        let (mut insert, mut count) = ("INSERT INTO".to_owned(), 0);
        for reading in batch {
            let (table, row) = match row(reading) {
                Ok(row) => row,
                Err(reason) if count == 0 => {
                    return Sent { taken: 0, trouble: Some(Trouble::Refused(reason)) };
                }
                Err(_) => break,
            };
            if !self.made.contains(&table) {
                // What a device has told before is not to be lost for it.
                match self.query(super_table(&table), env).await {
                    Ok(()) => drop(self.made.insert(table)),
                    Err(trouble) => return Sent { taken: 0, trouble: Some(trouble) },
                }
            }
            insert.push_str(&row);
            count += 1;
            if insert.len() > SQL_MAX {
                break;
            }
        }
        let outcome = self.query(insert, env).await.map_err(|trouble| match trouble {
            Trouble::Refused(reason) => Trouble::OneRefused(reason),
            other => other,
        });
        if outcome.is_err() {
            // Somebody may have dropped a table.
            self.made.clear();
        }
        Sent::all(count, outcome)
    }

    async fn query(&mut self, sql: String, env: &Env) -> Result<(), Trouble> {
        let answer = self.posts.post(&self.path, &self.login, SQL, &Bytes::from(sql), env).await?;
        let verdict: Option<Verdict> =
            answer.body.as_deref().and_then(|body| serde_json::from_slice(body).ok());
        match verdict {
            Some(Verdict { code: 0, .. }) if answer.status.is_success() => Ok(()),
            Some(Verdict { code, desc }) if code != 0 => {
                let desc: String = desc.chars().take(200).collect();
                let reason = format!("it answers code 0x{code:x}: {desc}");
                Err(if REFUSED.contains(&code) { Trouble::Refused(reason) } else { Trouble::Away(reason) })
            }
            _ => {
                answer.taken()?;
                Err(Trouble::Away("what answers is no TDengine: it has no code".to_owned()))
            }
        }
    }
}

fn super_table(name: &str) -> String {
    format!(
        "CREATE STABLE IF NOT EXISTS {name} (ts TIMESTAMP, deviceid BINARY(512), propertyname BINARY(256), data BINARY(8192), \
         type BINARY(64)) TAGS (location BINARY(256))"
    )
}

/// The super table of a reading, and its part of a statement that inserts.
fn row(reading: &Reading) -> Result<(String, String), String> {
    let device = format!("{}/{}", reading.device.namespace, reading.device.name);
    let super_table = identifier(&device)?;
    let table = identifier(&format!("{device}/{}", reading.property))?;
    let property = quoted(&reading.property);
    let row = format!(
        " {table} USING {super_table} TAGS ({property}) VALUES ('{}', {}, {property}, {}, '{}')",
        reading.formatted("%Y-%m-%dT%H:%M:%S.%3fZ"),
        quoted(&device),
        quoted(&reading.value.to_string()),
        reading.value.kind().twin_type(),
    );
    Ok((super_table, row))
}

/// A name between backticks, in which nothing is special but those.
fn identifier(name: &str) -> Result<String, String> {
    let name = name.replace('-', "_");
    if name.len() > TABLE_MAX || name.chars().any(|letter| letter == '`' || letter.is_control()) {
        return Err(format!("`{name}` is no name of a table: at most {TABLE_MAX} bytes, without backticks"));
    }
    Ok(format!("`{name}`"))
}

/// A text between quotes.
fn quoted(text: &str) -> String {
    let mut quoted = "'".to_owned();
    for letter in text.chars() {
        match letter {
            '\'' | '\\' | '"' => quoted.extend(['\\', letter]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            // No statement can carry it.
            '\0' => {}
            _ => quoted.push(letter),
        }
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::reading::reading;
    use crate::value::Value;
    use dmi::v1beta1::TdEngineClientConfig;

    fn read(addr: &str, dbname: &str) -> Result<String, String> {
        let config = TdEngineClientConfig { addr: addr.to_owned(), dbname: dbname.to_owned() };
        let read = TdengineTarget::read(&DbMethodTdEngine { td_engine_client_config: Some(config) });
        read.map(|target| target.shown())
    }

    #[test]
    fn a_database_is_named_and_nothing_else() {
        assert_eq!(read("127.0.0.1:6041", "power"), Ok("127.0.0.1:6041 database power".to_owned()));
        assert_eq!(read("https://h", "p_1"), Ok("h:6041 database p_1".to_owned()));
        for (addr, dbname, said) in [
            ("", "p", "`addr` is missing"),
            ("u:p@h", "p", "USERNAME"),
            ("h", "", "`dbName`"),
            ("h", "p;drop database q", "`dbName`"),
            ("h", "1p", "`dbName`"),
            ("h", "p/../q", "`dbName`"),
        ] {
            let refusal = read(addr, dbname).unwrap_err();
            assert!(refusal.contains(said), "{refusal}");
        }
    }

    #[test]
    fn a_row_has_kubeedges_columns_and_its_texts_end_where_they_end() {
        let (table, row) = row(&reading("my-level", Value::Int(9_007_199_254_740_993))).unwrap();
        assert_eq!(table, "`default/pump`");
        assert_eq!(
            row,
            " `default/pump/my_level` USING `default/pump` TAGS ('my-level') VALUES ('2026-11-29T10:20:30.123Z', \
             'default/pump', 'my-level', '9007199254740993', 'int')"
        );
        assert_eq!(quoted("a'); DROP DATABASE x; --\\\n"), r"'a\'); DROP DATABASE x; --\\\n'");
        let refusal = super::row(&reading("x` USING y", Value::Int(1))).unwrap_err();
        assert!(refusal.contains("no name of a table"), "{refusal}");
    }
}
