//! How senders reach ticketd and prove who they are, on both sides: its settings, and the load generator's arguments.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::target::Target;

/// The one sender, and what it proves itself with. They open nothing but servers that this bench has started.
const SOURCE: &str = "bench";
const TOKEN: &str = "tkd_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";
const WEBHOOK_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Tickets in a request of many.
const BULK: u32 = 1000;

/// The name of the servers' certificate.
const CERTIFICATE: &str = "bench";

/// The host that it is for: where all servers of a bench listen.
pub(super) const HOST: &str = "127.0.0.1";

/// The certificates of a bench, made when the first is needed.
pub(super) struct Certificates {
    script: PathBuf,
    folder: PathBuf,
}

impl Certificates {
    /// To be made by this script in this folder.
    pub(super) fn new(script: PathBuf, folder: PathBuf) -> Self {
        Self { script, folder }
    }

    /// The CA's.
    pub(super) fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// A file of the servers' certificate; makes all of them if there are none.
    fn server(&self, kind: &str) -> Result<String> {
        if !self.ca().exists() {
            self.make(&["ca"], &[])?;
            self.make(&["server"], &[CERTIFICATE, HOST])?;
        }
        let path = self.folder.join(format!("{CERTIFICATE}.{kind}"));
        Ok(path.to_string_lossy().into_owned())
    }

    fn make(&self, command: &[&str], more: &[&str]) -> Result<()> {
        let mut script = Command::new(&self.script);
        script.args(command).arg(&self.folder).args(more);
        let output = script
            .output()
            .with_context(|| format!("cannot run {}", self.script.display()))?;
        ensure!(
            output.status.success(),
            "no certificates: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }
}

/// The settings of ticketd that make it this target.
pub(super) fn settings(
    target: Target,
    certificates: &Certificates,
) -> Result<Vec<(&'static str, String)>> {
    let credential = |kind, secret| vec![("CREDENTIALS", format!("{SOURCE} {kind} {secret}"))];
    Ok(match target {
        Target::Ungrouped => vec![("PUBLISH_GROUP_MAX", "1".to_owned())],
        Target::Bearer => credential("bearer", TOKEN),
        Target::Signed => credential("webhook", WEBHOOK_SECRET),
        Target::Https => vec![
            ("TLS_CERT", certificates.server("pem")?),
            ("TLS_KEY", certificates.server("key")?),
        ],
        _ => Vec::new(),
    })
}

/// What the load generator is told of a target at this address.
pub(super) fn arguments(target: Target, address: &str, ca: &Path) -> Vec<String> {
    let url = match target {
        Target::Https => format!("--url=https://{address}/ticket"),
        Target::Signed => format!("--url=http://{address}/ticket?source={SOURCE}"),
        Target::Bulk => format!("--url=http://{address}/tickets?ids=none"),
        _ => format!("--url=http://{address}/ticket"),
    };
    let proof = match target {
        Target::Keyed => Some("--keys".to_owned()),
        Target::Bearer => Some(format!("--bearer={TOKEN}")),
        Target::Signed => Some(format!("--webhook-secret={WEBHOOK_SECRET}")),
        Target::Https => Some(format!("--ca={}", ca.display())),
        Target::Bulk => Some(format!("--bulk={BULK}")),
        _ => None,
    };
    [url].into_iter().chain(proof).collect()
}
