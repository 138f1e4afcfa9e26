//! POST /tickets: many tickets in one body.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ticketd_testing::*;
use uuid::Uuid;

use crate::TICKETD;
use crate::encodings::{bomb, gzip, zstd};
use crate::senders::{KEY_3, LINES, SHOP_1, signed};

/// Tickets in a body that makes several full groups.
const MANY: usize = 3_000;

/// A request with these header lines and this body of many tickets.
fn bulk_to(path: &str, headers: &[&str], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = head(headers, body.len()).replacen("/ticket ", &format!("{path} "), 1);
    [head.as_bytes(), body].concat()
}

fn bulk(headers: &[&str], body: impl AsRef<[u8]>) -> Vec<u8> {
    bulk_to("/tickets", headers, body)
}

/// The same in chunks of this size.
fn bulk_in_chunks(headers: &[&str], body: &[u8], size: usize) -> Vec<u8> {
    let headers: String = headers
        .iter()
        .map(|header| format!("{header}\r\n"))
        .collect();
    let head = format!(
        "POST /tickets HTTP/1.1\r\nhost: test\r\n{headers}transfer-encoding: chunked\r\n\r\n"
    );
    let mut request = head.into_bytes();
    for chunk in body.chunks(size) {
        request.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        request.extend_from_slice(chunk);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    request
}

fn tickets(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| ticket(&format!("b-{number}"))).collect()
}

/// The ids of a body whose tickets are all confirmed.
#[track_caller]
fn ids(answer: &Answer) -> Vec<Uuid> {
    assert_eq!(answer.status, 202, "{answer:?}");
    let json = answer.json();
    let ids: Vec<_> = json["ids"]
        .as_array()
        .expect("ids")
        .iter()
        .map(id)
        .collect();
    assert_eq!(json["accepted"], ids.len());
    ids
}

fn id(value: &Value) -> Uuid {
    value
        .as_str()
        .and_then(|text| text.parse().ok())
        .expect("an id")
}

/// What is said of a body that was not taken whole: the detail, and how many tickets are confirmed.
#[track_caller]
fn problem(answer: &Answer, status: u16) -> (String, u64) {
    let detail = answer.problem(status);
    let json: Value = serde_json::from_slice(&answer.body).expect("JSON");
    (detail, json["accepted"].as_u64().expect("a count"))
}

/// The id of a ticket of a body, as the reference says.
fn id_of(key: &str, number: usize) -> Uuid {
    let namespace: Uuid = "7b0d51b2-6f5c-4e0a-9f8e-1c0d3a6b27d4".parse().unwrap();
    let of_key = Uuid::new_v5(&namespace, key.as_bytes());
    Uuid::new_v5(&of_key, number.to_string().as_bytes())
}

async fn texts(namespace: &Namespace) -> Vec<String> {
    let rows = namespace.rows().await.into_iter();
    let mut texts: Vec<_> = rows.map(|row| row.ticket_text.unwrap()).collect();
    texts.sort();
    texts
}

/// A ticket begins at a line that starts with `Order:`, and nowhere else, wherever the body is cut:
/// sends tickets that hold what looks like one, byte by byte, and reads the rows.
#[tokio::test]
async fn tickets_are_cut_exactly_and_stored_byte_for_byte() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let quoted = ticket("q").replace("Tea q", "\"Order: tea, hot\"");
    let mut expected = vec![
        quoted.clone(),
        ticket("crlf").replace('\n', "\r\n"),
        "Order: cr\rOrder: no other\r\n".to_owned(),
        "\u{feff}Order: mark\n\n\n".to_owned(),
        format!("{}Order", ticket("end")),
    ];
    let body = format!("\r\n \n{}", expected.concat());
    let mut client = ticketd.client().await;
    for size in [1, 7, 100_000] {
        let answer = client
            .ask(bulk_in_chunks(
                &["idempotency-key: k"],
                body.as_bytes(),
                size,
            ))
            .await;
        let expected: Vec<_> = (1..=5).map(|number| id_of("k", number)).collect();
        assert_eq!(ids(&answer), expected);
    }
    namespace.stored(5).await;
    ticketd.drained().await;
    expected.sort();
    assert_eq!(texts(&namespace).await, expected);
    let row = namespace.row(id_of("k", 1)).await;
    assert_eq!((row.ticket_text, row.valid), (Some(quoted), true));
    assert_eq!(namespace.count("dead_tickets").await, 0);
}

/// With a key of its own a ticket of a body is the ticket that POST /ticket makes of it, in either
/// form; without one it has the request's: posts the same tickets in both ways.
#[tokio::test]
async fn a_ticket_with_a_key_of_its_own_is_the_same_as_sent_alone() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let mut client = ticketd.client().await;
    let (one, two) = (ticket("one"), ticket("two"));
    let alone = client.ask(post(&["idempotency-key: k-1"], &one)).await.id();
    let lines = [
        json!({"key": "k-1", "ticket": one}),
        json!({"issued_at": "2026-11-27T12:00:00+01:00", "ticket": two}),
    ];
    let body = format!("{}\n\n{}", lines[0], lines[1]);
    let headers = [
        "content-type: application/x-ndjson",
        "idempotency-key: day",
        "ticket-issued-at: 2026-01-01T00:00:00Z",
    ];
    let expected = [alone, id_of("day", 2)];
    assert_eq!(ids(&client.ask(bulk(&headers, body)).await), expected);

    let body = format!(
        "--b\r\nIdempotency-Key: k-1\r\n\r\n{one}\r\n--b\r\nContent-Type: text/plain\r\n\
         Ticket-Issued-At: 2026-11-27T12:00:00+01:00\r\n\r\n{two}\r\n--b--\r\n"
    );
    let headers = [
        "content-type: multipart/mixed; boundary=\"b\"",
        headers[1],
        headers[2],
    ];
    assert_eq!(ids(&client.ask(bulk(&headers, body)).await), expected);

    namespace.stored(2).await;
    ticketd.drained().await;
    assert_eq!(namespace.count("dead_tickets").await, 0);
    let issued_at = namespace
        .origin("tickets", id_of("day", 2))
        .await
        .unwrap()
        .1;
    assert!(
        issued_at
            .as_deref()
            .is_some_and(|at| at.starts_with("2026-11-27 11:00")),
        "{issued_at:?}"
    );
}

/// Each ticket is stored once however often a body is repeated, and wherever the first attempt broke
/// off: breaks one off in the middle of a ticket, sends it again twice, and counts.
#[tokio::test]
async fn a_body_that_broke_off_is_repeated_and_stored_once() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let all = tickets(0..MANY);
    let body = all.concat();
    let request = bulk(&["idempotency-key: day"], &body);
    let mut broken = ticketd.client().await;
    broken
        .send(&request[..request.len() - body.len() / 2 - 20])
        .await;
    broken.finish().await;
    let (detail, accepted) = problem(&broken.answer().await, 400);
    assert_eq!(detail, "the body is incomplete");
    assert!((1_000..MANY as u64).contains(&accepted), "{accepted}");
    namespace.stored(accepted as i64).await;

    let mut client = ticketd.client().await;
    let expected: Vec<_> = (1..=MANY).map(|number| id_of("day", number)).collect();
    assert_eq!(ids(&client.ask(&request).await), expected);
    let told = client
        .ask(bulk_to(
            "/tickets?ids=none",
            &["idempotency-key: day"],
            &body,
        ))
        .await;
    assert_eq!((told.status, told.json()), (202, json!({"accepted": MANY})));
    let other = client.ask(bulk(&[], ticket("new"))).await;
    assert_eq!(ids(&other)[0].get_version_num(), 7);
    ticketd.drained().await;
    assert_eq!(namespace.count("tickets").await, MANY as i64 + 1);
    assert_eq!(namespace.count("dead_tickets").await, 0);
    let mut expected = all;
    expected.push(ticket("new"));
    expected.sort();
    assert_eq!(texts(&namespace).await, expected);
}

/// What cannot be stored is rejected with its place, and what stands before it is taken: sends bodies
/// with one bad ticket each.
#[tokio::test]
async fn a_bad_ticket_is_named_and_those_before_it_are_taken() {
    let namespace = Namespace::new(TICKETD).await;
    let settings = [("BODY_MAX", "1000"), ("ADMIN_LISTEN", "127.0.0.1:0")];
    let mut ticketd = namespace.ready("serve", &settings).await;
    let good = tickets(0..2).concat();
    let line = good.matches('\n').count() + 1;
    let third = |line: usize, what: &str| format!("ticket 3, line {line}: {what}");
    let large = format!("Order: {}\n", "x".repeat(1000));
    let bad = [
        (
            &b"Order: 3\nVAT: \0\n"[..],
            400,
            third(line + 1, "the ticket holds a NUL character"),
        ),
        (
            b"Order: Caf\xe9\nOrder: 4",
            400,
            third(line, "the ticket is not valid UTF-8"),
        ),
        (
            large.as_bytes(),
            413,
            third(line, "the ticket is too large"),
        ),
    ];
    for (bad, status, detail) in bad {
        let body = [good.as_bytes(), bad].concat();
        let answer = ticketd.client().await.ask(bulk(&[], body)).await;
        assert_eq!(problem(&answer, status), (detail, 2));
    }
    let second = |what: &str| format!("ticket 2, line 2: {what}");
    let bad_key = "a key has 1 to 255 visible ASCII characters";
    let bad = [
        ("", second("the line has no ticket")),
        (
            "\"ticket\":\"a\\u0000\"",
            second("the ticket holds a NUL character"),
        ),
        ("\"ticket\":\"a\",\"key\":\" \"", second(bad_key)),
    ];
    for (bad, detail) in bad {
        let body = format!("{}\n{{{bad}}}\n", json!({"ticket": good}));
        let request = bulk(&["content-type: application/x-ndjson"], body);
        let answer = ticketd.client().await.ask(request).await;
        assert_eq!(problem(&answer, 400), (detail, 1));
    }
    let before = "ticket 1, line 2: the first ticket does not begin with Order:";
    for (body, detail) in [
        ("\nVAT: 1\n", before),
        (" \n", "there is no ticket in the body"),
    ] {
        let answer = ticketd.client().await.ask(bulk(&[], body)).await;
        assert_eq!(problem(&answer, 400), (detail.to_owned(), 0));
    }
    let metrics = ticketd.admin().await.ask(get("/metrics")).await;
    assert_eq!(metric(metrics.text(), "ticketd_accepted_total"), Some(9.0));
    let counted = ["not_text", "too_large", "malformed", "bad_key"].map(|reason| {
        let series = format!("ticketd_rejected_total{{reason=\"{reason}\"}}");
        metric(metrics.text(), &series)
    });
    assert_eq!(counted, [3.0, 1.0, 3.0, 1.0].map(Some));
    namespace.stored(9).await;
}

/// What the head tells is answered before anything is taken: sends what no body can mend.
#[tokio::test]
async fn what_the_head_tells_is_rejected_before_the_body() {
    let namespace = Namespace::new(TICKETD).await;
    let settings = [("CREDENTIALS", LINES), ("BULK_MAX", "1000")];
    let mut ticketd = namespace.ready("serve", &settings).await;
    let signed = signed(KEY_3, "m-1", now_us() / 1_000_000, EXAMPLE);
    let signed: Vec<_> = signed.iter().map(String::as_str).collect();
    let unsigned = "many tickets together are not signed: send a token or a client's certificate";
    let types =
        "Content-Type is text/plain, application/x-ndjson or multipart/mixed with a boundary";
    let coding = "a body has at most one Content-Encoding: gzip or zstd";
    let bad_key = "a key has 1 to 255 visible ASCII characters";
    for (headers, status, detail) in [
        (&[][..], 401, "a valid credential is needed"),
        (&signed, 401, unsigned),
        (&[SHOP_1, "content-type: application/json"], 415, types),
        (&[SHOP_1, "content-type: multipart/mixed"], 415, types),
        (&[SHOP_1, "content-encoding: br"], 415, coding),
        (&[SHOP_1, "idempotency-key: a b"], 400, bad_key),
    ] {
        let answer = ticketd.client().await.ask(bulk(headers, EXAMPLE)).await;
        assert_eq!(answer.problem(status), detail);
    }
    let other_ids = bulk_to("/tickets?ids=some", &[SHOP_1], EXAMPLE);
    let answer = ticketd.client().await.ask(other_ids).await;
    assert_eq!(answer.problem(400), "ids is all or none");
    let (large, at_most) = (
        ticket("large").repeat(20),
        "many tickets together have at most 1000 bytes (BULK_MAX)",
    );
    let answer = ticketd.client().await.ask(bulk(&[SHOP_1], &large)).await;
    assert_eq!(answer.problem(413), at_most);
    let chunked = bulk_in_chunks(&[SHOP_1], large.as_bytes(), 100);
    let answer = ticketd.client().await.ask(chunked).await;
    let (detail, accepted) = problem(&answer, 413);
    assert_eq!(detail, at_most);
    assert!(accepted < 20 && answer.closes(), "{accepted}");
    let answer = ticketd
        .client()
        .await
        .ask(request("DELETE", "/tickets"))
        .await;
    assert_eq!(answer.header("allow"), Some("GET, HEAD, POST"));
}

/// A body may come compressed and in an older charset, and is bounded while it is inflated: sends some
/// that are whole, one that was cut off, and a bomb.
#[tokio::test]
async fn a_body_may_be_compressed() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let mut client = ticketd.client().await;
    let body = tickets(0..MANY).concat();
    for (header, coded) in [
        ("content-encoding: gzip", gzip(&body)),
        ("content-encoding: zstd", zstd(&body)),
    ] {
        let request = bulk(&["idempotency-key: day", header], coded);
        assert_eq!(ids(&client.ask(request).await).len(), MANY);
    }
    let latin = "content-type: text/plain; charset=iso-8859-1";
    let answer = client.ask(bulk(&[latin], b"Order: Caf\xe9")).await;
    namespace.stored(MANY as i64 + 1).await;
    let row = namespace.row(ids(&answer)[0]).await;
    assert_eq!(row.ticket_text.as_deref(), Some("Order: Café"));
    let coded = gzip(&body);
    let cut_off = bulk(
        &["idempotency-key: day", "content-encoding: gzip"],
        &coded[..coded.len() - 9],
    );
    let (detail, _) = problem(&client.ask(cut_off).await, 400);
    assert_eq!(detail, "the gzip body ends early");
    let bomb = bulk(&["content-encoding: zstd"], bomb());
    let answer = ticketd.client().await.ask(bomb).await;
    assert_eq!(problem(&answer, 400).1, 0);
    ticketd.drained().await;
    assert_eq!(namespace.count("dead_tickets").await, 0);
}

/// A source's limit counts tickets, not bodies, and a body waits for it for a while: sends more than
/// there may be at once.
#[tokio::test]
async fn each_ticket_of_a_body_counts_against_the_limit_of_its_source() {
    let namespace = Namespace::new(TICKETD).await;
    let lines = format!("{} rate=20/s:10", LINES.lines().next().unwrap());
    let mut ticketd = namespace.ready("serve", &[("CREDENTIALS", &lines)]).await;
    let mut client = ticketd.client().await;
    let begun = Instant::now();
    let ids = ids(&client.ask(bulk(&[SHOP_1], tickets(0..25).concat())).await);
    assert!(
        begun.elapsed() >= Duration::from_millis(700),
        "{:?}",
        begun.elapsed()
    );
    namespace.stored(25).await;
    let source = namespace.origin("tickets", ids[24]).await.unwrap().0;
    assert_eq!(source.as_deref(), Some("shop-1"));
}

/// Whoever sends a body slowly delays nobody, and is not given up while bytes keep coming: sends one
/// in small pieces, and single tickets and another body beside it.
#[tokio::test]
async fn a_slow_sender_delays_nobody() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let body = tickets(0..MANY).concat();
    let request = bulk(&["idempotency-key: slow"], &body);
    let mut slow = ticketd.client().await;
    let mut client = ticketd.client().await;
    for piece in request.chunks(request.len() / 10) {
        slow.send(piece).await;
        let begun = Instant::now();
        namespace
            .accepted(&mut client, &["idempotency-key: single"], EXAMPLE)
            .await;
        ids(&client.ask(bulk(&["idempotency-key: fast"], EXAMPLE)).await);
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{:?}",
            begun.elapsed()
        );
    }
    assert_eq!(ids(&slow.answer().await).len(), MANY);
    namespace.stored(MANY as i64 + 2).await;
}

/// Without RabbitMQ a body is 503, and a repetition with the same key is stored once: cuts the link
/// while a body is sent.
#[tokio::test]
async fn without_rabbitmq_it_is_503_and_repeated_later() {
    let namespace = Namespace::new(TICKETD).await;
    let mut link = Forwarder::shut();
    link.open(&namespace.amqp_url());
    let settings = [
        ("AMQP_URL", link.url(&namespace.amqp_url())),
        ("CONFIRM_TIMEOUT", "1s".to_owned()),
    ];
    let settings: Vec<_> = settings
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let mut ticketd = namespace.ready("accept", &settings).await;
    let body = tickets(0..MANY).concat();
    let request = bulk(&["idempotency-key: day"], &body);
    let mut client = ticketd.client().await;
    let (first, rest) = request.split_at(request.len() / 2);
    client.send(first).await;
    let queued = async || namespace.depth(namespace.queue()).await > 0;
    wait_until("a group is published", queued).await;
    link.cut();
    link = Forwarder::shut();
    client.send(rest).await;
    let answer = client.answer().await;
    let (_, accepted) = problem(&answer, 503);
    assert!(
        answer.retry_after() > 0 && accepted < MANY as u64,
        "{accepted}"
    );
    drop(link);

    let mut consumer = namespace.ready("serve", &[]).await;
    let mut client = consumer.client().await;
    assert_eq!(ids(&client.ask(&request).await).len(), MANY);
    namespace.stored(MANY as i64).await;
    consumer.drained().await;
    assert_eq!(namespace.count("tickets").await, MANY as i64);
    assert_eq!(namespace.count("dead_tickets").await, 0);
}

/// A body that is being sent when the process shuts down gets an answer: the rest of it may still
/// come for a while.
#[tokio::test]
async fn a_body_in_progress_is_answered_at_a_shutdown() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[("LAME_DUCK", "0s")]).await;
    let address = ticketd.address("LISTEN").await;
    let body = tickets(0..MANY).concat();
    let request = bulk(&[], &body);
    let (mut whole, mut stuck) = (ticketd.client().await, ticketd.client().await);
    let half = request.len() / 2;
    whole.send(&request[..half]).await;
    stuck.send(&request[..half]).await;
    wait_until("half is stored", async || {
        namespace.count("tickets").await > 1_000
    })
    .await;
    ticketd.signal("TERM");
    wait_until("connections are refused", async || {
        Client::connect(address).await.is_err()
    })
    .await;
    whole.send(&request[half..]).await;
    assert_eq!(ids(&whole.answer().await).len(), MANY);
    let (detail, accepted) = problem(&stuck.answer().await, 503);
    assert_eq!(detail, "the service is shutting down");
    assert!(accepted > 1_000, "{accepted}");
    assert_eq!(ticketd.ended().await.code(), Some(0));
}
