//! `ticketd import`: which files, and how their tickets are published.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum, value_parser};

use super::broker::BrokerSettings;
use super::database::{DatabaseConfig, OptionalDatabaseSettings};
use super::publish::GroupSettings;
use super::units::duration_at_least;
use crate::source::{Source, is_key};

/// How standard input is named among FILEs.
const STANDARD_INPUT: &str = "-";

/// The settings of `import`.
#[derive(Debug, Args)]
#[command(mut_arg("database_url", |arg| arg.help("PostgreSQL, where tickets are stored with --direct")))]
pub struct ImportSettings {
    /// Files with any number of tickets, and folders of such; - is standard input
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The source of all tickets [default: none]
    #[arg(long, value_name = "NAME", value_parser = Source::parse)]
    pub source: Option<Source>,
    /// The key that ids are made of, and each ticket's number, instead of the path and the content of the only FILE
    #[arg(long, value_parser = key)]
    pub key: Option<String>,
    /// How tickets are written [default: ndjson if the name ends in .ndjson or .jsonl, else text]
    #[arg(long, value_enum)]
    pub format: Option<ImportFormat>,
    /// Maximum size of a ticket, in bytes; a larger one ends its file
    // That of serve and accept.
    #[arg(long, env = "BODY_MAX", default_value_t = 65536, value_parser = value_parser!(u32).range(1..=1_048_576))]
    pub body_max: u32,
    /// Store tickets in PostgreSQL at once, without RabbitMQ, with the same ids
    #[arg(long)]
    pub direct: bool,
    /// Maximum wait for RabbitMQ, or with --direct for PostgreSQL, at the start and whenever it takes nothing
    // An operator waits for it, while RabbitMQ is restarted.
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = duration_at_least::<100>)]
    pub timeout: Duration,
    /// Where they are stored with --direct.
    #[command(flatten)]
    pub database: OptionalDatabaseSettings,
    /// Where they are published without.
    #[command(flatten)]
    pub broker: BrokerSettings,
    /// What a message holds.
    #[command(flatten)]
    pub groups: GroupSettings,
}

/// The form of a file of many tickets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ImportFormat {
    /// As tills write them, one after the other.
    Text,
    /// A JSON object a line, with ticket, and perhaps key and `issued_at`.
    Ndjson,
}

impl ImportSettings {
    /// Whether a FILE is standard input.
    pub fn is_standard_input(file: &Path) -> bool {
        file == Path::new(STANDARD_INPUT)
    }

    /// Where they are stored at once; none if they are published. Fails where that is not set, or its
    /// TLS options do not go together.
    pub fn direct(&self) -> Result<Option<DatabaseConfig>, String> {
        if !self.direct {
            return Ok(None);
        }
        let database = self.database.config()?;
        let missing = || "it is not set, and --direct needs it".to_owned();
        database.ok_or_else(missing).map(Some)
    }

    /// Checks that the tickets of each FILE have ids of their own.
    pub(super) fn check(&self) -> Result<(), String> {
        let reads_input = self.files.iter().any(|file| Self::is_standard_input(file));
        match &self.key {
            Some(_) if self.files.len() > 1 => {
                Err("it is of one FILE, and there are several".into())
            }
            None if reads_input => {
                Err("standard input needs one: it has no path, and is not read twice".into())
            }
            _ => Ok(()),
        }
    }
}

fn key(text: &str) -> Result<String, &'static str> {
    let key = is_key(text.as_bytes()).then(|| text.to_owned());
    key.ok_or("a key has 1 to 255 visible ASCII characters")
}

#[cfg(test)]
mod tests {
    use super::super::Cli;

    fn parse(args: &[&str]) -> Result<String, String> {
        let args = [&["ticketd", "import"], args].concat();
        let cli = Cli::read_from(args.into_iter().map(Into::into).collect());
        cli.map(|cli| format!("{cli:?}"))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn tickets_have_ids_of_their_own() {
        for right in [
            &["a"][..],
            &["a", "b"],
            &["-", "--key=k"],
            &["a", "--key=k"],
        ] {
            assert!(parse(right).is_ok(), "{right:?}");
        }
        for wrong in [
            &["-"][..],
            &["a", "-"],
            &["a", "b", "--key=k"],
            &["a", "--key="],
        ] {
            let error = parse(wrong).expect_err("must be refused");
            assert!(error.contains("--key"), "{wrong:?}: {error}");
        }
        assert!(parse(&[]).is_err());
    }

    #[test]
    fn every_bound_is_where_it_is_said_to_be() {
        for right in [
            "--timeout=100ms",
            "--timeout=1day",
            "--body-max=1",
            "--body-max=1048576",
        ] {
            assert!(parse(&["a", right]).is_ok(), "{right}");
        }
        for wrong in [
            "--timeout=99ms",
            "--body-max=0",
            "--body-max=1048577",
            "--source=A",
        ] {
            let error = parse(&["a", wrong]).expect_err("must be refused");
            let name = wrong.split('=').next().unwrap_or_default();
            assert!(error.contains(name), "{wrong}: {error}");
        }
    }
}
