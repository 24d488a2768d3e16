//! Names: what the servers of the resolver's file say, and whether the machine finds the names that it needs. The verdicts are pure.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use beehive::{Env, Thread};
use nodechecks::resolver::servers;
use nodechecks::{Finding, Host};
use tokio::sync::oneshot;

use super::dns_query::{self, Said};
use crate::store::plain;

const SERVERS: &str = "DnsServers";
const NAMES: &str = "Names";
/// 5 s for the C library's search, which waits as long for one server that is away.
const FOUND_WITHIN: Duration = Duration::from_secs(5);
const DEFAULT: &str = "/etc/resolv.conf";

/// Asks the machine's own servers, or that one, for a name; without one whether they answer at all. `None`: there is none to ask, and no name
/// to ask for.
pub(super) async fn ask_servers(
    host: &Host,
    told: Option<IpAddr>,
    name: Option<&str>,
    tries: usize,
    env: &Env,
) -> Option<Finding> {
    let servers = match told {
        Some(server) => vec![server],
        None => servers(&host.text(DEFAULT)),
    };
    if servers.is_empty() && name.is_none() {
        // What is wrong with the file is said of it.
        return None;
    }
    // Every server has an answer to that one.
    let asked_for = name.unwrap_or("localhost");
    let mut asked = Vec::new();
    for server in servers {
        asked.push(async move {
            (server, dns_query::ask(SocketAddr::new(server, dns_query::PORT), asked_for, tries, env).await)
        });
    }
    let said = futures::future::join_all(asked).await;
    Some(of_servers(&said, name, told.is_some()))
}

/// One of several is enough, and the first of them is the one that is asked.
fn of_servers(said: &[(IpAddr, std::io::Result<Said>)], name: Option<&str>, is_told: bool) -> Finding {
    if said.is_empty() {
        return Finding::warned(SERVERS, format!("{DEFAULT} names no server (`nameserver ADDRESS`)"));
    }
    let is_asked_for = name.is_some();
    let name = name.map(plain).unwrap_or_default();
    let words = said.iter().map(|(server, said)| match said {
        Ok(Said::Known(_) | Said::Unknown | Said::Refused(_)) if !is_asked_for => format!("{server} answers"),
        Ok(Said::Known(_)) => format!("{server} knows {name}"),
        Ok(Said::Unknown) => format!("{server} answers, and knows no {name}"),
        Ok(Said::Refused(code)) => format!("{server} refuses to say (code {code})"),
        Ok(Said::Silent) => format!("{server} says nothing"),
        Err(error) => format!("{server} cannot be asked ({error})"),
    });
    let words = words.collect::<Vec<_>>().join("; ");
    let answers = said.iter().any(|(_, said)| match said {
        Ok(Said::Known(_) | Said::Unknown) => true,
        Ok(Said::Refused(_)) => !is_asked_for,
        Ok(Said::Silent) | Err(_) => false,
    });
    let knows = said.iter().any(|(_, said)| matches!(said, Ok(Said::Known(_))));
    let cure = "names outside of /etc/hosts, as those of registries, are not found; name another in /etc/resolv.conf, or let UDP to port 53 pass";
    match (answers, knows) {
        (true, _) if !is_asked_for => Finding::passed(SERVERS, words),
        (true, true) => Finding::passed(SERVERS, words),
        // The machine may have it from /etc/hosts.
        (true, false) if !is_told => {
            Finding::warned(SERVERS, format!("{words}: is it written as the servers know it?"))
        }
        (true, false) => Finding::failed(SERVERS, format!("{words}: is it written as the server knows it?")),
        (false, _) if !is_told => Finding::warned(SERVERS, format!("{words}: {cure}")),
        (false, _) => Finding::failed(SERVERS, format!("{words}: {cure}")),
    }
}

/// Whether the machine finds these names, by `/etc/hosts` and its servers, as edgecore does.
pub(super) async fn find(names: &[String], env: &Env) -> Finding {
    let found = names.iter().map(|name| async move { (name.as_str(), addresses(name, env).await) });
    of_names(&futures::future::join_all(found).await)
}

/// By the C library, on a thread that nobody waits for: it cannot be stopped, and may take longer than anybody wants.
///
/// # Errors
/// A few words on why it is not found.
pub(super) async fn addresses(name: &str, env: &Env) -> Result<Vec<IpAddr>, String> {
    let (tell, told) = oneshot::channel();
    let of = name.to_owned();
    let search = move || {
        let found = std::net::ToSocketAddrs::to_socket_addrs(&(of.as_str(), 0));
        let found =
            found.map(|all| all.map(|address| address.ip()).collect()).map_err(|error| error.to_string());
        // Nobody may wait any more.
        drop(tell.send(found));
    };
    let thread = Thread::start("name search", search).map_err(|error| error.to_string())?;
    let found = env.timeout(FOUND_WITHIN, told).await;
    drop(thread);
    match found {
        Some(Ok(found)) => found,
        Some(Err(_)) => Err("the search broke off".to_owned()),
        None => Err(format!("the servers say nothing within {} s", FOUND_WITHIN.as_secs())),
    }
}

fn of_names(found: &[(&str, Result<Vec<IpAddr>, String>)]) -> Finding {
    let missing: Vec<String> = found
        .iter()
        .filter_map(|(name, found)| {
            Some(format!("{} is not found ({})", plain(name), plain(found.as_ref().err()?)))
        })
        .collect();
    if !missing.is_empty() {
        return Finding::failed(
            NAMES,
            format!(
                "{}: look at /etc/resolv.conf, write the name into /etc/hosts, or join by an address",
                missing.join("; ")
            ),
        );
    }
    let words = found.iter().map(|(name, found)| {
        let mut found: Vec<String> =
            found.as_deref().unwrap_or_default().iter().map(ToString::to_string).collect();
        found.dedup();
        format!("{} is {}", plain(name), found.join(", "))
    });
    Finding::passed(NAMES, words.collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use nodechecks::Grade::{Failed, Passed, Warned};

    use super::*;
    use crate::debug::testing::grade;

    #[test]
    fn one_server_that_knows_is_enough() {
        let of = |said: &[Said], is_told: bool| {
            let at = |at: usize| IpAddr::from([192, 0, 2, u8::try_from(at).unwrap()]);
            let said: Vec<_> = said.iter().enumerate().map(|(each, said)| (at(each), Ok(*said))).collect();
            (of_servers(&said, Some("cloud.example"), is_told), of_servers(&said, None, is_told))
        };
        grade(
            &of(&[Said::Silent, Said::Known(1)], false).0,
            Passed,
            "192.0.2.0 says nothing; 192.0.2.1 knows",
        );
        grade(&of(&[Said::Unknown], false).0, Warned, "knows no cloud.example");
        grade(&of(&[Said::Unknown], true).0, Failed, "knows no cloud.example");
        grade(&of(&[Said::Refused(5), Said::Silent], true).0, Failed, "port 53");
        grade(&of(&[], false).0, Warned, "names no server");
        // Without a name it counts that they answer.
        grade(&of(&[Said::Unknown], false).1, Passed, "192.0.2.0 answers");
        grade(&of(&[Said::Silent, Said::Refused(5)], true).1, Passed, "192.0.2.1 answers");
        grade(&of(&[Said::Silent], false).1, Warned, "192.0.2.0 says nothing: names outside of /etc/hosts");
    }

    #[actix_rt::test]
    async fn servers_are_asked_also_where_no_name_is_known_that_is_to_be_found() {
        let (env, folder) = (Env::real(), tempfile::tempdir().unwrap());
        let host = Host::in_folder(folder.path());
        assert!(ask_servers(&host, None, None, 1, &env).await.is_none(), "there is none");
        std::fs::create_dir_all(folder.path().join("etc")).unwrap();
        // An address of this machine's that has no name server.
        std::fs::write(folder.path().join("etc/resolv.conf"), "nameserver 127.9.9.9\n").unwrap();
        grade(&ask_servers(&host, None, None, 1, &env).await.unwrap(), Warned, "127.9.9.9 ");
    }

    #[actix_rt::test]
    async fn a_name_that_nobody_knows_is_said_in_time() {
        let env = Env::real();
        let begun = env.now();
        let names = ["localhost".to_owned(), "no-such-host.invalid".to_owned()];
        let found = find(&names, &env).await;
        grade(&found, Failed, "no-such-host.invalid is not found");
        assert!(env.now().since(begun) < FOUND_WITHIN * 2);
        grade(&find(&names[..1], &env).await, Passed, "localhost is ");
    }
}
