//! `ticketd send`: files become tickets, each exactly once, and go where they belong.

mod folder;
mod scripted;
mod trouble;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use ticketd_testing::*;

use crate::TICKETD;
use crate::https::HOSTS;
use folder::Folder;
use scripted::{Scripted, accepted};

const NONE: &[(&str, &str)] = &[];

async fn run(args: &[&str], url: &str) -> Ended {
    let args = [&["send"], args].concat();
    Process::run(TICKETD, &args, &[("TICKETD_URL", url)]).await
}

fn watch(folder: &Folder, url: &str) -> Process {
    let args = ["send", "--watch", folder.path(), "--settle", "50ms"];
    Process::start(TICKETD, &args, &[("TICKETD_URL", url)])
}

async fn url(ticketd: &mut Process) -> String {
    format!("http://{}", ticketd.address("LISTEN").await)
}

/// Each file is a ticket, with the time of its writing, and the same one when it is sent again; its key
/// is the documented one.
#[tokio::test]
async fn each_file_is_one_ticket() {
    let place = Namespace::new(TICKETD).await;
    let mut ticketd = place.ready("serve", &[]).await;
    let url = url(&mut ticketd).await;
    let folder = Folder::new();
    let (one, bad) = (
        folder.put("1 é.txt", ticket("1")),
        folder.put("2.txt", "Bon"),
    );
    let empty = folder.put("3.txt", "");
    let noon = SystemTime::UNIX_EPOCH + Duration::from_micros(1_795_777_200_000_001);
    for (path, time) in [(&one, noon), (&bad, SystemTime::UNIX_EPOCH)] {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(time).unwrap();
    }
    for _ in 0..2 {
        let ended = run(&[&one, &bad, &empty, "/none"], &url).await;
        assert_eq!(ended.code(), Some(1), "{}", ended.log);
        let text = ended.text();
        let lines = |start: &str| text.lines().filter(|line| line.starts_with(start)).count();
        assert_eq!(lines("/none: not sent: there is no such file"), 1, "{text}");
        assert_eq!(lines(&format!("{one}: accepted ")), 1, "{text}");
        assert_eq!(lines(&format!("{bad}: accepted ")), 1, "{text}");
        let refused = format!("{empty}: rejected: 400 the ticket is empty");
        assert_eq!(lines(&refused), 1, "{text}");
        assert_eq!(text.lines().count(), 4, "{text}");
    }
    place.stored(2).await;
    let ended = run(&[&one], &url).await;
    assert_eq!(ended.code(), Some(0), "{}", ended.log);
    let hash = sha256sum(Path::new(&one));
    let key = format!("1%20%C3%A9.txt:{hash}");
    let status = Process::run(TICKETD, &["status", "--key", &key, "--url", &url], NONE).await;
    assert_eq!(status.code(), Some(0), "{}", status.log);
    assert!(
        status.text().contains(": stored, valid"),
        "{}",
        status.text()
    );
    assert!(
        status
            .text()
            .contains("issued_at: 2026-11-27T11:00:00.000001")
    );
    let issued = "select count(*) from tickets where issued_at is null";
    let without = place.database.query_one(issued, &[]).await.unwrap();
    assert_eq!(without.get::<_, i64>(0), 1, "1970 is the clock's");
    let unknown = uuid::Uuid::now_v7().to_string();
    let status = Process::run(TICKETD, &["status", &unknown, "--url", &url], NONE).await;
    assert_eq!(status.code(), Some(1));
    assert!(status.text().contains("not known"), "{}", status.text());
    assert_eq!(folder.names(".").len(), 3, "nothing is moved unasked");
    ticketd.drained().await;
}

fn sha256sum(path: &Path) -> String {
    let sum = Command::new("sha256sum").arg(path).output().unwrap();
    let text = String::from_utf8(sum.stdout).unwrap();
    text.split(' ').next().unwrap().to_owned()
}

/// A folder is sent as it fills: what is a whole file is moved, whatever its name is, to a name that no
/// other has; anything else stays.
#[tokio::test]
async fn a_folder_is_sent_as_it_fills() {
    let place = Namespace::new(TICKETD).await;
    let mut ticketd = place.ready("serve", &[("BODY_MAX", "4096")]).await;
    let folder = Folder::new();
    folder.put("before.txt", ticket("1"));
    let mut sending = watch(&folder, &url(&mut ticketd).await);
    sending.logged("watching").await;
    place.stored(1).await;

    fs::write(folder.0.join("sent/taken.txt"), "another").unwrap();
    fs::write(folder.0.join("sent/again.txt"), ticket("2")).unwrap();
    folder.put("taken.txt", ticket("3"));
    folder.put("again.txt", ticket("2"));
    folder.put(OsStr::from_bytes(b"\xff\xe9.txt"), ticket("4"));
    folder.put("x".repeat(255), ticket("5"));
    folder.put("new\nline", ticket("6"));
    folder.put("empty.txt", "");
    folder.put("large.txt", "x".repeat(4097));
    folder.put("huge.txt", vec![b'x'; 1024 * 1024 + 1]);
    folder.put("half.tmp", ticket("7"));
    folder.put("half.PART", ticket("7"));
    folder.put(".hidden", ticket("7"));
    symlink("/etc/hostname", folder.0.join("link")).unwrap();
    fs::create_dir(folder.0.join("below")).unwrap();
    fs::write(folder.0.join("below/x.txt"), ticket("7")).unwrap();
    let pipe = Command::new("mkfifo").arg(folder.0.join("pipe")).status();
    assert!(pipe.unwrap().success());

    place.stored(6).await;
    let left = ["half.PART", "half.tmp", "link", "pipe"];
    wait_until("all is moved", async || folder.names(".") == left).await;
    let sent = folder.names("sent");
    assert_eq!(sent.len(), 7, "{sent:?}");
    assert_eq!(folder.read("sent/taken.txt"), "another");
    let hash = sha256(ticket("3").as_bytes());
    let hash = hash.get(..16).unwrap();
    assert_eq!(folder.read(&format!("sent/taken.txt.{hash}")), ticket("3"));
    assert!(sent.contains(&"again.txt".to_owned()));
    let rejected = folder.names("rejected");
    let expected = ["empty.txt", "huge.txt", "large.txt"];
    let expected = expected.map(|name| [name.to_owned(), format!("{name}.problem.json")]);
    assert_eq!(rejected, expected.concat());
    let why = folder.read("rejected/empty.txt.problem.json");
    assert!(
        why.contains("the ticket is empty") && why.contains("request_id"),
        "{why}"
    );
    let why = folder.read("rejected/large.txt.problem.json");
    assert!(why.contains("at most 4096 bytes"), "{why}");

    let second = run(&["--watch", folder.path()], "http://127.0.0.1:1").await;
    assert_eq!(second.code(), Some(1));
    assert!(
        second.log.contains("another ticketd send watches"),
        "{}",
        second.log
    );
    sending.signal("TERM");
    assert_eq!(sending.end().await.code(), Some(0));
    let log = sending.log();
    assert!(
        log.contains("sent=6") && log.contains("rejected=3"),
        "{log}"
    );
    place.stored(6).await;
    ticketd.drained().await;
}

fn sha256(content: &[u8]) -> String {
    let folder = Folder::new();
    let path = folder.put("x", content);
    sha256sum(Path::new(&path))
}

/// A file that is being written is not sent before it is whole.
#[tokio::test]
async fn half_a_file_is_not_sent() {
    let server = Scripted::new(|_| accepted()).await;
    let folder = Folder::new();
    let args = ["send", "--watch", folder.path(), "--settle", "1s"];
    let sending = Process::start(TICKETD, &args, &[("TICKETD_URL", &server.url)]);
    sending.logged("watching").await;
    let path = folder.0.join("slow.txt");
    for part in 0..5 {
        let mut text = fs::read_to_string(&path).unwrap_or_default();
        text.push_str(&format!("part {part}\n"));
        fs::write(&path, text).unwrap();
        // As a copy does that keeps the time of writing.
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(server.count(), 0, "after {part}");
    }
    wait_until("it is sent", async || !folder.names("sent").is_empty()).await;
    assert!(folder.read("sent/slow.txt").ends_with("part 4\n"));
    assert_eq!(server.count(), 1);
}

/// Nobody there: the command gives up in time, and says of each file that it was not sent.
#[tokio::test]
async fn a_list_of_files_ends_in_time() {
    let folder = Folder::new();
    let files = [folder.put("1", ticket("1")), folder.put("2", ticket("2"))];
    let args = ["--timeout", "1s", &files[0], &files[1]];
    let ended = run(&args, "http://127.0.0.1:1").await;
    assert_eq!(ended.code(), Some(1));
    let lines = ended
        .text()
        .matches("not sent: cannot connect: Connection refused");
    assert_eq!(lines.count(), 2, "{}", ended.text());
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let ended = run(&args, &url).await;
    assert_eq!(ended.text().matches(" in time").count(), 2);
    let without = Process::run(TICKETD, &["send", &files[0]], NONE).await;
    assert_eq!(without.code(), Some(2));
    assert!(
        without.log.contains("TICKETD_URL is not set"),
        "{}",
        without.log
    );
}

/// Under TLS the certificate is checked; a wrong CA is told of, and moves nothing.
#[tokio::test]
async fn files_are_sent_over_https() {
    let place = Namespace::new(TICKETD).await;
    let (tls, other) = (Certificates::new(), Certificates::new());
    tls.server("host", HOSTS);
    let (cert, key) = (tls.path("host.pem"), tls.path("host.key"));
    let settings = [("TLS_CERT", &*cert), ("TLS_KEY", &*key)];
    let mut ticketd = place.start("serve", &settings);
    let port = ticketd.address("LISTEN").await.port();
    ticketd.logged("consuming").await;
    let folder = Folder::new();
    let file = folder.put("1", ticket("1"));
    let url = format!("https://localhost:{port}");
    let (right, wrong) = (tls.path("ca.pem"), other.path("ca.pem"));
    let ended = run(&["--move", "--ca", &wrong, &file], &url).await;
    assert_eq!(ended.code(), Some(1));
    assert!(
        ended.text().contains("of no CA in TICKETD_CA"),
        "{}",
        ended.text()
    );
    let plain = format!("http://localhost:{port}");
    let ended = run(&["--move", &file], &plain).await;
    assert!(
        ended
            .text()
            .contains("not sent: 400 this port speaks HTTPS"),
        "{}",
        ended.text()
    );
    let ended = run(&["--move", "--ca", &right, &file], &url).await;
    assert_eq!(ended.code(), Some(0), "{}{}", ended.text(), ended.log);
    assert_eq!(folder.names("sent"), ["1"]);
    place.stored(1).await;
}
