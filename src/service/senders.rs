//! Who may send tickets.

use std::sync::Arc;

use anyhow::Context;
use tracing::{error, info, warn};

use crate::config::{AuthSettings, CredentialSettings, Credentials};
use crate::http::{CredentialsFile, Senders, UNNAMED_KEYS_MAX};

/// The senders that are known, and where from; by default anyone.
#[derive(Clone, Default)]
pub(super) struct KnownSenders {
    /// Anyone may send where there are none.
    pub senders: Option<Arc<Senders>>,
    /// Where their credentials are read again.
    file: Option<CredentialsFile>,
}

impl KnownSenders {
    /// Reads the settings, and the file that they name. Fails if any of it is wrong.
    pub(super) fn read(settings: &AuthSettings) -> anyhow::Result<Self> {
        let CredentialSettings {
            credentials_file,
            credentials,
        } = &settings.credentials;
        let file = credentials_file.clone().map(CredentialsFile::new);
        let read = file.as_ref().map(CredentialsFile::read).transpose();
        let read = read
            .map_err(anyhow::Error::msg)
            .context("CREDENTIALS_FILE")?;
        let senders = read.as_ref().or(credentials.as_ref()).map(|credentials| {
            info!(
                sources = credentials.sources.len(),
                "only who has a credential may send tickets"
            );
            warn_of_unnamed(credentials);
            Arc::new(Senders::new(credentials, settings.rate_limit))
        });
        Ok(Self { senders, file })
    }
    /// Whether there is anything to read again.
    pub(super) fn reads_files(&self) -> bool {
        self.file.is_some()
    }

    /// Reads the file again; a wrong one changes nothing.
    pub(super) fn read_again(&self) {
        let (Some(file), Some(senders)) = (&self.file, &self.senders) else {
            return;
        };
        match file.read() {
            Ok(credentials) => {
                senders.replace(&credentials);
                let sources = credentials.sources.len();
                info!(sources, "CREDENTIALS_FILE was read again");
                warn_of_unnamed(&credentials);
            }
            Err(error) => {
                let path = file.path().display();
                error!(%path, error, "CREDENTIALS_FILE is wrong; the credentials stay as they were");
            }
        }
    }
}

/// One secret more, and requests are refused whose senders have changed nothing.
fn warn_of_unnamed(credentials: &Credentials) {
    let sources = credentials.sources.values();
    let secrets: usize = sources.map(|source| source.webhook_keys.len()).sum();
    if secrets > UNNAMED_KEYS_MAX {
        warn!(
            secrets,
            at_most = UNNAMED_KEYS_MAX,
            "there are more webhook secrets than a request without ?source=NAME is compared with: it is answered 401"
        );
    }
}
