//! `ticketd send`: which files, and how they are sent.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, value_parser};

use super::remote::RemoteSettings;
use super::units::duration_at_least;

/// The longest beginning of keys, in bytes: what a key says of its file needs the rest.
const KEY_PREFIX_BYTES_MAX: usize = 64;

/// The settings of `send`.
#[derive(Debug, Clone, Args)]
pub struct SendSettings {
    /// Files with one ticket each
    #[arg(
        required_unless_present = "watch",
        conflicts_with = "watch",
        value_name = "FILE"
    )]
    pub files: Vec<PathBuf>,
    /// Send what comes into this folder, until SIGTERM, and move it to sent/ and rejected/ there
    #[arg(long, value_name = "DIR")]
    pub watch: Option<PathBuf>,
    /// Move each FILE to sent/ or rejected/ beside it, as --watch does
    #[arg(long = "move", conflicts_with = "watch")]
    pub moves: bool,
    /// Maximum time to send all FILEs, with retries
    // An operator waits for it; --watch has no end.
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = duration_at_least::<1>, conflicts_with = "watch")]
    pub timeout: Duration,
    /// How many tickets are under way at once, each on a connection of its own
    // Enough for 5,000 a second at 12 ms each, and few enough for hundreds of tills.
    #[arg(long, value_name = "TICKETS", default_value_t = 64, value_parser = value_parser!(u16).range(1..=1024))]
    pub inflight: u16,
    /// How long a file in the folder is unchanged before it is sent: one that is being written is not whole
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration_at_least::<0>)]
    pub settle: Duration,
    /// What the files are, as Content-Type says it
    #[arg(long, value_name = "TYPE", default_value = "text/plain; charset=utf-8", value_parser = content_type)]
    pub content_type: String,
    /// What each key begins with, where several tills name their files alike and have no credentials
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = key_prefix)]
    pub key_prefix: String,
    /// Where they are sent.
    #[command(flatten)]
    pub remote: RemoteSettings,
}

fn content_type(text: &str) -> Result<String, &'static str> {
    let is_visible = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    match !text.is_empty() && text.len() <= 200 && text.bytes().all(is_visible) {
        true => Ok(text.to_owned()),
        false => Err("it is written like text/plain; charset=utf-8"),
    }
}

fn key_prefix(text: &str) -> Result<String, String> {
    let is_right =
        text.len() <= KEY_PREFIX_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
    match is_right {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "it has at most {KEY_PREFIX_BYTES_MAX} visible ASCII characters"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Cli;

    fn parse(args: &[&str]) -> Result<String, String> {
        let args = [&["ticketd", "send", "--url=http://x"], args].concat();
        let cli = Cli::read_from(args.into_iter().map(Into::into).collect());
        cli.map(|cli| format!("{cli:?}"))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn every_bound_is_where_it_is_said_to_be() {
        let longest = format!("--key-prefix={}", "x".repeat(64));
        for right in [
            "--inflight=1",
            "--inflight=1024",
            "--timeout=1ms",
            "--timeout=1day",
            "--settle=0s",
            "--settle=1day",
            "--key-prefix=",
            &longest,
            "--content-type=text/plain; charset=windows-1252",
        ] {
            assert!(parse(&[right, "file"]).is_ok(), "{right}");
        }
        let too_long = format!("{longest}x");
        for wrong in [
            "--inflight=0",
            "--inflight=1025",
            "--timeout=0s",
            "--timeout=86401s",
            "--settle=86401s",
            "--key-prefix=a b",
            "--key-prefix=é",
            &too_long,
            "--content-type=",
            "--content-type=a\nb",
        ] {
            let error = parse(&[wrong, "file"]).expect_err("must be refused");
            let name = wrong.split('=').next().unwrap_or_default();
            assert!(error.contains(name), "{wrong}: {error}");
        }
    }

    #[test]
    fn files_and_a_folder_are_not_both_sent() {
        for wrong in [&[][..], &["--watch=d", "file"], &["--watch=d", "--move"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(parse(&["--watch=d"]).is_ok());
        assert!(parse(&["--ca=x", "file"]).is_err(), "nothing is encrypted");
    }

    #[test]
    fn a_token_is_not_shown() {
        let shown = parse(&["--token=Xq7ZvJ9w", "file"]).expect("valid");
        assert!(!shown.contains("Xq7Z"), "{shown}");
        let error = parse(&["--token=Xq7Z vJ9w", "file"]).expect_err("a blank");
        assert!(
            error.contains("--token") && !error.contains("Xq7Z"),
            "{error}"
        );
    }
}
