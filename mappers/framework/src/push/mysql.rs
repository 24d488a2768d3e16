//! `dbMethod.mysql`: each property has a table `NAMESPACE/DEVICE/PROPERTY` with the columns of KubeEdge's framework: `id`, `ts` to the
//! second, `field` as text.

mod login;
mod session;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use beehive::Env;
use dmi::v1beta1::DbMethodMySql;
use httpclient::tls::Stream;

use crate::push::credentials::Credentials;
use crate::push::endpoint::Endpoint;
use crate::push::mysql::login::Login;
use crate::push::mysql::session::{Refusal, Session};
use crate::push::reading::Reading;
use crate::push::stream::{Tls, dial};
use crate::push::trouble::{Sent, Trouble};

/// 10 s for a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// 20 s for a batch.
const BATCH_WITHIN: Duration = Duration::from_secs(20);
/// 64 letters: the longest name of a table or a database.
const NAME_MAX: usize = 64;
/// What a server says of a value that its column will never take: too long, a wrong string, out of range, a wrong value.
const REFUSED: [u16; 4] = [1406, 1366, 1264, 1292];
/// There is no such table.
const NO_TABLE: u16 = 1146;

/// A database.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MysqlTarget {
    endpoint: Endpoint,
    database: String,
    user: String,
}

impl MysqlTarget {
    /// From `dbMethod.mysql`.
    pub(crate) fn read(database: &DbMethodMySql) -> Result<Self, String> {
        let config = database.mysql_client_config.clone().unwrap_or_default();
        let (endpoint, login) =
            Endpoint::with_schemes("`addr`", &config.addr, (&["mysql", "tcp"], 3306), (&[], 0))?;
        if login.is_some() {
            return Err("`addr` has a login in it; write `userName`, the mapper's environment has PASSWORD"
                .to_owned());
        }
        for (key, value) in [("database", &config.database), ("userName", &config.user_name)] {
            if value.is_empty() || value.chars().count() > NAME_MAX || value.chars().any(char::is_control) {
                return Err(format!("`{key}` is missing, or no name: at most {NAME_MAX} letters"));
            }
        }
        Ok(MysqlTarget { endpoint, database: config.database, user: config.user_name })
    }

    /// How it is named to people.
    pub(crate) fn shown(&self) -> String {
        format!("{} database {}", self.endpoint, self.database)
    }
}

/// Inserts rows.
pub(crate) struct MysqlClient {
    endpoint: Endpoint,
    login: Login,
    connection: Option<Session<Stream>>,
    /// The tables that are there.
    made: BTreeSet<String>,
}

impl MysqlClient {
    pub(crate) fn to(target: &MysqlTarget, credentials: &Credentials) -> Self {
        let login = Login {
            user: target.user.clone(),
            password: credentials.password.clone(),
            database: target.database.clone(),
        };
        MysqlClient { endpoint: target.endpoint.clone(), login, connection: None, made: BTreeSet::new() }
    }

    pub(crate) async fn send(&mut self, batch: &[&Reading], env: &Env) -> Sent {
        let mut rows: Vec<(String, &Reading)> = Vec::new();
        let mut trouble = None;
        for reading in batch {
            match table(reading) {
                Ok(table) => rows.push((table, reading)),
                Err(reason) => {
                    trouble = Some(Trouble::Refused(reason));
                    break;
                }
            }
        }
        if rows.is_empty() {
            return Sent { taken: 0, trouble };
        }
        let was_kept = self.connection.is_some();
        let mut outcome = self.once(&rows, env).await;
        if matches!(outcome, Err(Trouble::Away(_))) && was_kept {
            // It was closed while it was idle, or the server has started anew, or a table was dropped.
            outcome = self.once(&rows, env).await;
        }
        match outcome {
            Ok(()) => Sent { taken: rows.len(), trouble },
            Err(trouble) => Sent { taken: 0, trouble: Some(trouble) },
        }
    }

    async fn once(&mut self, rows: &[(String, &Reading)], env: &Env) -> Result<(), Trouble> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect(env).await.map_err(Trouble::Away)?,
        };
        match env.timeout(BATCH_WITHIN, insert(&mut connection, rows, &mut self.made)).await {
            Some(Ok(())) => {
                self.connection = Some(connection);
                Ok(())
            }
            Some(Err(Refusal::Said(code, message))) => {
                if code == NO_TABLE {
                    self.made.clear();
                }
                let reason = said(code, &message);
                if !REFUSED.contains(&code) {
                    return Err(Trouble::Away(reason));
                }
                // What was before it in the transaction comes again.
                if env.timeout(BATCH_WITHIN, connection.run("ROLLBACK")).await == Some(Ok(())) {
                    self.connection = Some(connection);
                }
                Err(Trouble::OneRefused(reason))
            }
            Some(Err(Refusal::Broken(why))) => Err(Trouble::Away(why)),
            None => Err(Trouble::Away(format!("no answer within {} s", BATCH_WITHIN.as_secs()))),
        }
    }

    async fn connect(&self, env: &Env) -> Result<Session<Stream>, String> {
        // An address of MySQL is never one with TLS.
        let stream = dial(&self.endpoint, &Tls::default(), env).await?;
        match env.timeout(CONNECT_WITHIN, Session::open(stream, &self.login)).await {
            Some(Ok(connection)) => Ok(connection),
            Some(Err(Refusal::Said(code, message))) => {
                Err(format!("no connection: {}", said(code, &message)))
            }
            Some(Err(Refusal::Broken(why))) => Err(format!("no connection: {why}")),
            None => Err(format!("no connection within {} s", CONNECT_WITHIN.as_secs())),
        }
    }
}

fn said(code: u16, message: &str) -> String {
    format!("it answers {message} ({code})")
}

/// In one transaction: what is sent again is not there already, unless the answer to its end was lost.
async fn insert(
    connection: &mut Session<Stream>,
    rows: &[(String, &Reading)],
    made: &mut BTreeSet<String>,
) -> Result<(), Refusal> {
    for (table, _) in rows {
        if !made.contains(table) {
            let columns = "id INT AUTO_INCREMENT PRIMARY KEY, ts DATETIME NOT NULL, field TEXT";
            connection.run(&format!("CREATE TABLE IF NOT EXISTS {table} ({columns})")).await?;
            made.insert(table.clone());
        }
    }
    connection.run("START TRANSACTION").await?;
    for (table, reading) in rows {
        connection.run(&row(table, reading)).await?;
    }
    connection.run("COMMIT").await
}

/// The statement of a row. A text is its bytes in hexadecimal, in which nothing is special whatever the server's `sql_mode`.
fn row(table: &str, reading: &Reading) -> String {
    let at = reading.seconds();
    let mut statement = format!("INSERT INTO {table} (ts, field) VALUES ('{at}', _utf8mb4 X'");
    for byte in reading.value.to_string().bytes() {
        // Into a text nothing fails.
        let _ = write!(statement, "{byte:02X}");
    }
    statement.push_str("')");
    statement
}

/// A table between backticks, in which nothing is special but those.
fn table(reading: &Reading) -> Result<String, String> {
    let name = format!("{}/{}/{}", reading.device.namespace, reading.device.name, reading.property);
    let is_name = name.chars().count() <= NAME_MAX
        && !name.ends_with(' ')
        && name.chars().all(|letter| !letter.is_control() && letter != '`' && u32::from(letter) <= 0xFFFF);
    if !is_name {
        return Err(format!("`{name}` is no name of a table: at most {NAME_MAX} letters, without backticks"));
    }
    Ok(format!("`{name}`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::reading::reading;
    use crate::value::Value;
    use dmi::v1beta1::MySqlClientConfig;

    #[test]
    fn a_database_and_a_user_are_read() {
        let read = |addr: &str, database: &str, user: &str| {
            let config = MySqlClientConfig {
                addr: addr.to_owned(),
                database: database.to_owned(),
                user_name: user.to_owned(),
            };
            let read = MysqlTarget::read(&DbMethodMySql { mysql_client_config: Some(config) });
            read.map(|target| target.shown())
        };
        assert_eq!(read("127.0.0.1:3307", "plant", "u"), Ok("127.0.0.1:3307 database plant".to_owned()));
        for (addr, database, user, said) in [
            ("", "d", "u", "`addr` is missing"),
            ("u:p@h", "d", "u", "`userName`"),
            ("h", "", "u", "`database`"),
            ("h", "d\n", "u", "`database`"),
            ("h", "d", "", "`userName`"),
        ] {
            let refusal = read(addr, database, user).unwrap_err();
            assert!(refusal.contains(said), "{refusal}");
        }
    }

    #[test]
    fn a_row_has_a_time_and_a_text_in_which_nothing_is_special() {
        let strange = reading("level", Value::Text("'\\ü".to_owned()));
        assert_eq!(
            row("`t`", &strange),
            "INSERT INTO `t` (ts, field) VALUES ('2026-11-29 10:20:30', _utf8mb4 X'275CC3BC')"
        );
    }

    #[test]
    fn a_table_is_a_property_and_a_strange_name_is_refused() {
        assert_eq!(table(&reading("my-level", Value::Int(1))), Ok("`default/pump/my-level`".to_owned()));
        for property in ["a` (id INT); DROP TABLE x; --", "a\0", &"x".repeat(64), "🐝"] {
            assert!(table(&reading(property, Value::Int(1))).is_err(), "{property}");
        }
    }
}
