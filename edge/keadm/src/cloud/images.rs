//! `keadm config`: which images there are, and which values the chart has.

use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};

use super::chart_args::{check_version, in_repository};

/// Whose images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Side {
    /// Those that run in the cluster.
    Cloud,
    /// Those of edge machines.
    Edge,
    /// Both.
    All,
}

/// What `keadm config` shows.
#[derive(Debug, Subcommand)]
pub enum ImagesCommand {
    /// The images of this release
    #[command(subcommand)]
    Images(Images),
    /// The values of the chart, with what each means
    Values,
}

/// Images of this release.
#[derive(Debug, Subcommand)]
pub enum Images {
    /// Lists them, a line each
    List(List),
    /// As KubeEdge has it: refused, with what to do instead
    #[command(hide = true)]
    Pull {
        /// Whatever stands behind it.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        _words: Vec<String>,
    },
}

/// Which images are listed.
#[derive(Debug, Args)]
pub struct List {
    /// Whose
    #[arg(long, value_enum, default_value = "all")]
    part: Side,
    /// Where they are: registry.example.com/kubeedge
    #[arg(long, default_value = "kubeedge")]
    image_repository: String,
    /// Of which version: this program's own, and no other
    #[arg(long)]
    kubeedge_version: Option<String>,
}

/// Says what is asked for.
///
/// # Errors
/// When the version is another one, or images are to be pulled.
pub fn show_images(command: &ImagesCommand, say: &mut dyn FnMut(String)) -> Result<()> {
    match command {
        ImagesCommand::Values => say(helmchart::VALUES_FILE.trim_end().to_owned()),
        ImagesCommand::Images(Images::List(list)) => images(list)?.into_iter().for_each(say),
        ImagesCommand::Images(Images::Pull { .. }) => bail!(
            "there is no `keadm config images pull` here: the runtime pulls what it runs; `keadm config images list | xargs -n1 crictl pull` has it pulled before"
        ),
    }
    Ok(())
}

fn images(list: &List) -> Result<Vec<String>> {
    if let Some(version) = &list.kubeedge_version {
        check_version("--kubeedge-version", version)?;
    }
    let names: &[&str] = match list.part {
        Side::Cloud => &["cloudcore"],
        Side::Edge => &["installation-package"],
        Side::All => &["cloudcore", "installation-package"],
    };
    let named =
        |name: &&str| Ok(format!("{}:v{}", in_repository(&list.image_repository, name)?, helmchart::VERSION));
    names.iter().map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(part: Side, repository: &str, version: Option<&str>) -> Result<Vec<String>> {
        let kubeedge_version = version.map(str::to_owned);
        images(&List { part, image_repository: repository.to_owned(), kubeedge_version })
    }

    #[test]
    fn the_images_are_those_of_this_release() {
        let version = helmchart::VERSION;
        assert_eq!(
            listed(Side::All, "kubeedge", None).unwrap(),
            [format!("kubeedge/cloudcore:v{version}"), format!("kubeedge/installation-package:v{version}")]
        );
        assert_eq!(
            listed(Side::Cloud, "r.io/k/", Some(version)).unwrap(),
            [format!("r.io/k/cloudcore:v{version}")]
        );
        assert!(listed(Side::Edge, "kubeedge", Some("v1.23.0")).is_err());
        // What the chart runs is on the list.
        let values = helmchart::with_defaults(&serde_json::json!({})).unwrap();
        assert!(listed(Side::Cloud, "kubeedge", None).unwrap().contains(&helmchart::image(&values)));
    }
}
