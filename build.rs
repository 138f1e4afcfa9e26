//! Which revision of the source is built, as `TICKETD_REVISION` for rustc: what the variable of that
//! name says, as an image is built without git; else git's commit; else `unknown`.

use std::env::var_os;
use std::path::Path;
use std::process::Command;

fn main() -> Result<(), String> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=TICKETD_REVISION");
    let given = var_os("TICKETD_REVISION").map(|text| text.to_string_lossy().into_owned());
    let given = given.filter(|text| !text.is_empty());
    let revision = given.or_else(commit).unwrap_or_else(|| "unknown".into());
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    // It stands in JSON and in a label as it is.
    if !revision.chars().all(is_plain) {
        return Err("TICKETD_REVISION has other characters than letters, digits, . - and _".into());
    }
    println!("cargo::rustc-env=TICKETD_REVISION={revision}");
    Ok(())
}

/// The commit of this checkout; none where it lies in another one's, or is none.
fn commit() -> Option<String> {
    if !git(&["rev-parse", "--show-prefix"])?.is_empty() {
        return None;
    }
    // Both change with the commit. A file that is not there would have this run at each build.
    for file in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", file])?;
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "HEAD"])
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
