//! Who may send tickets.

use std::sync::Arc;

use anyhow::Context;
use tracing::{error, info, warn};

use crate::config::{AuthSettings, CredentialSettings, Credentials};
use crate::http::{CredentialsFile, Operators, Senders, UNNAMED_KEYS_MAX};

/// The senders that are known, and where from; by default anyone.
#[derive(Clone, Default)]
pub(super) struct KnownSenders {
    /// Anyone may send where there are none.
    pub senders: Option<Arc<Senders>>,
    have_credentials: bool,
    /// Where their credentials are read again.
    file: Option<CredentialsFile>,
}

impl KnownSenders {
    /// Reads the settings, and the file that they name. Fails if any of it is wrong.
    pub(super) fn read(settings: &AuthSettings, have_certificates: bool) -> anyhow::Result<Self> {
        let CredentialSettings {
            credentials_file,
            credentials,
        } = &settings.credentials;
        let file = credentials_file.clone().map(CredentialsFile::new);
        let read = file.as_ref().map(CredentialsFile::read).transpose();
        let read = read
            .map_err(anyhow::Error::msg)
            .context("CREDENTIALS_FILE")?;
        let given = read.as_ref().or(credentials.as_ref());
        if let Some(credentials) = given {
            let sources = credentials.sources.len();
            info!(sources, "only who has a credential may send tickets");
            warn_of_unnamed(credentials);
        }
        if have_certificates {
            info!("a client's certificate names its source (TLS_CLIENT_CA)");
        }
        let none = have_certificates.then(Credentials::default);
        let senders = given.or(none.as_ref());
        let senders = senders.map(|credentials| Senders::new(credentials, settings.rate_limit));
        Ok(Self {
            senders: senders.map(Arc::new),
            have_credentials: given.is_some(),
            file,
        })
    }

    /// Who may see what is the operator's where anyone else could ask for it: without credentials
    /// nobody can prove to be one.
    pub(super) fn operators(&self) -> Operators {
        match &self.senders {
            Some(senders) if self.have_credentials => Operators::Known(senders.clone()),
            _ => Operators::Anyone,
        }
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
