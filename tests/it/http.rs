//! Every row of the HTTP table: which request gets which answer.

use serde_json::Value;
use uuid::Uuid;

use ticketd_testing::*;

use crate::TICKETD;
use crate::senders::{LINES, SHOP_1};

/// The default of `BODY_MAX`.
const BODY_MAX: usize = 65_536;

/// The name of a server that is not there.
const NOBODY: &str = "127.0.0.1:1";

/// 202 names the ticket and where it can be looked up, and there its state appears: posts a ticket
/// and follows `Location` until it answers 200.
#[tokio::test]
async fn an_accepted_ticket_is_found_under_its_location() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let mut client = ticketd.client().await;

    let accepted = client.ask(post(&[], EXAMPLE)).await;
    let id = accepted.id();
    assert_eq!(accepted.json(), serde_json::json!({"id": id.to_string()}));
    assert_eq!(id.get_version_num(), 7);
    let location = format!("/ticket/{id}");
    assert_eq!(accepted.header("location"), Some(location.as_str()));

    let state = stored_state(&mut client, &location).await;
    let fields: Vec<&String> = state.as_object().unwrap().keys().collect();
    assert_eq!(
        fields,
        [
            "id",
            "invalid_reason",
            "issued_at",
            "order_id",
            "received_at",
            "set_aside",
            "source",
            "state",
            "stored_at",
            "total",
            "valid",
            "vat"
        ]
    );
    assert_eq!(state["id"], id.to_string());
    assert_eq!(state["valid"], true);
    assert_eq!(state["invalid_reason"], Value::Null);
    assert_eq!(state["order_id"], "123456");
    assert_eq!(state["total"], "16.90");
    let (received_at, stored_at) = (
        state["received_at"].as_str().unwrap(),
        state["stored_at"].as_str().unwrap(),
    );
    let times = "select $1::text::timestamptz <= $2::text::timestamptz \
        and $1::text::timestamptz > now() - interval '1 minute'";
    let row = namespace
        .database
        .query_one(times, &[&received_at, &stored_at])
        .await;
    assert!(row.unwrap().get::<_, bool>(0), "{state}");

    client.send(request("HEAD", &location)).await;
    let head = client.answer_to_head().await;
    assert_eq!(
        (head.status, head.header("content-type")),
        (200, Some("application/json"))
    );
    assert_eq!(
        client.ask(get("/livez")).await.status,
        200,
        "the connection lives on"
    );
}

/// An invalid ticket is accepted like any other and says why it is invalid: posts one and reads its
/// state.
#[tokio::test]
async fn the_state_of_an_invalid_ticket_says_why() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let mut client = ticketd.client().await;
    let body = "Order: 7 \"quoted\" \\ \u{1}\nVAT: 3,10\nTotal: 16.90\n";
    let id = namespace.accepted(&mut client, &[], body).await;
    let state = stored_state(&mut client, &format!("/ticket/{id}")).await;
    assert_eq!(state["valid"], false);
    assert_eq!(state["invalid_reason"], "bad_vat:2");
    assert_eq!(state["order_id"], "7 \"quoted\" \\ \u{1}");
    assert_eq!(state["total"], "16.90");
}

/// What is not stored, or is no id at all, is 404, as a problem document: asks for both.
#[tokio::test]
async fn an_unknown_ticket_is_404() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let mut client = ticketd.client().await;
    let unknown = format!("/ticket/{}", Uuid::now_v7());
    for path in [unknown.as_str(), "/ticket/", "/ticket/7", "/ticket/x/y"] {
        client.ask(get(path)).await.problem(404);
    }
}

/// While the database is unavailable, a ticket's state is 503 with `Retry-After`, and tickets are taken all
/// the same: runs without a database and does both.
#[tokio::test]
async fn without_the_database_a_state_is_503_and_tickets_are_taken() {
    let namespace = Namespace::new(TICKETD).await;
    let nowhere = format!("postgres://nobody@{NOBODY}/nothing");
    let settings = [("DATABASE_URL", nowhere.as_str())];
    let mut ticketd = namespace.ready("accept", &settings).await;
    let mut client = ticketd.client().await;
    let id = namespace.accepted(&mut client, &[], EXAMPLE).await;
    let answer = client.ask(get(&format!("/ticket/{id}"))).await;
    answer.problem(503);
    assert!((1..=5).contains(&answer.retry_after()), "{answer:?}");
    assert_eq!(namespace.depth(namespace.queue()).await, 1);
}

/// The accept role without a database has no ticket route and names no location; with one it has
/// both: runs it both ways.
#[tokio::test]
async fn accept_alone_locates_tickets_only_with_a_database() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[]).await;
    let mut client = ticketd.client().await;
    let answer = client.ask(post(&[], EXAMPLE)).await;
    let path = format!("/ticket/{}", answer.id());
    assert_eq!(answer.header("location"), None);
    client.ask(get(&path)).await.problem(404);
    client.ask(request("DELETE", &path)).await.problem(404);
    drop(ticketd);

    namespace.run(&["migrate"], &[]).await;
    let database_url = namespace.database_url();
    let settings = [("DATABASE_URL", database_url.as_str())];
    let mut ticketd = namespace.ready("accept", &settings).await;
    let mut client = ticketd.client().await;
    let answer = client.ask(post(&[], EXAMPLE)).await;
    let path = format!("/ticket/{}", answer.id());
    assert_eq!(answer.header("location"), Some(path.as_str()));
    client.ask(get(&path)).await.problem(404);
}

/// What can never be stored is 400 with the reason, nothing of it reaches the queue, and the
/// connection goes on: sends one of each over one connection, then counts messages.
#[tokio::test]
async fn what_cannot_be_stored_is_400() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[]).await;
    let mut client = ticketd.client().await;
    let key = |n: usize| format!("Idempotency-Key: {}", "k".repeat(n));
    let (longest, too_long) = (key(255), key(256));
    let example = EXAMPLE.as_bytes();
    let refused: [(&[&str], &[u8], &str); 13] = [
        (&[], b"", "empty"),
        (&[], b"Caf\xe9", "UTF-8"),
        (&[], b"\xed\xa0\x80", "UTF-8"),
        (&[], b"Order: 1\0", "NUL"),
        (&[&too_long], example, "key"),
        (&["Idempotency-Key:"], example, "key"),
        (&["Idempotency-Key: two words"], example, "key"),
        (&["Idempotency-Key: clé"], example, "key"),
        (&["Idempotency-Key: a\tb"], example, "key"),
        (
            &["Idempotency-Key: a", "Idempotency-Key: a"],
            example,
            "key",
        ),
        (&["webhook-id: a", "webhook-id: b"], example, "key"),
        (&["webhook-id: é"], example, "key"),
        (&["Idempotency-Key: ok"], b"", "empty"),
    ];
    for (headers, body, why) in refused {
        let detail = client.ask(post(headers, body)).await.problem(400);
        assert!(detail.contains(why), "{headers:?}: {detail}");
    }
    let nothing = b"POST /ticket HTTP/1.1\r\nhost: test\r\n\r\n";
    client.ask(nothing).await.problem(400);
    assert_eq!(namespace.depth(namespace.queue()).await, 0);
    namespace.accepted(&mut client, &[&longest], EXAMPLE).await;
    assert_eq!(namespace.depth(namespace.queue()).await, 1);
}

/// A body of exactly `BODY_MAX` is taken and one byte more is 413, by Content-Length and chunked:
/// sends both sizes both ways.
#[tokio::test]
async fn the_limit_of_a_body_is_exact() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[]).await;
    let mut client = ticketd.client().await;
    for (size, status) in [(BODY_MAX, 202), (BODY_MAX + 1, 413)] {
        let body = "x".repeat(size);
        for whole in [post(&[], &body), chunked(&[&body])] {
            let mut client = ticketd.client().await;
            let answer = client.ask(whole).await;
            assert_eq!(answer.status, status, "{size} bytes");
            assert_eq!(answer.closes(), status == 413);
        }
    }
    assert_eq!(namespace.depth(namespace.queue()).await, 2);
    assert_eq!(
        client.ask(get("/livez")).await.status,
        200,
        "others are served"
    );
}

/// What Content-Length says is too large is refused before any of it is sent, also to a client that
/// asks first: sends heads alone.
#[tokio::test]
async fn a_body_that_says_it_is_too_large_is_413_unread() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[("BODY_MAX", "1000")]).await;
    for length in ["1001", "4294967297", "9223372036854775807"] {
        for expect in ["", "expect: 100-continue\r\n"] {
            let mut client = ticketd.client().await;
            let head = format!(
                "POST /ticket HTTP/1.1\r\nhost: test\r\n{expect}content-length: {length}\r\n\r\n"
            );
            let answer = client.ask(head).await;
            assert!(answer.problem(413).contains("1000"));
            assert!(answer.closes());
            client.finish().await;
            assert!(client.is_closed().await);
        }
    }
}

/// A chunked body is refused as soon as it is too large, however much is still to come: sends
/// chunks and no end.
#[tokio::test]
async fn a_chunked_body_that_grows_too_large_is_413() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[("BODY_MAX", "1000")]).await;
    let mut client = ticketd.client().await;
    client
        .send("POST /ticket HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    for _ in 0..11 {
        client.send(format!("64\r\n{}\r\n", "x".repeat(100))).await;
    }
    let answer = client.answer().await;
    answer.problem(413);
    assert!(answer.closes());
}

/// A known path says which methods it takes, to all others: asks with many of them.
#[tokio::test]
async fn another_method_is_405_with_allow() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let mut client = ticketd.client().await;
    let state = format!("/ticket/{}", Uuid::now_v7());
    let mut asked = vec![("GET", "/ticket", "POST"), ("OPTIONS", "/ticket", "POST")];
    for method in ["PUT", "DELETE", "PATCH"] {
        asked.push((method, "/ticket", "POST"));
    }
    for path in ["/metrics", "/livez", "/readyz", "/healthz", &state] {
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            asked.push((method, path, "GET, HEAD"));
        }
    }
    for (method, path, allow) in asked {
        let answer = client.ask(request(method, path)).await;
        assert!(answer.problem(405).contains(allow), "{method} {path}");
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
    }
    client.send(request("HEAD", "/ticket")).await;
    let head = client.answer_to_head().await;
    assert_eq!((head.status, head.header("allow")), (405, Some("POST")));
}

/// Other paths are 404 whatever the method, and a query or an absolute URL changes no path: asks for
/// near misses and for both forms.
#[tokio::test]
async fn another_path_is_404() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[]).await;
    let mut client = ticketd.client().await;
    for path in [
        "/",
        "/tickets/",
        "/Ticket",
        "//ticket",
        "/ticket/",
        "/metrics/",
        "/livez/x",
        "*",
    ] {
        for method in ["GET", "POST"] {
            client.ask(request(method, path)).await.problem(404);
        }
    }
    client.ask(get("/tickets")).await.problem(404);
    for target in ["/ticket?till=7", "http://shop.example/ticket"] {
        let request = format!(
            "POST {target} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n{EXAMPLE}",
            EXAMPLE.len()
        );
        client.ask(request).await.id();
    }
}

/// A ticket is a ticket whatever Content-Type names it: sends what curl, siege and others send.
#[tokio::test]
async fn any_content_type_is_taken() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[]).await;
    let mut client = ticketd.client().await;
    let types = [
        "Content-Type: application/x-www-form-urlencoded",
        "Content-Type: text/plain; charset=utf-8",
        "Content-Type: application/xml; charset=iso-8859-1",
        "Content-Type: application/json",
        "Content-Type: nonsense",
        "Content-Type:",
    ];
    for content_type in types {
        namespace
            .accepted(&mut client, &[content_type], EXAMPLE)
            .await;
        let message = namespace.take().await;
        assert_eq!(message.data, EXAMPLE.as_bytes(), "{content_type}");
    }
}

/// A ticket in an unknown coding, or in two, is refused as such before its body is sent, by what its
/// head says, and so is one that only pretends; strangers are told what they lack first. Sends heads, and one in full.
#[tokio::test]
async fn a_coding_is_refused_by_the_head() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[]).await;
    for coding in ["deflate", "identity, br", "gzip, gzip"] {
        let coding = format!("content-encoding: {coding}");
        for expect in ["accept: */*", "expect: 100-continue"] {
            let head = head(&[&coding, expect], 1000);
            let answer = ticketd.client().await.ask(head).await;
            answer.problem(415);
            assert_eq!(
                answer.header("accept-encoding"),
                Some("gzip, zstd, identity")
            );
            assert!(answer.closes(), "the body is not read");
        }
    }
    let br = "content-encoding: br";
    let mut client = ticketd.client().await;
    client.ask(post(&[br], EXAMPLE)).await.problem(415);
    let mut client = ticketd.client().await;
    for coding in ["identity", "Identity", ""] {
        let header = format!("content-encoding: {coding}");
        namespace.accepted(&mut client, &[&header], EXAMPLE).await;
    }
    assert_eq!(namespace.depth(namespace.queue()).await, 3);
    let page = client.ask(get("/metrics")).await;
    let series = "ticketd_rejected_total{reason=\"content_encoding\"}";
    assert_eq!(metric(page.text(), series), Some(7.0));

    let mut known = namespace.ready("accept", &[("CREDENTIALS", LINES)]).await;
    for (header, status) in [(SHOP_1, 415), ("accept: */*", 401)] {
        let head = head(&[br, header], 1000);
        known.client().await.ask(head).await.problem(status);
    }
}

/// Senders that are told to come back are not all told the same time: asks many times.
#[tokio::test]
async fn retries_are_spread() {
    let nowhere = format!("amqp://guest:guest@{NOBODY}/%2f");
    let settings = [("AMQP_URL", nowhere.as_str()), ("LISTEN", "127.0.0.1:0")];
    let mut ticketd = Process::start(TICKETD, &["accept"], &settings);
    let mut client = ticketd.client().await;
    let mut seconds = std::collections::BTreeSet::new();
    for _ in 0..200 {
        seconds.insert(client.ask(post(&[], EXAMPLE)).await.retry_after());
    }
    assert_eq!(seconds, (1..=5).collect());
}

/// Without the broker nothing is accepted, and clients are told to come back; the process lives,
/// and is not ready: runs with an address where nothing listens.
#[tokio::test]
async fn without_the_broker_a_ticket_is_503_with_retry_after() {
    let nowhere = format!("amqp://guest:guest@{NOBODY}/%2f");
    let settings = [("AMQP_URL", nowhere.as_str()), ("LISTEN", "127.0.0.1:0")];
    let mut ticketd = Process::start(TICKETD, &["accept"], &settings);
    let mut client = ticketd.client().await;
    let answer = client.ask(post(&[], EXAMPLE)).await;
    answer.problem(503);
    assert!((1..=5).contains(&answer.retry_after()), "{answer:?}");
    assert!(!answer.closes());
    assert_eq!(client.ask(get("/livez")).await.status, 200);
    let ready = client.ask(get("/readyz")).await;
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json()["checks"]["publishing"], "down");
    let metrics = client.ask(get("/metrics")).await;
    let refused = metric(
        metrics.text(),
        "ticketd_rejected_total{reason=\"broker_away\"}",
    );
    assert_eq!(refused, Some(1.0));
}

/// The state of a ticket, once it is stored; 404 until then.
async fn stored_state(client: &mut Client, location: &str) -> Value {
    wait_for("200 for a stored ticket", async || {
        let answer = client.ask(get(location)).await;
        if answer.status != 200 {
            answer.problem(404);
            return None;
        }
        Some(answer.json())
    })
    .await
}

/// A POST whose body comes in these chunks.
pub(crate) fn chunked(chunks: &[&str]) -> Vec<u8> {
    let mut request =
        String::from("POST /ticket HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
    for chunk in chunks {
        request.push_str(&format!("{:x}\r\n{chunk}\r\n", chunk.len()));
    }
    request.push_str("0\r\n\r\n");
    request.into_bytes()
}
