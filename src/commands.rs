//! What `ticketd` does besides running a role, each command a file. They stand at the end of the
//! flow: nothing imports them.

mod check;
mod credential;
mod day;
mod dead;
mod export;
mod healthcheck;
mod import;
mod migrate;
mod partitions;
mod progress;
mod reparse;
mod sample;
mod send;
mod show_settings;
mod silent;
mod status;

pub use check::check;
pub use credential::credential;
pub use day::day;
pub use dead::dead;
pub use export::export;
pub use healthcheck::healthcheck;
pub use import::import;
pub use migrate::migrate;
pub use partitions::partitions;
pub use reparse::reparse;
pub use sample::sample;
pub use send::send;
pub use show_settings::show_settings;
pub use silent::silent;
pub use status::status;
