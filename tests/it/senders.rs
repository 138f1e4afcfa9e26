//! Who may send tickets: tokens, signatures, and what everybody else is answered.

use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use ticketd_testing::*;
use uuid::Uuid;

use crate::TICKETD;
use crate::http::chunked;

/// Of two shops by token, and of one that signs.
pub(crate) const LINES: &str = "shop-1 bearer Xq7ZvJ9wKr2Y-token-of-the-first-shop-0001\n\
    shop-2 bearer Xq7ZvJ9wKr2Y-token-of-the-second-shop-002\n\
    shop-3 webhook whsec_WHE3WnZKOXdLcjJZLXNlY3JldC1vZi0z\n\
    ops operator Xq7ZvJ9wKr2Y-token-of-an-operator-000001";

pub(crate) const SHOP_1: &str = "authorization: Bearer Xq7ZvJ9wKr2Y-token-of-the-first-shop-0001";
pub(crate) const SHOP_2: &str = "authorization: Bearer Xq7ZvJ9wKr2Y-token-of-the-second-shop-002";

/// An operator's, who sends nothing.
pub(crate) const OPERATOR: &str = "authorization: Bearer Xq7ZvJ9wKr2Y-token-of-an-operator-000001";

/// The key in the third shop's secret.
pub(crate) const KEY_3: &[u8] = b"Xq7ZvJ9wKr2Y-secret-of-3";

/// Header lines.
type Lines = Vec<String>;

/// Now, in seconds.
fn now_s() -> i64 {
    now_us() / 1_000_000
}

/// A GET with this header line.
pub(crate) fn get_with(path: &str, header: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: test\r\n{header}\r\n\r\n")
}

/// The signature of this message, computed without ticketd's code.
fn signature(key: &[u8], id: &str, at: &str, body: &[u8]) -> String {
    use base64::Engine;
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(key).unwrap();
    mac.update(format!("{id}.{at}.").as_bytes());
    mac.update(body);
    let bytes = mac.finalize().into_bytes();
    format!(
        "v1,{}",
        base64::engine::general_purpose::STANDARD.encode(bytes)
    )
}

/// The headers of a message that was signed at this time.
pub(crate) fn signed(key: &[u8], id: &str, at: i64, body: impl AsRef<[u8]>) -> Lines {
    let at = at.to_string();
    let signature = signature(key, id, &at, body.as_ref());
    [("id", id), ("timestamp", &at), ("signature", &signature)]
        .map(|(name, value)| format!("webhook-{name}: {value}"))
        .into()
}

fn refs(lines: &[String]) -> Vec<&str> {
    lines.iter().map(String::as_str).collect()
}

/// A POST with these header lines, and this behind the path.
pub(crate) fn post_to(query: &str, headers: &[String], body: &str) -> Vec<u8> {
    let text = String::from_utf8(post(&refs(headers), body)).unwrap();
    text.replacen("/ticket ", &format!("/ticket{query} "), 1)
        .into_bytes()
}

/// Checks that this is the one answer to whoever proves nothing.
#[track_caller]
pub(crate) fn assert_unauthorized(answer: &Answer, of: &str) {
    assert_eq!(answer.problem(401), "a valid credential is needed", "{of}");
    let challenge = answer.header("www-authenticate");
    assert_eq!(challenge, Some("Bearer realm=\"ticketd\""), "{of}");
    let names: Vec<_> = answer
        .headers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    for name in names {
        let known = [
            "content-type",
            "www-authenticate",
            "connection",
            "content-length",
            "date",
            "x-request-id",
        ];
        assert!(known.contains(&name), "{of}: {name}");
    }
}

/// What stands behind the path, and headers, of requests that prove who sends them.
fn proven() -> Vec<(&'static str, Lines)> {
    let now = now_s();
    vec![
        ("", vec![SHOP_1.into()]),
        (
            "",
            vec![
                SHOP_2
                    .to_lowercase()
                    .replace("xq7zvj9wkr2y", "Xq7ZvJ9wKr2Y"),
            ],
        ),
        ("", signed(KEY_3, "m1", now, EXAMPLE)),
        ("?source=shop-3", signed(KEY_3, "m2", now - 290, EXAMPLE)),
        (
            "?till=4&source=shop-3",
            signed(KEY_3, "m3", now + 290, EXAMPLE),
        ),
        (
            "",
            signed(KEY_3, "m4", now, EXAMPLE)
                .iter()
                .map(|line| line.replace("webhook", "svix"))
                .collect(),
        ),
    ]
}

/// The same of requests that do not.
#[rustfmt::skip]
fn not_proven() -> Vec<(&'static str, Lines)> {
    let now = now_s();
    let good = || signed(KEY_3, "m5", now, EXAMPLE);
    let with = |at: usize, line: &str| {
        let mut lines = good();
        lines[at] = line.into();
        lines
    };
    let token = |text: &str| vec![format!("authorization: {text}")];
    let of_shop_1 = SHOP_1.trim_start_matches("authorization: ");
    vec![
        ("", vec![]),
        ("", token("")),
        ("", token("Bearer")),
        ("", token("Bearer ")),
        ("", token("Basic eDp5")),
        ("", token(&of_shop_1.replace("Bearer", "Basic"))),
        ("", token(&of_shop_1.replace("Bearer", ""))),
        ("", token(of_shop_1.trim_end_matches('1'))),
        ("", token(&format!("{of_shop_1}0"))),
        ("", token(&of_shop_1.to_uppercase())),
        ("", token(&of_shop_1.replace("first", "thirs"))),
        ("", token(&format!("Bearer {}", "x".repeat(10_000)))),
        ("", token("Bearer Xq7ZvJ9wKr2Y-token-of-an-operator-000001")),
        ("", token("Bearer WHE3WnZKOXdLcjJZLXNlY3JldC1vZi0zWHE3WnZKOXdLcjJZ")),
        ("", [vec![SHOP_1.into()], vec![SHOP_1.to_owned()]].concat()),
        ("", [token("Bearer no-such-token-at-all-in-this-place-0"), good()].concat()),
        ("", signed(KEY_3, "m5", now - 310, EXAMPLE)),
        ("", signed(KEY_3, "m5", now + 310, EXAMPLE)),
        ("", signed(b"another-key-of-24-bytes-", "m5", now, EXAMPLE)),
        ("", signed(KEY_3, "m5", now, format!("{EXAMPLE} "))),
        ("", signed(KEY_3, "m.5", now, EXAMPLE)),
        ("", with(0, "webhook-id: m6")),
        ("", with(0, "webhook-id:")),
        ("", with(0, "webhook-id: m5\r\nwebhook-id: m5")),
        ("", with(0, "svix-id: m5")),
        ("", with(1, &format!("webhook-timestamp: {}", now - 1))),
        ("", with(1, "webhook-timestamp: now")),
        ("", with(1, "webhook-timestamp: 99999999999999999999")),
        ("", with(2, "webhook-signature:")),
        ("", with(2, "webhook-signature: v1,")),
        ("", with(2,&format!("webhook-signature: {}", "v1,AAAA ".repeat(1000))),
        ),
        ("", with(2, "webhook-signature: v1,\u{e9}\u{e9}")),
        ("?source=shop-1", good()),
        ("?source=nobody", good()),
        ("?source=", good()),
        ("?source=shop-3&source=shop-3", good()),
    ]
}

/// Only who proves to be a sender is let in, by token or by signature, and whoever does not gets one
/// answer, whatever is wrong: sends requests of every kind, and counts what reached the queue.
#[tokio::test]
async fn only_a_sender_is_let_in() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[("CREDENTIALS", LINES)]).await;
    let good = proven();
    let count = good.len() as u32;
    let mut client = ticketd.client().await;
    for (query, headers) in good {
        let answer = client.ask(post_to(query, &headers, EXAMPLE)).await;
        assert_eq!(answer.status, 202, "{query} {headers:?}: {}", answer.text());
    }
    let wrong = not_proven();
    let refused = wrong.len() as f64;
    for (query, headers) in wrong {
        let mut client = ticketd.client().await;
        let answer = client.ask(post_to(query, &headers, EXAMPLE)).await;
        assert_unauthorized(&answer, &format!("{query} {headers:?}"));
    }
    assert_eq!(namespace.depth(namespace.queue()).await, count);
    let page = client.ask(get_with("/metrics", OPERATOR)).await;
    for (series, expected) in [
        ("ticketd_rejected_total{reason=\"unauthorized\"}", refused),
        (
            "ticketd_http_requests_total{code=\"401\",route=\"/ticket\"}",
            refused,
        ),
        ("ticketd_source_accepted_total{source=\"shop-1\"}", 1.0),
        ("ticketd_source_accepted_total{source=\"shop-3\"}", 4.0),
        ("ticketd_source_rejected_total{source=\"shop-3\"}", 0.0),
        ("ticketd_source_accepted_total{source=\"other\"}", 0.0),
        ("ticketd_accepted_total", f64::from(count)),
    ] {
        assert_eq!(metric(page.text(), series), Some(expected), "{series}");
    }
}

/// Without credentials anyone may send, whatever the request says of itself, and only where others
/// than this machine reach it is that worth a warning: starts on loopback and on all addresses.
#[tokio::test]
async fn without_credentials_anyone_may_send() {
    let namespace = Namespace::new(TICKETD).await;
    const WARNING: &str = "whoever reaches LISTEN may send tickets";
    for (listen, credentials, warned) in [
        ("127.0.0.1:0", None, false),
        ("[::1]:0", None, false),
        ("0.0.0.0:0", None, true),
        ("0.0.0.0:0", Some(LINES), false),
    ] {
        let mut settings = vec![("LISTEN", listen)];
        settings.extend(credentials.map(|lines| ("CREDENTIALS", lines)));
        let mut ticketd = namespace.ready("accept", &settings).await;
        let token = ["authorization: Bearer whatever", "webhook-signature: v1,x"];
        let answer = ticketd.client().await.ask(post(&token, EXAMPLE)).await;
        assert_eq!(answer.status, if credentials.is_some() { 401 } else { 202 });
        assert_eq!(ticketd.log().contains(WARNING), warned, "{listen}");
    }
}

/// A stranger is answered before the body is sent, and is not asked to send it: sends heads alone.
/// A sender is asked for it.
#[tokio::test]
async fn a_stranger_is_answered_before_the_body() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[("CREDENTIALS", LINES)]).await;
    let stale = signed(KEY_3, "m1", now_s() - 1000, EXAMPLE);
    let strangers = [vec![], vec!["authorization: Bearer x"], refs(&stale)];
    for expect in [None, Some("expect: 100-continue")] {
        for headers in &strangers {
            let headers: Vec<_> = headers.iter().copied().chain(expect).collect();
            let mut client = ticketd.client().await;
            let answer = client.ask(head(&headers, 60_000)).await;
            assert_unauthorized(&answer, &format!("{headers:?}"));
            assert!(answer.closes());
        }
    }
    let large = ticketd.client().await.ask(head(&[], 1 << 30)).await;
    assert_unauthorized(&large, "more than BODY_MAX");
    let mut client = ticketd.client().await;
    let asked = client.ask(head(&[SHOP_1, "expect: 100-continue"], 1)).await;
    assert_eq!(asked.status, 100);
    assert_eq!(client.ask("x").await.status, 202);
}

/// A signature covers the bytes of the body, in whatever pieces they come, and a body that never
/// ends is given up at the same time as ever: sends one byte by byte, one in chunks, and one without
/// its end.
#[tokio::test]
async fn a_signed_body_may_come_in_pieces() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[("CREDENTIALS", LINES)]).await;
    let headers = signed(KEY_3, "m1", now_s(), EXAMPLE);
    let mut client = ticketd.client().await;
    client.send(head(&refs(&headers), EXAMPLE.len())).await;
    for byte in EXAMPLE.as_bytes() {
        client.send([*byte]).await;
    }
    client.answer().await.id();
    let (start, end) = EXAMPLE.split_at(20);
    for (chunks, status) in [(vec![start, end], 202), (vec![end, start], 401)] {
        let request = String::from_utf8(chunked(&chunks)).unwrap();
        let request = request.replacen("host: test", &headers.join("\r\n"), 1);
        let request = request.replacen("\r\n", "\r\nhost: test\r\n", 1);
        assert_eq!(client.ask(request).await.status, status);
    }
    let mut slow = ticketd.client().await;
    let begun = Instant::now();
    let answer = slow.ask(head(&refs(&headers), EXAMPLE.len())).await;
    answer.problem(408);
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_secs(9) && took < Duration::from_secs(20),
        "{took:?}"
    );
}

/// Strangers who only pretend to sign hold no more memory, for no longer, than strangers could without
/// credentials: has them leave more bodies unfinished than all bodies together may be, with
/// credentials and without, and compares the process' memory; then sends with a token.
#[tokio::test]
async fn forged_signatures_share_the_budget_of_bodies() {
    let namespace = Namespace::new(TICKETD).await;
    let forged = signed(b"another-key-of-24-bytes-", "m1", now_s(), EXAMPLE);
    let mut peaks = Vec::new();
    for credentials in [None, Some(("CREDENTIALS", LINES))] {
        let settings = [("BODY_MAX", "1048576")].into_iter().chain(credentials);
        let settings: Vec<_> = settings.collect();
        let mut ticketd = namespace.ready("accept", &settings).await;
        peaks.push(peak_of_unfinished(&mut ticketd, &forged).await);
        let mut client = ticketd.client().await;
        namespace.accepted(&mut client, &[SHOP_1], EXAMPLE).await;
    }
    assert!(peaks[1] < peaks[0] * 5 / 4, "{peaks:?} KiB");
}

/// The most memory, in KiB, while more bodies are left unfinished than there is room for.
async fn peak_of_unfinished(ticketd: &mut Process, headers: &[String]) -> u64 {
    let piece = vec![b'x'; 1_000_000];
    let mut open = Vec::new();
    for _ in 0..70 {
        let mut client = ticketd.client().await;
        client.send(head(&refs(headers), 1_000_001)).await;
        // Some are answered, and closed, before all was sent.
        let _sent = client.try_send(&piece).await;
        open.push(client);
    }
    let begun = Instant::now();
    let mut statuses = Vec::new();
    for client in &mut open {
        statuses.extend(client.try_answer().await.map(|answer| answer.status));
    }
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert!(
        statuses.contains(&408) && statuses.contains(&503),
        "{statuses:?}"
    );
    proc::status(ticketd.pid(), "VmHWM").unwrap()
}

/// A message that is sent again, by its sender or by somebody who has seen it, is the same ticket,
/// and nothing that was not signed makes it another one: repeats one under several keys.
#[tokio::test]
async fn a_replayed_signature_is_the_same_ticket() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[("CREDENTIALS", LINES)]).await;
    let mut client = ticketd.client().await;
    let now = now_s();
    let mut ids = std::collections::HashSet::new();
    for at in [now, now, now - 60] {
        for key in [
            None,
            Some("idempotency-key: 1"),
            Some("idempotency-key: 2"),
            Some("svix-id: 3"),
        ] {
            let mut headers = signed(KEY_3, "msg_1", at, EXAMPLE);
            headers.extend(key.map(str::to_owned));
            ids.insert(
                namespace
                    .accepted(&mut client, &refs(&headers), EXAMPLE)
                    .await,
            );
        }
    }
    assert_eq!(ids.len(), 1, "{ids:?}");
    let other = signed(KEY_3, "msg_2", now, EXAMPLE);
    assert!(
        ids.insert(
            namespace
                .accepted(&mut client, &refs(&other), EXAMPLE)
                .await
        )
    );
    namespace.stored(2).await;
    ticketd.drained().await;
    assert_eq!(namespace.count("tickets").await, 2);
    assert_eq!(namespace.count("dead_tickets").await, 0);
}

/// Other mistakes of a sender are told as ever, and counted for it: sends some with a token.
#[tokio::test]
async fn a_sender_is_told_its_mistakes() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[("CREDENTIALS", LINES)]).await;
    let mut client = ticketd.client().await;
    client.ask(post(&[SHOP_1], "")).await.problem(400);
    client
        .ask(post(&[SHOP_1, "idempotency-key: a b"], "x"))
        .await
        .problem(400);
    let empty = signed(KEY_3, "m1", now_s(), "");
    client.ask(post(&refs(&empty), "")).await.problem(400);
    let large = ticketd.client().await.ask(head(&[SHOP_1], 65_537)).await;
    large.problem(413);
    let page = client.ask(get_with("/metrics", OPERATOR)).await;
    let rejected = |source| format!("ticketd_source_rejected_total{{source=\"{source}\"}}");
    assert_eq!(metric(page.text(), &rejected("shop-1")), Some(3.0));
    assert_eq!(metric(page.text(), &rejected("shop-3")), Some(1.0));
    assert_eq!(metric(page.text(), &rejected("shop-2")), Some(0.0));
}

/// A ticket's state is for its sender: asks for it with its token, with another's and without one.
#[tokio::test]
async fn a_state_is_for_its_sender() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[("CREDENTIALS", LINES)]).await;
    let mut client = ticketd.client().await;
    let id = namespace.accepted(&mut client, &[SHOP_1], EXAMPLE).await;
    namespace.row(id).await;
    let ask = |header: &str| format!("GET /ticket/{id} HTTP/1.1\r\nhost: test\r\n{header}\r\n");
    let own = client.ask(ask(&format!("{SHOP_1}\r\n"))).await.json();
    assert_eq!(own["source"], "shop-1");
    let others = client.ask(ask(&format!("{SHOP_2}\r\n"))).await;
    let unknown = format!(
        "GET /ticket/{} HTTP/1.1\r\nhost: test\r\n{SHOP_2}\r\n\r\n",
        Uuid::nil()
    );
    let unknown = client.ask(unknown).await;
    assert_eq!(others.problem(404), unknown.problem(404), "tells nothing");
    for header in ["", "authorization: Bearer x\r\n"] {
        assert_unauthorized(&client.ask(ask(header)).await, header);
    }
    let signed = signed(KEY_3, "m1", now_s(), "").join("\r\n") + "\r\n";
    assert_unauthorized(&client.ask(ask(&signed)).await, "a signature of nothing");
}

/// Keys belong to their source, by whichever header they come: sends one key of three sources, each
/// twice, and with another text of one of them.
#[tokio::test]
async fn equal_keys_of_sources_are_different_tickets() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[("CREDENTIALS", LINES)]).await;
    let mut client = ticketd.client().await;
    let key = "idempotency-key: till-7/4711";
    let issued = "ticket-issued-at: 2026-11-20T23:30:00+01:00";
    let mut ids = Vec::new();
    for _ in 0..2 {
        for (n, shop) in [SHOP_1, SHOP_2].into_iter().enumerate() {
            let body = ticket(&format!("of-{n}"));
            let headers = [shop, key, issued];
            ids.push(namespace.accepted(&mut client, &headers, &body).await);
        }
        let headers = signed(KEY_3, "till-7/4711", now_s(), EXAMPLE);
        ids.push(
            namespace
                .accepted(&mut client, &refs(&headers), EXAMPLE)
                .await,
        );
    }
    assert_eq!(ids[..3], ids[3..]);
    namespace.stored(3).await;
    let other = ticket("another of shop-2");
    assert_eq!(
        namespace
            .accepted(&mut client, &[SHOP_2, key], &other)
            .await,
        ids[1]
    );
    namespace.filled("dead_tickets", 1).await;
    let origins = [("shop-1", true), ("shop-2", true), ("shop-3", false)];
    for (id, (source, is_issued)) in ids.into_iter().zip(origins) {
        let origin = namespace.origin("tickets", id).await.unwrap();
        assert_eq!(
            (origin.0.as_deref(), origin.1.is_some()),
            (Some(source), is_issued)
        );
    }
    let dead = "select source from dead_tickets";
    let dead = namespace.database.query_one(dead, &[]).await.unwrap();
    assert_eq!(dead.get::<_, Option<&str>>(0), Some("shop-2"));
}

/// A source that sends too much is told for how long, and nobody else notices: sends beyond one
/// limit and within others.
#[tokio::test]
async fn a_limit_is_of_one_source() {
    let namespace = Namespace::new(TICKETD).await;
    let lines = format!(
        "{LINES}\nshop-2 bearer {} rate=1/s:7\nshop-4 bearer {} rate=off",
        "t".repeat(40),
        "u".repeat(40)
    );
    let settings = [("CREDENTIALS", lines.as_str()), ("RATE_LIMIT", "1/s:3")];
    let mut ticketd = namespace.ready("accept", &settings).await;
    let shop_4 = format!("authorization: Bearer {}", "u".repeat(40));
    let mut client = ticketd.client().await;
    for (header, burst) in [(SHOP_1, 3), (SHOP_2, 7), (&shop_4, 50)] {
        for _ in 0..burst {
            namespace.accepted(&mut client, &[header], EXAMPLE).await;
        }
    }
    let answer = client.ask(post(&[SHOP_1], EXAMPLE)).await;
    assert_eq!(answer.problem(429), "this source sends too many tickets");
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(!answer.closes(), "the connection is good");
    for id in ["m1", "m2", "m3"] {
        let headers = signed(KEY_3, id, now_s(), EXAMPLE);
        namespace
            .accepted(&mut client, &refs(&headers), EXAMPLE)
            .await;
    }
    // Whoever only pretends to be a source uses up nothing of it.
    let forged = signed(b"another-key-of-24-bytes-", "m4", now_s(), EXAMPLE);
    assert_eq!(
        ticketd
            .client()
            .await
            .ask(post(&refs(&forged), EXAMPLE))
            .await
            .status,
        401
    );
    let headers = signed(KEY_3, "m4", now_s(), EXAMPLE);
    client
        .ask(post(&refs(&headers), EXAMPLE))
        .await
        .problem(429);
    let unsent = ticketd.client().await.ask(head(&[SHOP_1], 60_000)).await;
    unsent.problem(429);
    assert!(unsent.closes());
    wait_until("the limit lets one in again", async || {
        client.ask(post(&[SHOP_1], EXAMPLE)).await.status == 202
    })
    .await;
    let page = client.ask(get_with("/metrics", OPERATOR)).await;
    let limited = metric(
        page.text(),
        "ticketd_rejected_total{reason=\"rate_limited\"}",
    );
    assert!(limited >= Some(3.0), "{limited:?}");
    let rejected = metric(
        page.text(),
        "ticketd_source_rejected_total{source=\"shop-4\"}",
    );
    assert_eq!(rejected, Some(0.0));
}
