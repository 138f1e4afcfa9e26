//! `ticketd check`: is this a valid ticket, and if not, why?

use std::io::{Read, Write};
use std::path::Path;

use anyhow::Context;

use crate::ticket::parse;
use crate::ticket::text;

/// Says of each file, line by line, whether it is a valid ticket. True if all are.
pub fn check(files: &[impl AsRef<Path>], out: &mut impl Write) -> anyhow::Result<bool> {
    let mut all_valid = true;
    for file in files {
        let file = file.as_ref();
        let verdict = verdict(&read(file)?);
        all_valid &= verdict.is_ok();
        let verdict = verdict.map_or_else(|why| why, |()| "valid".to_owned());
        writeln!(out, "{}: {verdict}", file.display())?;
    }
    Ok(all_valid)
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    if file == Path::new("-") {
        let mut body = Vec::new();
        std::io::stdin()
            .read_to_end(&mut body)
            .context("standard input")?;
        return Ok(body);
    }
    std::fs::read(file).with_context(|| file.display().to_string())
}

fn verdict(body: &[u8]) -> Result<(), String> {
    let text = text(body).map_err(|why| format!("not accepted: {why}"))?;
    match parse(text, &mut Vec::new()).invalid {
        None => Ok(()),
        Some(invalid) => {
            let line = text
                .lines()
                .nth(invalid.line.saturating_sub(1) as usize)
                .unwrap_or_default();
            Err(format!(
                "{invalid} {} Line {}: {line:?}",
                invalid.reason.explain(),
                invalid.line
            ))
        }
    }
}
