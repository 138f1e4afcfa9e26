//! ticketd accept alone, between tills and a fake broker.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::fake_broker::FakeBroker;
use crate::stack::{Exclusivity, MachineSlot, machine_slot};
use crate::ticketd::{Role, Ticketd};
use ticketd_testing::wait_until;

/// ticketd accept with a fake broker behind it.
pub(crate) struct Accept {
    /// The process.
    pub ticketd: Ticketd,
    /// The broker.
    pub broker: FakeBroker,
    dir: PathBuf,
    _slot: MachineSlot,
}

/// How they are started.
pub(crate) struct Setup<'a> {
    /// Of ticketd.
    pub settings: &'a [(&'a str, &'a str)],
    /// Of the broker: see [`FakeBroker::start`].
    pub lull: Duration,
    /// The most files that ticketd may have open.
    pub ulimit_files: Option<u32>,
    /// How much of the machine they get.
    pub exclusivity: Exclusivity,
}

/// A broker that settles at once, and nobody else on the machine.
impl Default for Setup<'_> {
    fn default() -> Self {
        Self {
            settings: &[],
            lull: Duration::ZERO,
            ulimit_files: None,
            exclusivity: Exclusivity::Exclusive,
        }
    }
}

impl Accept {
    /// Starts both, with these settings, and a broker that settles in disorder.
    pub(crate) async fn in_disorder(settings: &[(&str, &str)]) -> Self {
        let lull = Duration::from_millis(2);
        Self::start(Setup {
            settings,
            lull,
            ..Setup::default()
        })
        .await
    }

    /// Starts both.
    pub(crate) async fn start(setup: Setup<'_>) -> Self {
        let slot = machine_slot(setup.exclusivity).await;
        let broker = FakeBroker::start(setup.lull).await;
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let dir =
            std::env::temp_dir().join(format!("ticketd-accept-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut env = vec![("AMQP_URL".to_owned(), broker.url())];
        env.extend(
            setup
                .settings
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into())),
        );
        let ticketd = Ticketd::start(Role::Accept, &dir, env, setup.ulimit_files).await;
        let accept = Self {
            ticketd,
            broker,
            dir,
            _slot: slot,
        };
        wait_until("ready", async || accept.ticketd.is_ready().await).await;
        accept
    }
}

impl Drop for Accept {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            std::fs::remove_dir_all(&self.dir).unwrap();
        }
    }
}
