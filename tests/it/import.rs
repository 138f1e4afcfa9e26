//! `ticketd import`: the tickets of files, each stored once.

mod direct;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use ticketd::source::{Source, id_of_key, id_of_nth};
use ticketd_testing::*;
use uuid::Uuid;

use crate::TICKETD;

const NONE: &[(&str, &str)] = &[];

/// A folder of a test's own, gone at its end.
struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("import-{}", Uuid::now_v7()));
        fs::create_dir_all(&path).unwrap();
        Self(path.canonicalize().unwrap())
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn put(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

/// Imports, which must end with this exit code; returns what was said.
async fn import(place: &Namespace, args: &[&str], code: i32) -> String {
    let args = [&["import"], args].concat();
    let ended = place.run(&args, NONE).await;
    assert_eq!(ended.code(), Some(code), "{}{}", ended.text(), ended.log);
    ended.text().to_owned()
}

fn tickets(orders: impl IntoIterator<Item = usize>) -> String {
    orders
        .into_iter()
        .map(|order| ticket(&order.to_string()))
        .collect()
}

/// The key of a file, as it is documented.
fn key(path: &str) -> String {
    let sum = Command::new("sha256sum").arg(path).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    format!("import:{path}:{}", sum.split(' ').next().unwrap())
}

async fn ids(place: &Namespace) -> Vec<Uuid> {
    let mut ids: Vec<_> = place
        .rows()
        .await
        .into_iter()
        .map(|row| row.ticket_id)
        .collect();
    ids.sort_unstable();
    ids
}

/// Each ticket of each file is stored once, however often that is imported and by whichever name, with
/// the documented id. The same content in another place are other tickets.
#[tokio::test]
async fn each_ticket_of_a_file_is_stored_once() {
    let place = Namespace::new(TICKETD).await;
    let ticketd = place.ready("consume", &[]).await;
    let files = Files::new();
    let text = files.put("a/1.txt", tickets(1..=3));
    let same = files.put("b/c/1.txt", tickets(1..=3));
    let lines = concat!(
        "{\"ticket\":\"Order: 4\\n\",\"key\":\"till/4\",\"issued_at\":\"2026-11-27T12:00:00Z\"}\n\n",
        "{\"ticket\":\"Order: 5\\n\"}"
    );
    let lines = files.put("b/2.JSONL", lines);
    for ignored in [".hidden", "b/3.txt.part", "b/4.tmp"] {
        files.put(ignored, "Order: 9\n");
    }
    symlink(files.path(), files.0.join("b/loop")).unwrap();
    let relative = format!("{}/b/../a/1.txt", files.path());
    for args in [&[files.path()][..], &[&text, &relative], &[files.path()]] {
        let args = [&["--source", "shop-1"], args].concat();
        let said = import(&place, &args, 0).await;
        assert!(["8\t0\n", "6\t0\n"].contains(&said.as_str()), "{said}");
    }
    let shop = Source::parse("shop-1").unwrap();
    let mut expected = vec![id_of_key(Some(&shop), b"till/4")];
    for (path, numbers) in [(&text, 1..=3), (&same, 1..=3), (&lines, 2..=2)] {
        let file = id_of_key(Some(&shop), key(path).as_bytes());
        expected.extend(numbers.map(|number| id_of_nth(file, number)));
    }
    expected.sort_unstable();
    place.stored(8).await;
    ticketd.drained().await;
    assert_eq!(ids(&place).await, expected);
    let origin = place
        .origin("tickets", id_of_key(Some(&shop), b"till/4"))
        .await;
    let (source, issued_at) = origin.unwrap();
    assert_eq!(source.as_deref(), Some("shop-1"));
    assert!(issued_at.unwrap().starts_with("2026-11-27"));
    assert_eq!(place.depth(place.queue()).await, 0);
}

/// Compressed files are inflated, by their names; one that is cut off is named, and what stands before
/// its end is stored.
#[tokio::test]
async fn compressed_files_are_inflated() {
    let place = Namespace::new(TICKETD).await;
    let ticketd = place.ready("consume", &[]).await;
    let files = Files::new();
    let pack = |program: &str, path: &str| {
        let packed = Command::new(program).arg("-q").arg(path).status().unwrap();
        assert!(packed.success(), "{program} {path}");
    };
    pack("gzip", &files.put("1.txt", tickets(0..3000)));
    pack(
        "gzip",
        &files.put("2.ndjson", "{\"ticket\":\"Order: 1\"}\n".repeat(20)),
    );
    let zst = zstd::encode_all(tickets(0..3000).as_bytes(), 3).unwrap();
    files.put("3.txt.ZST", &zst);
    files.put("4.zst", &zst[..zst.len() - 9]);
    files.put("5.gz", "Order: 1\n");
    for _ in 0..2 {
        let said = import(&place, &[files.path()], 1).await;
        let lines: Vec<_> = said.lines().collect();
        let folder = files.path();
        assert_eq!(
            lines[0],
            format!("{folder}/4.zst: the zstd body ends early")
        );
        assert_eq!(
            lines[1],
            format!("{folder}/5.gz: the body is not valid gzip")
        );
        let (confirmed, rejected) = lines[2].split_once('\t').unwrap();
        assert_eq!(rejected, "2");
        place.stored(confirmed.parse().unwrap()).await;
        assert!((6020..9020).contains(&confirmed.parse().unwrap()), "{said}");
    }
    ticketd.drained().await;
}

/// With a key, tickets have the ids that they have with POST /tickets: those of standard input, and of
/// a file that has grown.
#[tokio::test]
async fn a_key_makes_the_ids_of_a_request() {
    let place = Namespace::new(TICKETD).await;
    let mut ticketd = place.ready("serve", &[]).await;
    let mut client = ticketd.client().await;
    let post = head(&["Idempotency-Key: day-1"], tickets(1..=2).len());
    let post = post.replacen("/ticket ", "/tickets ", 1) + &tickets(1..=2);
    assert_eq!(client.ask(post).await.status, 202);
    let files = Files::new();
    let grown = files.put("x", tickets(1..=3));
    import(&place, &["--key=day-1", &grown], 0).await;
    let script = format!("cat {grown} | {TICKETD} import --key=day-1 -");
    let mut command = Command::new("sh");
    command
        .args(["-c", &script])
        .envs(place.settings("import", &[]));
    let ended = Process::spawn(&mut command, None).ended().await;
    assert_eq!(
        (ended.code(), ended.text()),
        (Some(0), "3\t0\n"),
        "{}",
        ended.log
    );
    place.stored(3).await;
    ticketd.drained().await;
    assert_eq!(place.count("tickets").await, 3);
}

/// What cannot be stored or read is named, with its ticket and line; the others are stored.
#[tokio::test]
async fn what_cannot_be_stored_is_named_and_the_others_go_on() {
    let place = Namespace::new(TICKETD).await;
    let ticketd = place.ready("consume", &[]).await;
    let files = Files::new();
    let folder = files.path();
    files.put(
        "1.txt",
        b"\nOrder: 1\nOrder: 2\nVAT: \0\nOrder: 3\nx: \xff\nOrder: 4\n",
    );
    files.put("2.txt", "VAT: 1\nOrder: 1\n");
    files.put(
        "3.txt",
        format!("Order: 5\nOrder: {}\nOrder: 6\n", "x".repeat(100)),
    );
    files.put("4.txt", " \n\n");
    files.put(
        "5.ndjson",
        "{\"ticket\":\"Order: 7\"}\n{}\n{\"ticket\":\"\"}\n{\"ticket\":\"Order: 8\"}\n",
    );
    let said = import(&place, &["--body-max=100", folder, "/none"], 1).await;
    let expected = [
        ("1.txt", "ticket 2, line 4: "),
        ("1.txt", "ticket 3, line 6: "),
        (
            "2.txt",
            "ticket 1, line 1: the first ticket does not begin with Order:",
        ),
        ("2.txt", "what follows it is not read"),
        ("3.txt", "ticket 2, line 2: the ticket is too large"),
        ("3.txt", "what follows it is not read"),
        ("4.txt", "there is no ticket in it"),
        ("5.ndjson", "ticket 2, line 2: the line has no ticket"),
        ("5.ndjson", "ticket 3, line 3: "),
    ];
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), expected.len() + 2, "{said}");
    for (line, (name, why)) in lines.iter().zip(expected) {
        assert!(
            line.starts_with(&format!("{folder}/{name}: {why}")),
            "{line}"
        );
    }
    assert!(lines[9].starts_with("/none: No such file"), "{said}");
    assert_eq!(lines[10], "5\t8");
    place.stored(5).await;
    ticketd.drained().await;
    assert_eq!(place.count("dead_tickets").await, 0);
}

/// Killed in its middle, interrupted in its middle, and run to its end: each ticket is stored once.
#[tokio::test]
async fn an_import_that_was_killed_is_repeated_without_a_double() {
    const TICKETS: usize = 8000;
    let place = Namespace::new(TICKETD).await;
    let files = Files::new();
    for file in 0..4 {
        let orders = (file * TICKETS / 4)..((file + 1) * TICKETS / 4);
        files.put(&format!("{file}.txt"), tickets(orders));
    }
    // Makes the queue.
    let first = files.0.join("0.txt");
    import(&place, &["--key=first", first.to_str().unwrap()], 0).await;
    for signal in ["KILL", "INT"] {
        let before = place.depth(place.queue()).await;
        // Small groups, so that there is a middle.
        let settings = place.settings("import", &[("PUBLISH_GROUP_MAX", "2")]);
        let mut importing = Process::start(TICKETD, &["import", files.path()], &settings);
        wait_until("some are published", async || {
            place.depth(place.queue()).await > before + 20
        })
        .await;
        assert!(importing.try_end().is_none(), "it has a middle");
        importing.signal(signal);
        let ended = importing.ended().await;
        let code = if signal == "INT" { Some(1) } else { None };
        assert_eq!(ended.code(), code, "{}", ended.log);
    }
    assert_eq!(
        import(&place, &[files.path()], 0).await,
        format!("{TICKETS}\t0\n")
    );
    let ticketd = place.ready("consume", &[]).await;
    let first = TICKETS as i64 / 4;
    place.stored(TICKETS as i64 + first).await;
    ticketd.drained().await;
    assert_eq!(place.depth(place.queue()).await, 0);
    assert_eq!(place.count("tickets").await, TICKETS as i64 + first);
}

/// RabbitMQ away: an import ends in time, and says that it may be repeated; one whose link is cut goes on.
#[tokio::test]
async fn rabbitmq_may_be_away_for_a_while() {
    let place = Namespace::new(TICKETD).await;
    let files = Files::new();
    files.put("1.txt", tickets(0..3000));
    let mut link = Forwarder::shut();
    let settings = [
        ("AMQP_URL", link.url(&place.amqp_url())),
        ("PUBLISH_GROUP_MAX", "2".into()),
    ];
    let settings: Vec<_> = settings
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let ended = place
        .run(&["import", files.path(), "--timeout=300ms"], &settings)
        .await;
    assert_eq!(ended.code(), Some(1));
    assert!(
        ended.log.contains("RabbitMQ did not answer in time"),
        "{}",
        ended.log
    );
    let settings = place.settings("import", &settings);
    let importing = Process::start(TICKETD, &["import", files.path()], &settings);
    link.open(&place.amqp_url());
    wait_until("it is connected", async || !link.connections().is_empty()).await;
    for _ in 0..3 {
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
        link.cut();
    }
    wait_until("it has come back", async || link.connections().len() > 1).await;
    let ended = importing.ended().await;
    assert_eq!(
        (ended.code(), ended.text()),
        (Some(0), "3000\t0\n"),
        "{}",
        ended.log
    );
    let ticketd = place.ready("consume", &[]).await;
    place.stored(3000).await;
    ticketd.drained().await;
    assert_eq!(place.count("tickets").await, 3000);
}
