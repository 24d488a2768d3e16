//! What CloudCore looks at of itself when it starts, and would work without: said in the log and in `/healthz` by a name, with the cure. What it does not
//! work without ends the start: see [`crate::start_error`]. Pure.

use std::net::IpAddr;

use config::cloud::CloudHub as Settings;

/// Whether an address leads other machines here.
fn is_elsewhere(address: &str) -> bool {
    address.parse::<IpAddr>().is_ok_and(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

/// The hosts of the settings at which nodes on other machines find CloudCore, for which its certificate is made.
pub(crate) fn servers(hub: &Settings) -> Vec<String> {
    let names = hub.dns_names.iter().filter(|name| !name.starts_with('*'));
    hub.advertise_address.iter().filter(|address| is_elsewhere(address)).chain(names).cloned().collect()
}

/// What is wrong with where nodes are to find CloudCore. A name with a star is one that they can be told.
pub(crate) fn advertise_address(hub: &Settings) -> Option<String> {
    (servers(hub).is_empty() && hub.dns_names.is_empty()).then(|| {
        format!(
            "modules.cloudHub.advertiseAddress is {} alone, and CloudCore's certificate is for no other address: a node on another machine refuses it. Write \
             there the address at which nodes reach this machine or its Service (`keadm init --advertise-address`; dnsNames for a name), and restart CloudCore",
            hub.advertise_address.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(addresses: &[&str], names: &[&str]) -> (Vec<String>, Option<String>) {
        let of = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let hub = Settings { advertise_address: of(addresses), dns_names: of(names), ..Settings::default() };
        (servers(&hub), advertise_address(&hub))
    }

    #[test]
    fn an_address_that_leads_no_other_machine_here_is_named_with_its_cure() {
        let (servers, said) = found(&["127.0.0.1", "::1", "0.0.0.0"], &[]);
        let said = said.unwrap();
        assert!(servers.is_empty() && said.contains("is 127.0.0.1, ::1, 0.0.0.0 alone"), "{said}");
        assert!(said.contains("keadm init --advertise-address"), "{said}");
        let well = |addresses: &[&str], names: &[&str]| {
            let (servers, said) = found(addresses, names);
            assert_eq!(said, None, "{addresses:?} {names:?}");
            servers
        };
        assert_eq!(well(&["127.0.0.1", "192.0.2.1"], &[]), ["192.0.2.1"]);
        assert_eq!(well(&["127.0.0.1"], &["cloud.example"]), ["cloud.example"]);
        assert!(well(&["127.0.0.1"], &["*.example"]).is_empty());
    }
}
