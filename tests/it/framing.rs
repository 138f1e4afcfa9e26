//! Bytes on the wire: whatever way a well-formed request comes, it is taken; whatever is not one,
//! or comes too slowly, ends with an answer.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::http::chunked;
use ticketd_testing::*;

use crate::TICKETD;

/// The message is the ticket, byte for byte, with the properties that keep it and tell what it is:
/// posts one and takes the message off the queue.
#[tokio::test]
async fn a_single_ticket_is_published_as_it_came() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[]).await;
    let mut client = ticketd.client().await;
    let body = "\u{feff}Order: é\r\n\u{1f600} anything\r\n\n";
    let id = namespace.accepted(&mut client, &[], body).await;
    let message = namespace.take().await;
    assert_eq!(message.data, body.as_bytes());
    let properties = &message.properties;
    assert_eq!(*properties.delivery_mode(), Some(2), "persistent");
    let text = |value: &Option<lapin::types::ShortString>| value.as_ref().unwrap().to_string();
    assert_eq!(text(properties.content_type()), "text/plain");
    assert_eq!(text(properties.message_id()), id.to_string());
    assert_eq!(text(properties.kind()), "ticket");
    assert_eq!(text(properties.app_id()), "ticketd");
    let timestamp_s = properties.timestamp().unwrap();
    let now_s = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_secs();
    assert!((now_s - 60..=now_s).contains(&timestamp_s), "{timestamp_s}");
}

/// The largest ticket that any setting admits goes all the way, alone in its message: posts one.
#[tokio::test]
async fn the_largest_ticket_is_stored() {
    const LARGEST: usize = 1_048_576;
    let namespace = Namespace::new(TICKETD).await;
    let settings = [("BODY_MAX", LARGEST.to_string())];
    let settings = settings
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let mut ticketd = namespace.ready("serve", &settings).await;
    let body = "x".repeat(LARGEST);
    let mut client = ticketd.client().await;
    let id = namespace.accepted(&mut client, &[], &body).await;
    assert!(namespace.row(id).await.ticket_text == Some(body));
    ticketd.drained().await;
}

/// However a body is cut, the same ticket arrives: sends it chunked, with extensions and trailers,
/// and byte by byte, and takes the messages off the queue.
#[tokio::test]
async fn a_body_may_come_in_any_pieces() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[]).await;
    let mut client = ticketd.client().await;
    let arrived = async |answer: Answer, body: &str| {
        answer.id();
        assert_eq!(namespace.take().await.data, body.as_bytes());
    };

    let body = ticket("pieces");
    let chunks: Vec<&str> = body.split_inclusive(' ').collect();
    arrived(client.ask(chunked(&chunks)).await, &body).await;

    let decorated = "POST /ticket HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\
        trailer: digest\r\n\r\n3;size=small\r\nabc\r\n0002\r\nde\r\n0\r\ndigest: none\r\n\r\n";
    arrived(client.ask(decorated).await, "abcde").await;

    for byte in post(&[], &body) {
        client.send([byte]).await;
    }
    arrived(client.answer().await, &body).await;
    for byte in chunked(&["one", "two"]) {
        client.send([byte]).await;
    }
    arrived(client.answer().await, "onetwo").await;
}

/// After a large body, whose buffers a connection lets go of, it goes on where it was: sends large
/// and small ones in turn, each with the beginning of the next, and ends the process at last.
#[tokio::test]
async fn a_connection_goes_on_after_large_bodies() {
    const LARGE: usize = 60_000;
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[]).await;
    let mut client = ticketd.client().await;
    for (size, ahead) in [
        (LARGE, 1),
        (LARGE, 40),
        (5, 0),
        (LARGE, 0),
        (LARGE, 9_000),
        (5, 70),
    ] {
        let body = "x".repeat(size);
        let (request, mut next) = (post(&[], &body), post(&[], "y".repeat(20_000)));
        next.truncate(ahead);
        client.send([request, next].concat()).await;
        client.answer().await.id();
        assert_eq!(namespace.take().await.data, body.as_bytes());
        if ahead > 0 {
            // It is at rest, and asked to go on in the middle of the next.
            let rest = post(&[], "y".repeat(20_000)).split_off(ahead);
            client.send(rest).await;
            client.answer().await.id();
            assert_eq!(namespace.take().await.data, "y".repeat(20_000).as_bytes());
        }
    }
    client.ask(post(&[], "x".repeat(LARGE))).await.id();
    let mut other = ticketd.client().await;
    let (large, question) = (post(&[], "x".repeat(LARGE)), get("/livez"));
    other.ask([&large[..], &question[..9]].concat()).await.id();
    ticketd.signal("TERM");
    assert!(client.is_closed().await, "which was at rest");
    // The other one may finish what it has begun, if it does so soon.
    let _sent = other.try_send(&question[9..]).await;
    let status = other.answer().await.status;
    assert!(matches!(status, 200 | 408), "{status}");
    assert_eq!(ticketd.ended().await.code(), Some(0));
}

/// A client that does not read its answers for a while gets all of them in the end, though large
/// requests make a connection let go of its buffers: asks for the largest page again and again until
/// no more can be sent to it, and reads only then.
#[tokio::test]
async fn answers_that_nobody_reads_are_kept() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[]).await;
    let mut other = ticketd.client().await;
    let answered = "ticketd_http_requests_total{code=\"200\",route=\"/metrics\"}";
    let mut pages = async || {
        let page = other.ask(get("/metrics")).await;
        metric(page.text(), answered).unwrap()
    };
    let (mut reader, mut writer) = ticketd.client().await.split();
    let (mut asked, mut before) = (0, pages().await);
    let padding = "y".repeat(12_000);
    let question = format!("GET /metrics HTTP/1.1\r\nhost: test\r\npadding: {padding}\r\n\r\n");
    // Far more than sockets hold.
    while asked < 2_000 {
        writer.write_all(question.as_bytes()).await.unwrap();
        asked += 1;
        // The one that counts is counted itself, once it is answered.
        let answered = async {
            loop {
                let now = pages().await;
                if now - std::mem::replace(&mut before, now) > 1.0 {
                    return;
                }
            }
        };
        if timeout(Duration::from_secs(2), answered).await.is_err() {
            break;
        }
    }
    for n in 0..asked {
        let answer = reader.answer().await;
        assert_eq!(answer.status, 200, "{n} of {asked}");
        assert!(answer.text().contains(answered), "{n} of {asked}");
    }
}

/// Requests sent at once are answered one by one in their order: sends many of many kinds in one
/// piece, keyed ones twice, and compares.
#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    const ROUNDS: usize = 50;
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[]).await;
    let mut client = ticketd.client().await;
    let mut requests = Vec::new();
    for round in 0..ROUNDS {
        let key = format!("Idempotency-Key: {round}");
        requests.extend(post(&[&key], ticket(&key)));
        requests.extend(get("/nothing"));
        requests.extend(post(&[], ""));
        requests.extend(request("PUT", "/ticket"));
        requests.extend(chunked(&["Order", ": 1"]));
        requests.extend(get("/livez"));
    }
    let mut ids = Vec::new();
    for _ in 0..2 {
        client.send(&requests).await;
        for round in 0..ROUNDS {
            ids.push(client.answer().await.id());
            for status in [404, 400, 405, 202, 200] {
                assert_eq!(client.answer().await.status, status, "round {round}");
            }
        }
    }
    let (first, second) = ids.split_at(ROUNDS);
    assert_eq!(first, second, "the same keys in the same order");
    let distinct: std::collections::HashSet<_> = first.iter().collect();
    assert_eq!(distinct.len(), ROUNDS);
}

/// A client that asks before it sends a body is told to go on: sends a head, waits for 100, sends the rest.
#[tokio::test]
async fn expect_100_continue_is_answered() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[]).await;
    let mut client = ticketd.client().await;
    let head =
        "POST /ticket HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n";
    assert_eq!(client.ask(head).await.status, 100);
    client.ask("abc").await.id();
    assert_eq!(namespace.take().await.data, b"abc");
}

/// A client that closes its sending half still gets its answers: sends two tickets, closes, reads.
#[tokio::test]
async fn a_half_closed_client_is_answered() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[]).await;
    let mut client = ticketd.client().await;
    client
        .send([post(&[], "one"), post(&[], "two")].concat())
        .await;
    client.finish().await;
    client.answer().await.id();
    client.answer().await.id();
    assert!(client.is_closed().await);
    assert_eq!(namespace.take().await.data, b"one");
}

/// HTTP/1.0 and `Connection: close` are answered and then closed: sends one of each.
#[tokio::test]
async fn a_client_that_wants_no_more_is_closed() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[]).await;
    for head in [
        "POST /ticket HTTP/1.0\r\n",
        "POST /ticket HTTP/1.1\r\nhost: test\r\nconnection: close\r\n",
    ] {
        let mut client = ticketd.client().await;
        client
            .send(format!("{head}content-length: 3\r\n\r\nabc"))
            .await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 202);
        assert!(client.is_closed().await);
    }
}

/// A broken request is 400 and nothing of it is taken for a ticket; the service goes on: sends
/// several kinds, each on its own connection, and then counts messages.
#[tokio::test]
async fn broken_requests_are_400() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[]).await;
    let chunked = "POST /ticket HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n";
    let broken = [
        format!("{chunked}x\r\nabc\r\n0\r\n\r\n"),
        format!("{chunked}3\r\nabcdef\r\n0\r\n\r\n"),
        format!("{chunked}ffffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
        format!("{chunked}3\r\nab"),
        format!("{chunked}3\r\nabc\r\n"),
        "POST /ticket HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\nabc".into(),
        "POST /ticket HTTP/1.1\r\nhost: test\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd"
            .into(),
        "POST /ticket HTTP/1.1\r\nhost: test\r\ncontent-length: -1\r\n\r\nabc".into(),
        "POST /ticket HTTP/1.1\r\nhost: test\r\ncontent-length: 99999999999999999999\r\n\r\nabc"
            .into(),
        "POST /ticket HTTP/1.1\r\nhost: test\r\nno colon\r\ncontent-length: 3\r\n\r\nabc".into(),
        "POST /ticket\r\n\r\n".into(),
        "\u{1}\u{2}\u{3}\r\n\r\n".into(),
    ];
    for request in broken {
        let mut client = ticketd.client().await;
        client.send(&request).await;
        client.finish().await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 400, "{request:?}");
        assert!(client.is_closed().await, "{request:?}");
    }
    assert_eq!(namespace.depth(namespace.queue()).await, 0);
    let mut client = ticketd.client().await;
    namespace.accepted(&mut client, &[], EXAMPLE).await;
}

/// A head beyond its limit is 431, by size and by the number of lines: sends both.
#[tokio::test]
async fn a_head_that_is_too_large_is_431() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[]).await;
    let long = format!("x: {}\r\n", "y".repeat(20_000));
    let many = "x: y\r\n".repeat(200);
    for headers in [long, many] {
        let mut client = ticketd.client().await;
        client
            .send(format!(
                "GET /livez HTTP/1.1\r\nhost: test\r\n{headers}\r\n"
            ))
            .await;
        client.finish().await;
        assert_eq!(client.answer().await.status, 431);
        assert!(client.is_closed().await);
    }
}

/// Clients that dawdle are answered 408 and closed, after 10 s with a body and after about 30 s with
/// a head, and an idle connection is closed: does all of it at once, since it takes its time.
#[tokio::test]
async fn slow_clients_are_408() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[]).await;
    let dawdle = async |mut client: Client, begun: &str, limit: Duration| {
        let started = Instant::now();
        client.send(begun).await;
        let answer = client.answer().await;
        let waited = started.elapsed();
        assert!(waited > limit && waited < limit * 2, "{waited:?}");
        assert_eq!(answer.status, 408);
        assert!(answer.closes());
        client.finish().await;
        assert!(client.is_closed().await);
        answer
    };
    // Connections without a request are looked at every 5 s, so they have between 25 and 35 s.
    let (body_limit, head_limit) = (Duration::from_millis(9_900), Duration::from_millis(24_900));
    let body = "POST /ticket HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nOrd";
    let (one, two, mut idle) = (
        ticketd.client().await,
        ticketd.client().await,
        ticketd.client().await,
    );
    let idling = async {
        idle.ask(get("/livez")).await;
        assert!(idle.is_closed().await, "an idle connection");
    };
    let (slow_body, _slow_head, ()) = tokio::join!(
        dawdle(one, body, body_limit),
        dawdle(two, "POST /ticket HTTP/1.1\r\nhos", head_limit),
        idling,
    );
    slow_body.problem(408);
    assert_eq!(namespace.depth(namespace.queue()).await, 0);
}
