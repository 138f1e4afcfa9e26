//! `ticketd check`: is this a valid ticket, and if not, why?

use std::io::{Read, Write};
use std::path::Path;

use anyhow::Context;

use serde_json::{Value, json};

use crate::config::CheckFormat;
use crate::ticket::{Diagnosis, parse, text};

/// What is wrong with a file.
enum Fault<'a> {
    /// It would not be accepted, for this reason.
    NotText(String),
    /// It would be stored as an invalid ticket.
    Invalid(Diagnosis<'a>),
}

/// Says of each file whether it is a valid ticket, and if not, why and where. True if all are.
pub fn check(
    files: &[impl AsRef<Path>],
    format: CheckFormat,
    out: &mut impl Write,
) -> anyhow::Result<bool> {
    let mut all_valid = true;
    for file in files {
        let file = file.as_ref();
        let body = read(file)?;
        let verdict = verdict(&body);
        all_valid &= verdict.is_ok();
        let name = file.display().to_string();
        match format {
            CheckFormat::Text => write_text(&name, &verdict, out)?,
            CheckFormat::Json => write_json(&name, &verdict, out)?,
        }
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

fn verdict(body: &[u8]) -> Result<(), Fault<'_>> {
    let text = text(body).map_err(|why| Fault::NotText(why.to_string()))?;
    match parse(text, &mut Vec::new()).invalid {
        None => Ok(()),
        Some(invalid) => Err(Fault::Invalid(Diagnosis::new(text, invalid))),
    }
}

fn write_text(
    name: &str,
    verdict: &Result<(), Fault<'_>>,
    out: &mut impl Write,
) -> std::io::Result<()> {
    match verdict {
        Ok(()) => writeln!(out, "{name}: valid"),
        Err(Fault::NotText(why)) => writeln!(out, "{name}: not accepted: {why}"),
        Err(Fault::Invalid(diagnosis)) => {
            let invalid = diagnosis.invalid();
            writeln!(out, "{name}: {invalid}\n{}", diagnosis.message(name))
        }
    }
}

fn write_json(
    name: &str,
    verdict: &Result<(), Fault<'_>>,
    out: &mut impl Write,
) -> std::io::Result<()> {
    let mut line = match verdict {
        Ok(()) => json!({ "valid": true }),
        Err(Fault::NotText(why)) => json!({ "valid": false, "reason": "not_text", "detail": why }),
        Err(Fault::Invalid(diagnosis)) => diagnosis.json(),
    };
    if let Value::Object(fields) = &mut line {
        fields.insert("file".into(), name.into());
    }
    writeln!(out, "{line}")
}
