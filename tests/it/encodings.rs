//! Tickets that come compressed, or in an older charset.

use std::io::Write;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use ticketd_testing::proc::{status, usage};
use ticketd_testing::*;

use crate::TICKETD;
use crate::senders::{KEY_3, LINES, SHOP_1, signed};

const GZIP: &str = "content-encoding: gzip";
const ZSTD: &str = "content-encoding: zstd";

pub(crate) fn gzip(body: impl AsRef<[u8]>) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(body.as_ref()).unwrap();
    gzip.finish().unwrap()
}

pub(crate) fn zstd(body: impl AsRef<[u8]>) -> Vec<u8> {
    zstd::encode_all(body.as_ref(), 3).unwrap()
}

/// A frame of 16,000 blocks that repeat a byte 128 KiB times: 2 GiB of 64,006 bytes.
pub(crate) fn bomb() -> Vec<u8> {
    let mut bomb = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 13 << 3];
    bomb.extend([0x02, 0x00, 0x10, b'x'].repeat(16_000));
    bomb
}

/// The same as POST /check.
fn check(mut request: Vec<u8>) -> Vec<u8> {
    request.splice(.."POST /ticket".len(), *b"POST /check");
    request
}

/// In chunks of so many bytes.
fn chunked(header: &str, body: &[u8], bytes: usize) -> Vec<u8> {
    let head = "POST /ticket HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n";
    let mut request = format!("{head}{header}\r\n\r\n").into_bytes();
    for chunk in body.chunks(bytes) {
        request.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        request.extend(chunk);
        request.extend(b"\r\n");
    }
    request.extend(b"0\r\n\r\n");
    request
}

/// What is compressed is stored as it was before, whichever way it comes.
#[tokio::test]
async fn a_compressed_ticket_is_stored_as_its_text() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let mut client = ticketd.client().await;
    let (first, second) = EXAMPLE.split_at(20);
    let members = [gzip(first), gzip(second)].concat();
    let frames = [zstd(first), zstd(second)].concat();
    for request in [
        post(&[GZIP], gzip(EXAMPLE)),
        post(&["content-encoding: x-gzip"], &members),
        post(&["Content-Encoding: ZSTD"], zstd(EXAMPLE)),
        post(&[ZSTD], &frames),
        chunked(GZIP, &gzip(EXAMPLE), 1),
        chunked(ZSTD, &zstd(EXAMPLE), 7),
    ] {
        let id = client.ask(&request).await.id();
        let row = namespace.row(id).await;
        assert_eq!(row.ticket_text.as_deref(), Some(EXAMPLE));
        assert!(row.valid);
    }
    // A key is the same ticket's, in whichever form it comes.
    let key = "idempotency-key: till-7/4711";
    let id = namespace.accepted(&mut client, &[key], EXAMPLE).await;
    let again = client.ask(post(&[key, GZIP], gzip(EXAMPLE))).await;
    assert_eq!(again.id(), id);
    namespace.stored(7).await;
    let verdict = client.ask(check(post(&[GZIP], gzip(EXAMPLE)))).await;
    assert_eq!(verdict.json()["valid"], true);
    assert_eq!(namespace.count("dead_tickets").await, 0);
}

/// The older charsets are characters in the row, and the euro sign is one of them.
#[tokio::test]
async fn an_older_charset_is_stored_as_utf_8() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let mut client = ticketd.client().await;
    let text = format!("{EXAMPLE}Crème à 2 €,9,2.00\n");
    let (bytes, _, is_lossy) = encoding_rs::WINDOWS_1252.encode(&text);
    assert!(!is_lossy && std::str::from_utf8(&bytes).is_err());
    let of = |charset: &str| format!("content-type: text/plain; charset={charset}");
    for charset in ["windows-1252", "ISO-8859-1", "\"latin1\""] {
        let header = of(charset);
        for request in [
            post(&[&header], &bytes),
            post(&[&header, GZIP], gzip(&bytes)),
            post(&[&header, ZSTD], zstd(&bytes)),
        ] {
            let id = client.ask(&request).await.id();
            assert_eq!(namespace.row(id).await.ticket_text.as_ref(), Some(&text));
        }
    }
    for charset in ["utf-8", "us-ascii"] {
        let id = namespace
            .accepted(&mut client, &[&of(charset)], &text)
            .await;
        assert_eq!(namespace.row(id).await.ticket_text.as_ref(), Some(&text));
    }
    for header in [
        of("utf-8"),
        "content-type: application/octet-stream; charset=latin1".into(),
    ] {
        let detail = client.ask(post(&[&header], &bytes)).await.problem(400);
        assert_eq!(detail, "the ticket is not valid UTF-8");
    }
    let nul = client.ask(post(&[&of("latin1")], b"a\0\xe9")).await;
    assert_eq!(nul.problem(400), "the ticket holds a NUL character");
    let verdict = check(post(
        &[&of("cp1252"), "accept: text/plain"],
        b"Order: \xe9\nVAT: \xe8\n",
    ));
    assert!(client.ask(verdict).await.text().contains("VAT: è"));
}

/// A signature is of the bytes that were sent: of what is compressed, and not of what it becomes.
#[tokio::test]
async fn a_signature_is_of_the_bytes_that_came() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[("CREDENTIALS", LINES)]).await;
    let mut client = ticketd.client().await;
    let latin = "content-type: text/plain; charset=iso-8859-1";
    let now_s = now_us() / 1_000_000;
    let bodies = [
        (GZIP, gzip(EXAMPLE)),
        (ZSTD, zstd(EXAMPLE)),
        (latin, b"Caf\xe9".to_vec()),
    ];
    for (number, (header, body)) in bodies.iter().enumerate() {
        let of = |signed_body: &[u8]| {
            let mut headers = signed(KEY_3, &format!("m{number}"), now_s, signed_body);
            headers.push((*header).to_owned());
            let headers: Vec<_> = headers.iter().map(String::as_str).collect();
            post(&headers, body)
        };
        client.ask(of(EXAMPLE.as_bytes())).await.problem(401);
        client.ask(of("Café".as_bytes())).await.problem(401);
        let id = client.ask(of(body)).await.id();
        let text = namespace.row(id).await.ticket_text.unwrap();
        assert_eq!(text, if *header == latin { "Café" } else { EXAMPLE });
        assert_eq!(
            namespace.origin("tickets", id).await.unwrap().0.as_deref(),
            Some("shop-3")
        );
    }
    // Nothing is inflated for a stranger.
    let forged = signed(b"another-key-of-24-bytes-", "m9", now_s, "");
    let mut headers: Vec<_> = forged.iter().map(String::as_str).collect();
    headers.push(ZSTD);
    client.ask(post(&headers, bomb())).await.problem(401);
}

/// What is broken is told so, by what is wrong with it, and counted; the connection goes on.
#[tokio::test]
async fn a_broken_body_is_refused_with_what_is_wrong() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[]).await;
    let mut client = ticketd.client().await;
    let (gz, zst) = (gzip(EXAMPLE), zstd(EXAMPLE));
    let mut large_window = zstd::Encoder::new(Vec::new(), 1).unwrap();
    large_window.window_log(24).unwrap();
    large_window.write_all(EXAMPLE.as_bytes()).unwrap();
    large_window.flush().unwrap();
    let large_window = large_window.finish().unwrap();
    let broken = [
        (
            GZIP,
            EXAMPLE.as_bytes().to_vec(),
            "the body is not valid gzip",
        ),
        (
            ZSTD,
            EXAMPLE.as_bytes().to_vec(),
            "the body is not valid zstd",
        ),
        (
            GZIP,
            gz[..gz.len() - 1].to_vec(),
            "the gzip body ends early",
        ),
        (
            ZSTD,
            zst[..zst.len() - 1].to_vec(),
            "the zstd body ends early",
        ),
        (GZIP, Vec::new(), "the gzip body ends early"),
        (
            GZIP,
            [&gz[..], b"\n"].concat(),
            "something follows the gzip body",
        ),
        (
            ZSTD,
            [&zst[..], b"Order: 2"].concat(),
            "something follows the zstd body",
        ),
        (
            ZSTD,
            large_window,
            "the zstd body asks for a window of more than 8 MiB",
        ),
    ];
    for (header, body, detail) in &broken {
        let request = post(&[header], body);
        assert_eq!(client.ask(&request).await.problem(400), *detail);
        assert_eq!(client.ask(check(request)).await.problem(400), *detail);
    }
    // What is inflated is held to the same rules as what is not.
    let empty = client.ask(post(&[GZIP], gzip(""))).await;
    assert_eq!(empty.problem(400), "the ticket is empty");
    let binary = client.ask(post(&[ZSTD], zstd(b"\xff"))).await;
    assert_eq!(binary.problem(400), "the ticket is not valid UTF-8");
    let page = client.ask(get("/metrics")).await;
    let count = |reason: &str| {
        let series = format!("ticketd_rejected_total{{reason=\"{reason}\"}}");
        metric(page.text(), &series).unwrap()
    };
    assert_eq!(count("bad_encoding"), 8.0, "those of POST /ticket");
    assert_eq!(count("not_text"), 2.0);
    assert_eq!(namespace.depth(namespace.queue()).await, 0);
}

/// The maximum is of what is stored, to the byte.
#[tokio::test]
async fn the_largest_ticket_is_the_same_in_every_form() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[("BODY_MAX", "1000")]).await;
    let largest = "x".repeat(1000);
    let larger = "x".repeat(1001);
    for (header, form) in [(GZIP, gzip as fn(String) -> Vec<u8>), (ZSTD, zstd)] {
        let mut client = ticketd.client().await;
        client
            .ask(post(&[header], form(largest.clone())))
            .await
            .id();
        let answer = client.ask(post(&[header], form(larger.clone()))).await;
        assert_eq!(answer.problem(413), "a ticket has at most 1000 bytes");
    }
    let latin = "content-type: text/plain; charset=latin1";
    let mut client = ticketd.client().await;
    client.ask(post(&[latin], [0xe9; 500])).await.id();
    client.ask(post(&[latin], [0xe9; 501])).await.problem(413);
    // So is that of what is sent.
    let incompressible = zstd((0..2000).map(|_| fastrand::u8(..)).collect::<Vec<_>>());
    let mut client = ticketd.client().await;
    client.ask(post(&[ZSTD], incompressible)).await.problem(413);
}

/// Bombs of 2 GiB each, many at once, are 413; memory stays flat, and others are served meanwhile.
#[tokio::test]
async fn bombs_cost_neither_memory_nor_other_senders_time() {
    const SENDERS: usize = 32;
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[]).await;
    let mut client = ticketd.client().await;
    client.ask(post(&[ZSTD], bomb())).await.problem(413);
    let address = ticketd.address("LISTEN").await;
    let before = usage(ticketd.pid()).rss_kib;
    let request = post(&[ZSTD], bomb());
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let request = request.clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    let mut client = Client::connect(address).await.unwrap();
                    client.ask(&request).await.problem(413);
                }
            })
        })
        .collect();
    let mut longest = Duration::ZERO;
    let mut client = ticketd.client().await;
    while !senders.iter().all(tokio::task::JoinHandle::is_finished) {
        let began = Instant::now();
        namespace.accepted(&mut client, &[], EXAMPLE).await;
        longest = longest.max(began.elapsed());
    }
    for sender in senders {
        sender.await.unwrap();
    }
    let peak = status(ticketd.pid(), "VmHWM").unwrap();
    // The bodies as they came, 64 KiB each with its buffer, and not what they pretend to be.
    assert!(
        peak < before + 24 * 1024,
        "{before} KiB before, {peak} KiB at most"
    );
    assert!(longest < Duration::from_secs(1), "{longest:?}");
}

/// Strangers are told what they lack before a coding is looked at, and a source its limit.
#[tokio::test]
async fn who_sends_comes_before_what() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[("CREDENTIALS", LINES)]).await;
    let mut client = ticketd.client().await;
    client
        .ask(post(&[SHOP_1, GZIP], "no gzip"))
        .await
        .problem(400);
    client.ask(post(&[SHOP_1, GZIP], gzip(EXAMPLE))).await.id();
    for (header, body) in [(GZIP, gzip(EXAMPLE)), (ZSTD, bomb())] {
        let mut stranger = ticketd.client().await;
        stranger.ask(post(&[header], body)).await.problem(401);
    }
    let charset = "content-type: text/plain; charset=utf-16";
    for (who, status) in [(SHOP_1, 415), ("accept: */*", 401)] {
        let head = head(&[charset, who], 1000);
        let answer = ticketd.client().await.ask(head).await;
        let detail = answer.problem(status);
        assert_eq!(
            detail.starts_with("a charset is one of utf-8"),
            status == 415
        );
    }
}
