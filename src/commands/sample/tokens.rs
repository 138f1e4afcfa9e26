//! Credentials for made-up shops: what lets them in, for ticketd, and what they show, for `--tokens`.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::commands::credential::new_secret;
use crate::config::{CredentialKind, TokenHash, is_token};
use crate::source::Source;

/// The largest file of tokens, in bytes: a thousand of the longest.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Shops, and the token of each.
#[derive(Debug, Default)]
pub(super) struct ShopTokens {
    pub names: Vec<String>,
    /// As many.
    pub tokens: Vec<String>,
}

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

impl ShopTokens {
    /// Reads what [`write()`] has written. An error shows nothing of the file.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let mut text = String::new();
        let file = File::open(path).with_context(|| shown.to_string())?;
        let read = file.take(FILE_BYTES_MAX).read_to_string(&mut text);
        read.with_context(|| shown.to_string())?;
        let mut shops = Self::default();
        for (line, number) in text.lines().zip(1..) {
            match line.split_once(' ') {
                Some((name, token))
                    if Source::parse(name).is_ok() && is_token(token.as_bytes()) =>
                {
                    shops.names.push(name.to_owned());
                    shops.tokens.push(token.to_owned());
                }
                _ => bail!("{shown}: line {number} is not a name and a token"),
            }
        }
        match shops.names.is_empty() {
            true => bail!("{shown}: it has no tokens"),
            false => Ok(shops),
        }
    }
}
