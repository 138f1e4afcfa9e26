//! Secrets in files, as orchestrators hand them to a process.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The largest such file, in bytes: far more than any URL.
const BYTES_MAX: u64 = 65_536;

/// The secret in a file, without the line end behind it; what is wrong with the file, without any of
/// its content.
pub(super) fn secret(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(format!("it has more than {BYTES_MAX} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        return Err("it is empty".into());
    }
    Ok(line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_is_no_part_of_a_secret() {
        let path = std::env::temp_dir().join(format!("ticketd-secret-{}", std::process::id()));
        for (content, read) in [
            ("s", "s"),
            ("s\n", "s"),
            ("s\r\n", "s"),
            ("s\n\n", "s\n"),
            (" s \n", " s "),
        ] {
            std::fs::write(&path, content).expect("a file");
            assert_eq!(secret(&path).as_deref(), Ok(read), "{content:?}");
        }
        std::fs::remove_file(&path).expect("it is there");
    }
}
