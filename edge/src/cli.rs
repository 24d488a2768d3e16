//! What edgecore is called with.

use std::ffi::OsString;
use std::path::PathBuf;

use config::edge::DEFAULT_PATH;
use lexopt::Arg::{Long, Short, Value};
use lexopt::{Error, Parser, ValueExt as _};

/// What `--help` prints.
pub(crate) const HELP: &str = "\
The node's side of KubeHive

Usage: edgecore [OPTIONS] [COMMAND]

Commands:
  topology [--dot]      Prints who talks to whom; with --dot in the DOT language
  mqtt-password <NAME>  Prints a line of the broker's password file (modules.eventBus.passwordFile) for the user NAME; the
                        password is the first line of the standard input

Options:
      --config <CONFIG>  Path of edgecore.yaml [default: /etc/kubehive/edgecore.yaml]
      --defaultconfig    Print the annotated default config and end
  -h, --help             Print help
  -V, --version          Print version
";

/// KubeEdge's flag, and what does its work here.
const NO_MINCONFIG: &str =
    "there is no --minconfig here: each setting may be left out, and --defaultconfig prints all of them";

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// The daemon, by the settings in this file.
    Run {
        config: PathBuf,
    },
    DefaultConfig,
    Topology {
        dot: bool,
    },
    MqttPassword {
        name: String,
    },
    Help,
    Version,
}

/// `arguments`: without the program's own name.
///
/// # Errors
/// A sentence that names what is not understood.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Order, String> {
    order(Parser::from_args(arguments)).map_err(|error| error.to_string())
}

fn order(mut parser: Parser) -> Result<Order, Error> {
    let mut config = PathBuf::from(DEFAULT_PATH);
    let mut command: Option<Order> = None;
    while let Some(argument) = parser.next()? {
        match (argument, &mut command) {
            (Long("help") | Short('h'), _) => return Ok(Order::Help),
            (Long("version") | Short('V'), _) => return Ok(Order::Version),
            (Long("config"), _) => config = parser.value()?.into(),
            (Long("defaultconfig"), _) => command = Some(Order::DefaultConfig),
            (Long("minconfig"), _) => return Err(NO_MINCONFIG.into()),
            (Long("dot"), Some(Order::Topology { dot })) => *dot = true,
            (Value(name), None) if name == "topology" => command = Some(Order::Topology { dot: false }),
            (Value(name), None) if name == "mqtt-password" => {
                let name = parser.value().map_err(|_| Error::from("mqtt-password needs a user's name"))?;
                command = Some(Order::MqttPassword { name: name.string()? });
            }
            (other, _) => return Err(other.unexpected()),
        }
    }
    Ok(command.unwrap_or(Order::Run { config }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Order, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn every_order_is_understood() {
        assert_eq!(parsed(""), Ok(Order::Run { config: DEFAULT_PATH.into() }));
        for line in ["--config /x.yaml", "--config=/x.yaml"] {
            assert_eq!(parsed(line), Ok(Order::Run { config: "/x.yaml".into() }));
        }
        assert_eq!(parsed("--defaultconfig"), Ok(Order::DefaultConfig));
        assert_eq!(parsed("topology"), Ok(Order::Topology { dot: false }));
        assert_eq!(parsed("--config /x.yaml topology --dot"), Ok(Order::Topology { dot: true }));
        assert_eq!(parsed("mqtt-password kate"), Ok(Order::MqttPassword { name: "kate".to_owned() }));
        for line in ["-h", "--help", "topology --help"] {
            assert_eq!(parsed(line), Ok(Order::Help));
        }
        assert_eq!(parsed("-V"), Ok(Order::Version));
        assert!(HELP.contains(DEFAULT_PATH));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (line, named) in [
            ("--konfig /x", "--konfig"),
            ("--minconfig", "--defaultconfig"),
            ("--dot", "--dot"),
            ("run", "run"),
            ("topology tree", "tree"),
            ("--config", "--config"),
            ("mqtt-password", "user's name"),
            ("mqtt-password kate tom", "tom"),
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.contains(named), "{line}: {error}");
        }
    }
}
