//! What one test differs in from another, and what its ticketd is told.

use std::path::Path;
use std::time::Duration;

use crate::proxy::Proxy;
use crate::stack::{Exclusivity, amqp_url, database_url};
use crate::ticketd::Settings;

/// Short, so that rows of products are refreshed while a test runs.
pub(crate) const PRODUCT_REFRESH: Duration = Duration::from_secs(1);

/// Settings that differ from one test to the next.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// What the load and the faults are drawn from.
    pub seed: u64,
    /// How much of the machine it is done on.
    pub exclusivity: Exclusivity,
    /// Both roles in one process.
    pub together: bool,
    /// Its links to the servers are encrypted.
    pub is_encrypted: bool,
    /// Tickets a second.
    pub rate: u32,
    /// What the broker is told before anything is declared: a command of rabbitmqctl, or nothing.
    pub broker: &'static [&'static str],
    /// Further environment of ticketd.
    pub env: Vec<(&'static str, String)>,
}

impl Plan {
    /// Two processes, and a load that two cores carry beside everything else.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            exclusivity: Exclusivity::Exclusive,
            together: false,
            is_encrypted: false,
            rate: 120,
            broker: &[],
            env: Vec::new(),
        }
    }

    /// What ticketd is told: short time-outs, so that faults need not last longer than they do.
    pub(crate) fn settings(
        &self,
        name: &str,
        amqp: &Proxy,
        database: Option<&Proxy>,
        ca: &Path,
    ) -> Settings {
        let mut settings = vec![
            ("AMQP_URL".to_owned(), amqp_url(amqp.port())),
            ("QUEUE".to_owned(), name.to_owned()),
            ("CONFIRM_TIMEOUT".to_owned(), "3s".to_owned()),
            (
                "PRODUCT_REFRESH".to_owned(),
                format!("{}ms", PRODUCT_REFRESH.as_millis()),
            ),
        ];
        if let Some(database) = database {
            // Its backends have the rig's name, to be told from those of others.
            let url = database_url(database.port(), name);
            let url = format!("{url}&application_name={name}");
            settings.push(("DATABASE_URL".to_owned(), url));
        }
        if self.is_encrypted {
            encrypt(&mut settings, &ca.display().to_string());
        }
        let more = self.env.iter();
        settings.extend(more.map(|(name, value)| ((*name).to_owned(), value.clone())));
        settings
    }
}

/// The same over TLS, with all that can be checked.
fn encrypt(settings: &mut Settings, ca: &str) {
    for (name, value) in settings.iter_mut() {
        let mode = format!("sslmode=verify-full&sslrootcert={ca}");
        match name.as_str() {
            "AMQP_URL" => *value = value.replace("amqp://", "amqps://"),
            "DATABASE_URL" => *value = value.replace("sslmode=disable", &mode),
            _ => continue,
        }
        *value = value.replace("127.0.0.1", "localhost");
    }
    settings.push(("AMQP_TLS_CA".to_owned(), ca.to_owned()));
}
