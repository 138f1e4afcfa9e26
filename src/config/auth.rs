//! Who may send tickets, and how fast.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::credentials::Credentials;
use super::rate::{RateLimit, rate_limit};
use super::secret::Secret;

/// Senders.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Senders", group = ArgGroup::new("who_sends").multiple(true))]
pub struct AuthSettings {
    /// Their credentials.
    #[command(flatten)]
    pub credentials: CredentialSettings,
    /// Tickets a second of each source, and at once, as in 100/s:200; further ones are answered 429
    // Off: only who runs the shops knows how fast one of them may be.
    #[arg(long, env = "RATE_LIMIT", value_name = "RATE", value_parser = rate_limit, requires = "who_sends")]
    pub rate_limit: Option<RateLimit>,
}

/// Where the senders' credentials are: in a file, or given as they are.
#[derive(Debug, Clone, Args)]
#[group(multiple = false)]
pub struct CredentialSettings {
    /// File with the credentials of senders, one a line; read again on SIGHUP. Without credentials, anyone may send
    // Off: on loopback everybody who could send could read a file as well.
    #[arg(
        long,
        env = "CREDENTIALS_FILE",
        value_name = "FILE",
        group = "who_sends"
    )]
    pub credentials_file: Option<PathBuf>,
    /// The lines of such a file themselves, for one or two senders; `;` ends a line as well
    #[arg(long, env = "CREDENTIALS", value_name = "LINES", group = "who_sends", value_parser = Secret(credentials), hide_env_values = true)]
    pub credentials: Option<Credentials>,
}

fn credentials(text: &str) -> Result<Credentials, String> {
    Credentials::parse(text).map_err(|error| error.to_string())
}
