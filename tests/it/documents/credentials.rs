//! docs/reference/credentials.md against the built binary.

use std::fs;

use super::{NO_SETTINGS, codes, root, rows_of};
use ticketd_testing::*;

use crate::TICKETD;

/// The file that the page shows can be used as it is: starts with it.
#[tokio::test]
async fn the_file_in_the_reference_is_right() {
    let page = fs::read_to_string(root().join("docs/reference/credentials.md")).unwrap();
    let (_, lines) = page.split_once("```text\n# name").expect("a file");
    let (lines, _) = lines.split_once("```").unwrap();
    let lines = format!("# name{lines}");
    let settings = [("CREDENTIALS", lines.as_str()), ("LISTEN", "127.0.0.1:0")];
    let ticketd = Process::start(TICKETD, &["accept"], &settings);
    ticketd.logged("may send tickets sources=3").await;
}

/// The page has every kind and no other: makes a credential of each, and asks which there are.
#[tokio::test]
async fn every_kind_is_in_the_reference() {
    let kinds = rows_of("credentials", "kind").into_iter();
    let kinds: Vec<_> = kinds.map(|row| codes(&row[0])[0].to_owned()).collect();
    for kind in &kinds {
        let new = ["credential", "new", "shop", "--kind", kind];
        let ended = Process::run(TICKETD, &new, NO_SETTINGS).await;
        assert_eq!(ended.code(), Some(0), "{kind}");
        assert!(ended.text().contains(&format!("\nshop {kind} ")), "{kind}");
    }
    let wrong = ["credential", "new", "shop", "--kind", "none"];
    let ended = Process::run(TICKETD, &wrong, NO_SETTINGS).await;
    let named = format!("{}, {} and {}", kinds[0], kinds[1], kinds[2]);
    assert!(ended.log.contains(&named), "{named}: {}", ended.log);
}
