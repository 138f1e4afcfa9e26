//! `ticketd sample`: made-up tickets.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

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
    let folder = Folder::new();
    let path = folder.path("credentials");
    let args = ["--sources", "3", "--write-credentials", &path];
    assert_eq!(made_up(&args).await, "");
    let again = Process::run(TICKETD, &[&["sample"], &args[..]].concat(), NO_SETTINGS).await;
    assert_eq!(again.code(), Some(1), "{}", again.log);
    let tokens = folder.path("credentials.tokens");
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
    let credentials = fs::read_to_string(&path).unwrap();
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace
        .ready("serve", &[("CREDENTIALS_FILE", path.as_str())])
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
}

/// Sent tickets are rows of their shops, once however often they are sent, with the time at which they
/// were issued: counts them.
#[tokio::test]
async fn sent_tickets_are_of_their_shops() {
    let folder = Folder::new();
    let path = folder.path("credentials");
    made_up(&["--sources", "3", "--write-credentials", &path]).await;
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace
        .ready("serve", &[("CREDENTIALS_FILE", path.as_str())])
        .await;
    let url = format!("http://{}", ticketd.address("LISTEN").await);
    let tokens = format!("{path}.tokens");
    let args = ["--send", "--url", &url, "--tokens", &tokens, "--seed", "7"];
    let args = [&args[..], &["--count", "120", "--rate", "1000"]].concat();
    for _ in 0..2 {
        assert_eq!(made_up(&args).await, "120 tickets accepted\n");
    }
    ticketd.drained().await;
    namespace.stored(120).await;
    let query =
        "select count(distinct source), count(issued_at), bool_or(source is null) from tickets";
    let row = namespace.database.query_one(query, &[]).await.unwrap();
    let counted: (i64, i64, bool) = (row.get(0), row.get(1), row.get(2));
    assert_eq!(counted, (3, 120, false));
}

/// Nothing made up is sent unasked, nor without an end where it never will be taken.
#[tokio::test]
async fn nothing_is_sent_unasked_or_in_vain() {
    let namespace = Namespace::new(TICKETD).await;
    let credentials = format!("shop bearer {}", "t".repeat(40));
    let settings = [("CREDENTIALS", credentials.as_str())];
    let mut ticketd = namespace.ready("accept", &settings).await;
    let url = format!("http://{}", ticketd.address("LISTEN").await);
    let sent = [("TICKETD_URL", url.as_str())];
    let unasked = Process::run(TICKETD, &["sample", "--count", "1"], &sent).await;
    assert!(unasked.text().starts_with("Order: "), "{}", unasked.log);
    let in_vain = Process::run(TICKETD, &["sample", "--send", "--count", "1"], &sent).await;
    assert_eq!(in_vain.code(), Some(1));
    assert!(
        in_vain.log.contains("401 a valid credential is needed"),
        "{}",
        in_vain.log
    );
    let nowhere = Process::run(TICKETD, &["sample", "--send"], NO_SETTINGS).await;
    assert_eq!(nowhere.code(), Some(2), "{}", nowhere.log);
    assert_eq!(namespace.depth(namespace.queue()).await, 0);
}

/// Where nobody answers they wait, and are all sent once somebody does: opens the way late.
#[tokio::test]
async fn tickets_wait_for_a_ticketd() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let url = format!("http://{}", ticketd.address("LISTEN").await);
    let mut way = Forwarder::shut();
    let through = way.url(&url);
    let args = [
        "sample", "--send", "--url", &through, "--count", "100", "--rate", "1000",
    ];
    let sample = Process::start(TICKETD, &args, NO_SETTINGS);
    sample.logged("tickets are not taken").await;
    way.open(&url);
    let ended = sample.ended().await;
    assert_eq!(ended.text(), "100 tickets accepted\n", "{}", ended.log);
    ticketd.drained().await;
    namespace.stored(100).await;
}

/// It goes with the value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let name = format!("ticketd-sample-{}", uuid::Uuid::now_v7());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left behind is in the folder for such things.
        let _removed = fs::remove_dir_all(&self.0);
    }
}
