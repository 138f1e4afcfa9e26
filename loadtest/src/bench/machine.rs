//! What the figures were measured on: the machine's shape and the versions.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use ticketd_testing::servers::connect;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

/// The protocol header of AMQP 0-9-1, which a broker answers with its properties.
const AMQP_HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";

/// Maximum wait for the broker's properties.
const BROKER_TIMEOUT: Duration = Duration::from_secs(5);

/// Names and values, in the order of the table.
pub(super) async fn describe(
    ticketd: &Path,
    database_url: &str,
    broker: &str,
) -> Result<Vec<(&'static str, String)>> {
    let client = connect(database_url).await?;
    let row = client
        .query_one(
            "select to_char(now() at time zone 'utc', 'YYYY-MM-DD HH24:MI') || ' UTC',
                    current_setting('server_version')",
            &[],
        )
        .await?;
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    Ok(vec![
        ("Date", row.get(0)),
        ("Processor", processor()),
        ("Cores", cores.to_string()),
        ("Memory", memory()),
        ("Kernel", kernel()),
        (
            "Load before the run",
            first_word("/proc/loadavg").unwrap_or_default(),
        ),
        ("ticketd", version(ticketd).await),
        ("rustc", version(Path::new("rustc")).await),
        ("PostgreSQL", row.get(1)),
        ("RabbitMQ", broker_version(broker).await?),
    ])
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == "model name").then(|| value.trim().to_owned())
    });
    model.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

fn memory() -> String {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kibibytes: Option<f64> = text.lines().find_map(|line| {
        let value = line.strip_prefix("MemTotal:")?;
        value.trim().strip_suffix(" kB")?.parse().ok()
    });
    kibibytes.map_or_else(String::new, |kibibytes| {
        format!("{:.1} GiB", kibibytes / 1048576.0)
    })
}

fn kernel() -> String {
    let release = first_word("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{release} {}", std::env::consts::ARCH)
}

fn first_word(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.split_whitespace().next()?.to_owned())
}

/// What a program says of itself, without its own name.
async fn version(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output().await;
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    match text.unwrap_or_default().trim().split_once(' ') {
        Some((_, version)) => version.to_owned(),
        None => "not found".to_owned(),
    }
}

/// The version out of the properties with which a broker greets: its client library does not tell them.
async fn broker_version(address: &str) -> Result<String> {
    let greeting = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(AMQP_HEADER).await?;
        // A frame's head: type, channel, and the length of what follows.
        let mut head = [0; 7];
        stream.read_exact(&mut head).await?;
        let [_, _, _, length @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes(length).min(65536) as usize];
        stream.read_exact(&mut payload).await?;
        anyhow::Ok(payload)
    };
    let greeting = timeout(BROKER_TIMEOUT, greeting).await??;
    version_in(&greeting).context("the broker does not say its version")
}

/// The value of the field `version` of a field table: a short string, the type S, and a long string.
fn version_in(greeting: &[u8]) -> Option<String> {
    const FIELD: &[u8] = b"\x07versionS";
    let at = memchr::memmem::find(greeting, FIELD)?;
    let (length, rest) = greeting.get(at + FIELD.len()..)?.split_first_chunk()?;
    let value = rest.get(..u32::from_be_bytes(*length) as usize)?;
    Some(String::from_utf8_lossy(value).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_a_greeting() {
        let greeting =
            b"\x00\x0a\x00\x0a\x07productS\x00\x00\x00\x08RabbitMQ\x07versionS\x00\x00\x00\x063.10.8\x00";
        assert_eq!(version_in(greeting).as_deref(), Some("3.10.8"));
        assert_eq!(version_in(&greeting[..43]), None);
        assert_eq!(version_in(b""), None);
    }
}
