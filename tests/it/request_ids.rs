//! X-Request-Id, taken or made, in answers, problem documents and the log; and traces.

use ticketd_testing::*;

use crate::TICKETD;

/// The id that an answer tells in its header, which its problem document, if it is one, tells too.
#[track_caller]
fn id(answer: &Answer) -> Option<String> {
    let id = answer.header("x-request-id").map(str::to_owned);
    if answer.status >= 400 && answer.header("content-type") == Some("application/problem+json") {
        let json: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        assert_eq!(json["request_id"].as_str(), id.as_deref(), "{json}");
    }
    id
}

/// Requests that are answered in all ways; a status, and the request but for its id.
fn requests() -> Vec<(u16, &'static str)> {
    vec![
        (202, "POST /ticket HTTP/1.1\r\ncontent-length: 1\r\n{}\r\nx"),
        (200, "GET /livez HTTP/1.1\r\n{}\r\n"),
        (200, "GET /metrics HTTP/1.1\r\n{}\r\n"),
        (400, "POST /ticket HTTP/1.1\r\ncontent-length: 0\r\n{}\r\n"),
        (404, "GET /nothing HTTP/1.1\r\n{}\r\n"),
        (405, "GET /ticket HTTP/1.1\r\n{}\r\n"),
        (
            413,
            "POST /ticket HTTP/1.1\r\ncontent-length: 999999\r\n{}\r\n",
        ),
        (
            415,
            "POST /ticket HTTP/1.1\r\ncontent-encoding: br\r\ncontent-length: 1\r\n{}\r\nx",
        ),
    ]
}

/// An id that is fit to be shown is told again with every answer and in every problem; else problems
/// have one of their own, and no other answer has any. The log has those of refusals at debug, and
/// nothing at info. Sends every kind of request with good ids, bad ones and none.
#[tokio::test]
async fn an_id_is_told_again() {
    let namespace = Namespace::new(TICKETD).await;
    let settings = [("RUST_LOG", "info,ticketd::http=debug")];
    let mut ticketd = namespace.ready("accept", &settings).await;
    let long = "x".repeat(128);
    for (status, request) in requests() {
        for good in ["1", "till-7/4711#{}<a>", &long] {
            let request = request.replace("{}", &format!("host: test\r\nX-Request-Id: {good}\r\n"));
            let answer = ticketd.client().await.ask(request).await;
            assert_eq!(
                (answer.status, id(&answer).as_deref()),
                (status, Some(good))
            );
        }
        let mut made = std::collections::HashSet::new();
        let bad = [
            "a b",
            "a\"}",
            "a\\",
            "\u{e9}",
            "",
            &format!("{long}x"),
            "a\r\nx-request-id: a",
        ];
        for bad in bad {
            let request = request.replace("{}", &format!("host: test\r\nX-Request-Id: {bad}\r\n"));
            made.insert(id(&ticketd.client().await.ask(request).await));
        }
        let request = request.replace("{}", "host: test\r\n");
        made.insert(id(&ticketd.client().await.ask(request).await));
        if status < 400 {
            assert_eq!(made, [None].into(), "{status}");
            continue;
        }
        assert_eq!(made.len(), bad.len() + 1, "each its own: {made:?}");
        for id in made.into_iter().flatten() {
            assert!(id.parse::<uuid::Uuid>().is_ok(), "{id}");
            ticketd.logged(&format!("request_id=\"{id}\"")).await;
        }
    }
    assert!(ticketd.log().contains("request_id=\"till-7/4711#{}<a>\""));
    let mut quiet = namespace.ready("accept", &[]).await;
    quiet
        .client()
        .await
        .ask(post(&["x-request-id: quiet-1"], ""))
        .await
        .problem(400);
    assert!(!quiet.drained().await.log.contains("quiet-1"));
}

/// A lone ticket's message tells the trace that its request belongs to, if that is well-formed: sends
/// one of each, and looks at what waits in the queue.
#[tokio::test]
async fn a_lone_ticket_keeps_its_trace() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[]).await;
    let mut client = ticketd.client().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let good = format!("traceparent: {trace}");
    let twice = format!("{good}\r\n{good}");
    for (header, kept) in [
        (good.as_str(), true),
        ("traceparent: 00-x", false),
        (&twice, false),
        ("accept: */*", false),
    ] {
        namespace.accepted(&mut client, &[header], EXAMPLE).await;
        let message = namespace.take().await;
        let headers = message.properties.headers().as_ref().unwrap().inner();
        let found = headers.get("traceparent").map(|value| match value {
            lapin::types::AMQPValue::LongString(text) => text.to_string(),
            other => panic!("{other:?}"),
        });
        assert_eq!(found.is_some(), kept, "{header}: {found:?}");
        assert!(found.is_none_or(|found| found.contains(trace)), "{header}");
    }
}
