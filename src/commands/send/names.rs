//! Which names are those of tickets, and what they are called where they are moved to.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Ends of names that a file has while it is written, in any case.
const UNFINISHED: [&[u8]; 2] = [b".tmp", b".part"];

/// How much of a file's hash tells it from others of its name, in hexadecimal digits.
const HASH_CHARS: usize = 16;

/// The longest name of a file, in bytes (Linux, NAME_MAX).
const NAME_BYTES_MAX: usize = 255;

/// What the name of a problem document ends with.
const PROBLEM: &str = ".problem.json";

/// Whether a file of this name is left alone: hidden, or not finished.
pub(in crate::commands) fn is_ignored(name: &OsStr) -> bool {
    let name = name.as_bytes();
    let ends_with = |end: &&[u8]| {
        name.len()
            .checked_sub(end.len())
            .and_then(|at| name.get(at..))
            .is_some_and(|last| last.eq_ignore_ascii_case(end))
    };
    name.starts_with(b".") || UNFINISHED.iter().any(ends_with)
}

/// What a file may be called where it is moved to, the first that is free: its name, or, where that is
/// another file's, its name and the beginning of its hash.
pub(super) fn moved_names(name: &OsStr, hash: &str) -> [OsString; 2] {
    let hash = hash.get(..HASH_CHARS).unwrap_or(hash);
    [shortened(name, ""), shortened(name, &format!(".{hash}"))]
}

/// The name of the problem document beside a moved file.
pub(super) fn problem_name(moved: &OsStr) -> OsString {
    let mut name = moved.to_owned();
    name.push(PROBLEM);
    name
}

/// A name with an end, which leaves room for that of a problem document.
fn shortened(name: &OsStr, end: &str) -> OsString {
    let room = NAME_BYTES_MAX - PROBLEM.len() - end.len();
    let mut bytes = name.as_bytes().to_vec();
    if bytes.len() > room {
        bytes.truncate(room);
        // A character is not cut in two: some file systems refuse that.
        while bytes.pop_if(|byte| *byte & 0xc0 == 0x80).is_some() {}
        bytes.pop_if(|byte| *byte >= 0xc0);
    }
    bytes.extend_from_slice(end.as_bytes());
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_and_unfinished_files_are_left_alone() {
        for name in [
            ".",
            ".x",
            "x.tmp",
            "x.part",
            "X.TMP",
            "x.Part",
            ".tmp",
            "x.txt.part",
        ] {
            assert!(is_ignored(OsStr::new(name)), "{name}");
        }
        for name in ["x", "x.txt", "tmp", "part", "x.tmp.txt", "x.parts", "é"] {
            assert!(!is_ignored(OsStr::new(name)), "{name}");
        }
        assert!(!is_ignored(OsStr::from_bytes(b"\xff")));
    }

    #[test]
    fn a_name_that_is_taken_gets_its_hash() {
        let hash = "0123456789abcdef0123";
        let names = moved_names(OsStr::new("a.txt"), hash);
        assert_eq!(names, ["a.txt", "a.txt.0123456789abcdef"]);
        let problem = problem_name(OsStr::new("a.txt"));
        assert_eq!(problem, "a.txt.problem.json");
    }

    #[test]
    fn every_moved_name_fits() {
        let hash = "f".repeat(64);
        let longest = ["x".repeat(255), "é".repeat(127), "€".repeat(85)];
        for name in longest
            .iter()
            .map(OsStr::new)
            .chain([OsStr::from_bytes(&[0xff; 255])])
        {
            for moved in moved_names(name, &hash) {
                assert!(problem_name(&moved).len() <= NAME_BYTES_MAX, "{moved:?}");
                assert!(name.to_str().is_none() || moved.to_str().is_some());
            }
        }
    }
}
