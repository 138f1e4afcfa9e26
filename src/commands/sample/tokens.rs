//! Credentials for made-up shops: what lets them in, for ticketd, and what they show, for `--tokens`.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::commands::credential::new_secret;
use crate::config::{CredentialKind, TokenHash};

/// Makes credentials for these shops: a file for `CREDENTIALS_FILE`, and beside it one with the tokens,
/// for nobody else to read. Neither may be there already.
pub(super) fn write(path: &Path, names: &[String]) -> anyhow::Result<()> {
    let (mut lines, mut shown) = (String::new(), String::new());
    for name in names {
        let token = new_secret(CredentialKind::Bearer)?;
        let hash = TokenHash::of(token.as_bytes());
        lines += &format!("{name} {} {hash}\n", CredentialKind::Bearer);
        shown += &format!("{name} {token}\n");
    }
    create(&tokens_of(path), 0o600, &shown)?;
    create(path, 0o644, &lines)
}

fn tokens_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tokens");
    name.into()
}

fn create(path: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| path.display().to_string())
}
