//! What becomes of files when something is wrong: with the server, the way there, the credential, the disk.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ticketd_testing::*;

use super::folder::Folder;
use super::scripted::{Script, Scripted, accepted, problem, response};
use super::{run, watch};
use crate::TICKETD;

/// An answer that is not about a file moves none: the command says what is wrong and ends, and a watch
/// waits, asking now and then.
#[tokio::test]
async fn what_is_not_about_a_file_sets_none_aside() {
    let scripts: [(Script, &str); 9] = [
        (
            |_| problem("401 Unauthorized", "a valid credential is needed"),
            "401 a valid",
        ),
        (|_| problem("403 Forbidden", "no source"), "403 no source"),
        (
            |_| problem("404 Not Found", "no such path"),
            "404 no such path",
        ),
        (
            |_| problem("415 Unsupported Media Type", "as it is"),
            "415 as it is",
        ),
        (|_| response("200 OK", "text/html", "log in"), "200"),
        (|_| response("302 Found", "text/html", ""), "302"),
        (|_| response("400 Bad Request", "text/html", "no"), "400"),
        (|_| response("202 Accepted", "text/html", "queued"), "202"),
        (
            |_| {
                problem(
                    "400 Bad Request",
                    "this port speaks HTTPS (TLS_CERT is set)",
                )
            },
            "400 this port speaks HTTPS",
        ),
    ];
    for (script, why) in scripts {
        let server = Scripted::new(script).await;
        let folder = Folder::new();
        let files: Vec<_> = (0..3)
            .map(|n| folder.put(format!("{n}"), ticket("1")))
            .collect();
        let args = ["--move", "--inflight=1", &files[0], &files[1], &files[2]];
        let ended = run(&args, &server.url).await;
        assert_eq!(ended.code(), Some(1), "{why}");
        assert_eq!(
            ended.text().matches(&format!(": not sent: {why}")).count(),
            3,
            "{}",
            ended.text()
        );
        assert_eq!(server.count(), 1, "{why}");
        assert_eq!(folder.names(".").len(), 3, "{why}");
    }
    let server = Scripted::new(|_| problem("401 Unauthorized", "who is it?")).await;
    let folder = Folder::new();
    for n in 0..100 {
        folder.put(format!("{n}"), ticket("1"));
    }
    let sending = watch(&folder, &server.url);
    sending.logged("no tickets are taken").await;
    wait_until("it asks again", async || server.count() > 64).await;
    assert!(server.count() < 70, "{}", server.count());
    assert_eq!(folder.names(".").len(), 100);
    sending.drained().await;
}

/// What passes is waited for as long as the server asks, with each file sent until it is taken; a token
/// that is replaced is taken without a restart.
#[tokio::test]
async fn files_are_sent_through_an_outage() {
    let server = Scripted::new(|number| match number {
        0 => {
            let asks = "\r\nretry-after: 1\r\n\r\n";
            problem("503 Service Unavailable", "away").replace("\r\n\r\n", asks)
        }
        2 => problem("429 Too Many Requests", "slowly"),
        4 => response("502 Bad Gateway", "text/html", ""),
        5 => problem("400 Bad Request", "the body is incomplete"),
        7 => String::new(),
        8 => "HTTP/1.1 202 Accepted\r\ncontent-length: 50\r\n\r\n{\"id\"".into(),
        10 => "SSH-2.0-OpenSSH\r\n".into(),
        11 => problem("408 Request Timeout", "slow"),
        13 | 14 => problem("401 Unauthorized", "who is it?"),
        _ => accepted(),
    })
    .await;
    let folder = Folder::new();
    let paths: Vec<_> = (0..20)
        .map(|n| folder.put(format!("{n}"), ticket(&n.to_string())))
        .collect();
    let token = folder.put("token.tmp", "first\n");
    let args = [
        "send",
        "--watch",
        folder.path(),
        "--inflight=1",
        "--settle=0s",
    ];
    let settings = [
        ("TICKETD_URL", &*server.url),
        ("TICKETD_TOKEN_FILE", &token),
    ];
    let started = Instant::now();
    let sending = Process::start(TICKETD, &args, &settings);
    wait_until("it is asked who it is", async || server.count() >= 14).await;
    folder.put("token.tmp", "second");
    wait_until("all are sent", async || {
        folder.names("sent").len() == paths.len()
    })
    .await;
    assert!(
        started.elapsed() > Duration::from_secs(1),
        "as it was asked to"
    );
    let requests = server.requests.lock().unwrap().clone();
    assert!(requests[0].contains("authorization: bearer first"));
    assert!(requests[15].contains("authorization: bearer second"));
    assert_eq!(folder.names("rejected").len(), 0);
    sending.logged("tickets are taken again").await;
    let ended = sending.drained().await;
    assert!(!ended.log.contains("second"), "{}", ended.log);
}

/// `sent/` may be on another file system, where a file is whole before it goes.
#[tokio::test]
async fn files_are_moved_to_another_file_system() {
    let shared = Path::new("/dev/shm");
    let folder = Folder::new();
    let is_other = fs::metadata(shared)
        .is_ok_and(|there| there.dev() != fs::metadata(&folder.0).unwrap().dev());
    if !is_other {
        println!("no other file system at /dev/shm");
        return;
    }
    let there = Folder::below(shared);
    symlink(&there.0, folder.0.join("sent")).unwrap();
    let server = Scripted::new(|_| accepted()).await;
    let paths: Vec<_> = (0..10)
        .map(|n| folder.put(format!("{n}"), ticket(&n.to_string())))
        .collect();
    // It was copied before, and ticketd killed before it could be removed.
    fs::copy(&paths[0], there.0.join("0")).unwrap();
    fs::write(there.0.join("1"), "another").unwrap();
    let written = fs::metadata(&paths[2]).unwrap().modified().unwrap();
    let sending = watch(&folder, &server.url);
    wait_until("all is moved", async || folder.names(".") == ["sent"]).await;
    let names = there.names(".");
    assert_eq!(names.len(), 11, "{names:?}");
    assert_eq!(there.read("1"), "another");
    let moved = fs::metadata(there.0.join("2")).unwrap().modified().unwrap();
    assert_eq!(moved, written);
    sending.drained().await;
}

/// A full disk keeps no file from where it belongs, and loses none: fills a small one. Only root may.
#[tokio::test]
async fn a_full_disk_loses_no_file() {
    let mount = Folder::new();
    let shell = |script: &str| {
        let ended = Command::new("sh").args(["-c", script]).status();
        ended.unwrap().success()
    };
    if !shell(&format!(
        "mount -t tmpfs -o size=64k tmpfs {} 2>/dev/null",
        mount.path()
    )) {
        println!("no full disk: this user may not mount a file system to fill");
        return;
    }
    let folder = Folder(mount.0.join("tickets"));
    fs::create_dir(&folder.0).unwrap();
    for n in 0..5 {
        folder.put(format!("{n}"), ticket(&n.to_string()));
    }
    folder.put("bad", "");
    fs::create_dir(folder.0.join("sent")).unwrap();
    fs::create_dir(folder.0.join("rejected")).unwrap();
    fs::write(folder.0.join(".ticketd-send.lock"), "").unwrap();
    // It ends when nothing more fits, which is what it is here for.
    shell(&format!(
        "dd if=/dev/zero of={}/ballast bs=4k status=none 2>/dev/null",
        mount.path()
    ));
    let server = Scripted::new(|number| match number {
        0 => problem("400 Bad Request", "the ticket is empty"),
        _ => accepted(),
    })
    .await;
    let args = [
        "send",
        "--watch",
        folder.path(),
        "--inflight=1",
        "--settle=0s",
    ];
    let sending = Process::start(TICKETD, &args, &[("TICKETD_URL", &server.url)]);
    wait_until("all is moved", async || folder.names(".").is_empty()).await;
    assert_eq!(folder.names("sent").len(), 5);
    assert_eq!(folder.names("rejected").len(), 1);
    let ended = sending.drained().await;
    assert!(
        ended.log.contains("a problem document cannot be written"),
        "{}",
        ended.log
    );
    assert!(ended.log.contains("the ticket is empty"), "{}", ended.log);
    assert!(shell(&format!("umount {}", mount.path())));
}
