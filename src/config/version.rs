//! Which ticketd this is.

/// That of Cargo.toml.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that it was built from, or what whoever built it says; `unknown` without either.
pub const REVISION: &str = env!("TICKETD_REVISION");

/// Both, as `--version` shows them.
pub(super) const VERSION_AND_REVISION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("TICKETD_REVISION"),
    ")"
);
