//! What `ticketd` does besides running a role, each command a file. They stand at the end of the
//! flow: nothing imports them.

mod check;
mod credential;
mod dead;
mod healthcheck;
mod migrate;
mod progress;
mod reparse;
mod show_settings;
mod status;

pub use check::check;
pub use credential::credential;
pub use dead::dead;
pub use healthcheck::healthcheck;
pub use migrate::migrate;
pub use reparse::reparse;
pub use show_settings::show_settings;
pub use status::status;
