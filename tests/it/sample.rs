//! `ticketd sample`: made-up tickets.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;
use ticketd::ticket::{TicketSplitter, parse};
use ticketd_testing::*;

use crate::TICKETD;

const NO_SETTINGS: &[(&str, &str)] = &[];

async fn made_up(args: &[&str]) -> String {
    let ended = Process::run(TICKETD, &[&["sample"], args].concat(), NO_SETTINGS).await;
    assert_eq!(ended.code(), Some(0), "{}", ended.log);
    ended.text().to_owned()
}

/// Each ticket of a text of many.
fn split(text: &str) -> Vec<String> {
    let mut splitter = TicketSplitter::new(64 * 1024);
    splitter.push(text.as_bytes());
    splitter.end();
    let mut tickets = Vec::new();
    while let Some(ticket) = splitter.next_ticket().unwrap() {
        tickets.push(String::from_utf8(ticket.body.to_vec()).unwrap());
    }
    tickets
}

/// The same number makes the same tickets, which can be told apart in one text, and of which some are
/// invalid; as JSON they are the same with their keys.
#[tokio::test]
async fn a_seed_makes_the_same_tickets() {
    let args = ["--seed", "7", "--count", "2000"];
    let text = made_up(&args).await;
    assert_eq!(text, made_up(&args).await);
    assert_ne!(text, made_up(&["--seed", "8", "--count", "2000"]).await);
    let tickets = split(&text);
    assert_eq!(tickets.len(), 2000);
    let is_invalid = |text: &&String| parse(text, &mut Vec::new()).invalid.is_some();
    let invalid = tickets.iter().filter(is_invalid).count();
    assert!((20..=60).contains(&invalid), "{invalid}");
    let json = made_up(&[&args[..], &["--format", "json"]].concat()).await;
    let lines = json.lines().map(|line| serde_json::from_str(line).unwrap());
    let lines: Vec<Value> = lines.collect();
    let texts: Vec<_> = lines
        .iter()
        .map(|line| line["ticket"].as_str().unwrap())
        .collect();
    assert_eq!(texts, tickets);
    assert!(lines.iter().all(|line| line["issued_at"].is_string()));
    let keys = lines.iter().map(|line| line["key"].as_str().unwrap());
    assert_eq!(keys.collect::<std::collections::HashSet<_>>().len(), 2000);
}

/// Credentials that it makes let its shops in; the tokens are for nobody else to read, and no file is
/// written over.
#[tokio::test]
async fn its_credentials_let_its_shops_in() {
    let folder = std::env::temp_dir().join(format!("ticketd-sample-{}", uuid::Uuid::now_v7()));
    fs::create_dir(&folder).unwrap();
    let file = folder.join("credentials");
    let path = file.to_str().unwrap();
    let args = ["--sources", "3", "--write-credentials", path];
    assert_eq!(made_up(&args).await, "");
    let again = Process::run(TICKETD, &[&["sample"], &args[..]].concat(), NO_SETTINGS).await;
    assert_eq!(again.code(), Some(1), "{}", again.log);
    let tokens = folder.join("credentials.tokens");
    assert_eq!(
        fs::metadata(&tokens).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let tokens = fs::read_to_string(&tokens).unwrap();
    let tokens: Vec<_> = tokens
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .collect();
    assert_eq!(tokens.len(), 3);
    let credentials = fs::read_to_string(&file).unwrap();
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace
        .ready("serve", &[("CREDENTIALS_FILE", path)])
        .await;
    for (name, token) in tokens {
        assert!(!credentials.contains(token));
        let authorization = format!("authorization: Bearer {token}");
        let answer = ticketd
            .client()
            .await
            .ask(post(&[&authorization], EXAMPLE))
            .await;
        let id = answer.id();
        namespace.row(id).await;
        let (source, _) = namespace.origin("tickets", id).await.unwrap();
        assert_eq!(source.as_deref(), Some(name));
    }
    ticketd.drained().await;
    fs::remove_dir_all(&folder).unwrap();
}
