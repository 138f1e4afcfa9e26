//! Every setting, its default and the reason for it.
//!
//! A setting is a flag, else an environment variable, else its default; some have other names besides,
//! and secrets may be in files. A wrong value stops the start with a message that names the setting.

mod auth;
mod broker;
mod cli;
mod credentials;
mod database;
mod day;
mod dead;
mod export;
mod file;
mod http;
mod import;
mod logs;
mod partitions;
mod publish;
mod rate;
mod read;
mod remote;
mod reparse;
mod sample;
mod secret;
mod send;
mod shown;
mod store;
mod supervisor;
mod tls;
mod units;
mod version;

pub use auth::{AuthSettings, CredentialSettings};
pub use broker::{AmqpTls, AmqpUrl, BrokerSettings, TopologyMode};
pub use cli::{
    AcceptRole, AcceptSettings, CheckArguments, CheckFormat, Cli, Command, CommonSettings,
    ConsumeRole, ConsumeSettings, CredentialAction, CredentialArguments, LogFormat, ServeSettings,
    ShutdownSettings, StatusFormat, StatusSettings, TicketName,
};
pub(crate) use credentials::credential_name;
pub use credentials::{
    CredentialKind, Credentials, OTHER_SOURCES, RateOverride, SourceCredentials, TOKEN_PREFIX,
    TokenHash, WEBHOOK_PREFIX, WebhookKey, is_token,
};
pub use database::{
    DatabaseConfig, DatabaseSettings, DatabaseTls, OptionalDatabaseSettings, SslMode,
};
pub use day::{BusinessDay, BusinessZone, DayFormat, DaySettings, SilentSettings};
pub use dead::{DeadAction, DeadFilter, DeadSelection, DeadSettings, ListFormat};
pub use export::{ExportFormat, ExportSettings, ExportSpan, Moment};
pub use http::{CONSUMER_ADMIN_LISTEN, HttpSettings, ListenSettings, PageSwitch};
pub use import::{ImportFormat, ImportSettings};
pub use partitions::{PartitionAction, PartitionArguments, PartitionSettings, PartitionWidth};
pub use publish::{GROUP_BYTES_MAX, GroupSettings, INFLIGHT_BYTES_MAX, PublishSettings};
pub use rate::RateLimit;
pub use remote::{RemoteServer, RemoteSettings, RemoteTls};
pub use reparse::{ReparseFilter, ReparseSettings};
pub use sample::{SampleFormat, SampleSettings};
pub use send::SendSettings;
pub use shown::ShownSetting;
pub use store::StoreSettings;
pub use supervisor::SupervisorSettings;
pub use tls::{Authorities, ListenTlsSettings, PeerCheck, TlsFile, TlsIdentity};
pub use version::{REVISION, VERSION};

#[cfg(test)]
mod tests;
