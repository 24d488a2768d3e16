//! `keadm ctl page`: this node's page, for a browser or a script.

use anyhow::{Result, bail};
use clap::Args;
use config::edge::EdgeCore;

use crate::node_socket::{self, OfNode};

/// 8 MiB: the page has bounds of its own.
const JSON_MAX: usize = 8 << 20;

/// What is shown.
#[derive(Args)]
pub struct PageArgs {
    /// Print what stands on the page, as JSON
    #[arg(long)]
    json: bool,
    /// Where edgecore is asked.
    #[command(flatten)]
    node: OfNode,
}

/// Says a URL that opens the page, or what stands on it.
///
/// # Errors
/// When there is no page, or edgecore does not answer at its socket.
pub async fn page(order: &PageArgs, say: &mut dyn FnMut(String)) -> Result<()> {
    let settings = order.node.settings()?;
    if !settings.modules.edge_page.enable {
        bail!(
            "this node's page is off: set modules.edgePage.enable: true in {}, and restart edgecore (`systemctl restart edgecore`)",
            order.node.file()
        );
    }
    let (status, text) = match order.json {
        true => node_socket::get(&order.node, "/page.json", JSON_MAX).await?,
        false => node_socket::post(&order.node, "/api/v1/page/invitation", String::new()).await?,
    };
    match status {
        200 if order.json => say(text),
        200 => {
            say(text);
            say(how_to_open(&settings));
        }
        // A page that is off in the running edgecore, or an edgecore that knows of none.
        404 => {
            bail!("the edgecore that runs has no page yet: `systemctl restart edgecore`, then again ({text})")
        }
        _ => bail!("edgecore says {status}: {text}"),
    }
    Ok(())
}

fn how_to_open(settings: &EdgeCore) -> String {
    let port = settings.modules.edge_page.port;
    let server = settings.modules.edge_page.address().map_or_else(String::new, |address| address.to_string());
    format!(
        "It opens once, within 2 minutes, in a browser on this machine. From another one run `ssh -L {port}:{server} NODE` there first, and open the same address."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tunnel_is_told_as_it_is_typed() {
        let mut settings = EdgeCore::default();
        assert!(how_to_open(&settings).contains("`ssh -L 10360:127.0.0.1:10360 NODE`"));
        settings.modules.edge_page.server = "::1".to_owned();
        assert!(how_to_open(&settings).contains("`ssh -L 10360:[::1]:10360 NODE`"));
    }
}
