//! docs/reference/http.md against what running processes answer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;

use super::{codes, rows_of};
use ticketd_testing::*;

use crate::TICKETD;

/// Nothing listens there.
const NOBODY: &str = "127.0.0.1:1";

/// Counts can be read, and asking for them changes none of the public listener's.
const ADMIN: [(&str, &str); 1] = [("ADMIN_LISTEN", "127.0.0.1:0")];

/// What a request is answered: the reason under which a ticket's rejection is counted, if it was
/// one, the status, and the detail of the problem document.
pub(super) type Problem = (Option<String>, u16, String);

/// Each route answers where the page says so, to the methods that it names, and to no other: tries
/// each on both listeners of `serve`, on that of `consume`, and on that of a `serve` which has no other.
#[tokio::test]
async fn every_route_in_the_reference_answers() {
    let namespace = Namespace::new(TICKETD).await;
    let mut serve = namespace.ready("serve", &ADMIN).await;
    let mut consume = namespace.ready("consume", &[]).await;
    let mut alone = namespace.ready("serve", &[]).await;
    let public = serve.address("LISTEN").await;
    let only = alone.address("LISTEN").await;
    let admins = [
        ("serve", serve.address("ADMIN_LISTEN").await),
        ("consume", consume.address("ADMIN_LISTEN").await),
    ];
    for (path, rows) in routes() {
        let path = path.replace("{id}", "018f0000-0000-7000-8000-000000000001");
        let everywhere = methods(&rows, |_| true);
        assert_eq!(allowed(only, &path).await, everywhere, "{path}");
        let expected = methods(&rows, |row| !row[2].contains("without `ADMIN_LISTEN`"));
        assert_eq!(allowed(public, &path).await, expected, "{path}");
        for (role, admin) in admins {
            let named = format!("`{role}`");
            let expected = methods(&rows, |row| row[3] == "yes" || row[3].contains(&named));
            assert_eq!(
                allowed(admin, &path).await,
                expected,
                "{path} on ADMIN_LISTEN"
            );
        }
    }
}

/// The rows of each path.
fn routes() -> BTreeMap<String, Vec<Vec<String>>> {
    let mut routes: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for row in rows_of("http", "route") {
        for path in codes(&row[0]) {
            routes.entry(path.to_owned()).or_default().push(row.clone());
        }
    }
    routes
}

/// The methods that a path takes where only those of its rows are there.
fn methods(rows: &[Vec<String>], is_there: impl Fn(&[String]) -> bool) -> Option<String> {
    let there = rows.iter().filter(|row| is_there(row));
    let mut methods: Vec<_> = there.flat_map(|row| row[1].split(", ")).collect();
    methods.sort_unstable();
    (!methods.is_empty()).then(|| methods.join(", "))
}

/// The methods that a path takes on a listener, if it is there.
pub(super) async fn allowed(address: SocketAddr, path: &str) -> Option<String> {
    let mut client = Client::connect(address).await.unwrap();
    let answer = client.ask(request("DELETE", path)).await;
    if answer.status == 404 {
        return None;
    }
    answer.problem(405);
    let allowed = answer.header("allow").unwrap().to_owned();
    for method in allowed.split(", ") {
        client.send(request(method, path)).await;
        let answer = match method {
            "HEAD" => client.answer_to_head().await,
            _ => client.answer().await,
        };
        assert_ne!(answer.status, 405, "{method} {path}");
    }
    Some(allowed)
}

/// Every reason and every status that a process counts is in the page, and the page has no other:
/// reads /metrics.
#[tokio::test]
async fn every_reason_and_status_is_in_the_reference() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[]).await;
    let metrics = ticketd.client().await.ask(get("/metrics")).await;
    let rows = rows_of("http", "reason").into_iter();
    let reasons: BTreeSet<_> = rows.map(|row| codes(&row[0])[0].to_owned()).collect();
    assert_eq!(
        label(metrics.text(), "ticketd_rejected_total{reason=\""),
        reasons
    );

    let page = fs::read_to_string(super::root().join("docs/reference/http.md")).unwrap();
    let counted = label(metrics.text(), "ticketd_http_requests_total{code=\"");
    for code in &counted {
        assert!(
            page.split(|c: char| !c.is_ascii_digit())
                .any(|word| word == code),
            "{code}"
        );
    }
    for (_, status, _) in documented() {
        assert!(
            counted.contains(&status.to_string()),
            "{status} is not counted"
        );
    }
}

/// Each problem that can be had from a process alone is in the page, word for word, under the reason
/// that it is counted by: asks for each. Of the others the binary has the words.
#[tokio::test]
async fn every_problem_is_in_the_reference() {
    let namespace = Namespace::new(TICKETD).await;
    let documented = documented();
    let mut seen = of_requests(&namespace).await;
    seen.extend(of_absent_servers(&namespace).await);
    seen.extend(of_senders(&namespace).await);
    seen.insert(of_a_drain(&namespace).await);
    let made_up: Vec<_> = seen.difference(&documented).collect();
    assert!(made_up.is_empty(), "not in the page: {made_up:#?}");
    let binary = fs::read(TICKETD).unwrap();
    for (reason, status, detail) in documented.difference(&seen) {
        let is_there = memchr::memmem::find(&binary, detail.as_bytes()).is_some();
        assert!(is_there, "{reason:?} {status} {detail}");
    }
}

/// What is wrong with a request itself.
async fn of_requests(namespace: &Namespace) -> BTreeSet<Problem> {
    let mut ticketd = namespace.ready("serve", &ADMIN).await;
    let unfinished =
        "POST /ticket HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\nx\r\n";
    let long = format!("idempotency-key: {}", "k".repeat(256));
    let many = |request: Vec<u8>| {
        let text = String::from_utf8(request).unwrap();
        text.replacen("/ticket ", "/tickets ", 1).into_bytes()
    };
    let requests = [
        many(post(&[], "VAT: 1")),
        many(post(&[], "\n")),
        many(post(&["content-type: application/json"], EXAMPLE)),
        many(head(&[], 67_108_865).into_bytes()),
        post(&[], ""),
        post(&[], b"Caf\xe9"),
        post(&[], "a\0b"),
        post(&[&long], EXAMPLE),
        post(&["webhook-id: 1", "webhook-id: 2"], EXAMPLE),
        post(&["ticket-issued-at: 1"], EXAMPLE),
        post(&["content-encoding: br"], EXAMPLE),
        post(&["content-type: text/plain; charset=utf-7"], EXAMPLE),
        post(&["content-encoding: gzip"], EXAMPLE),
        post(&["content-encoding: zstd"], EXAMPLE),
        post(&["content-encoding: gzip"], ""),
        post(&["content-encoding: zstd"], ""),
        post(&["ticket-issued-at: 1", "ticket-issued-at: 2"], EXAMPLE),
        unfinished.into(),
        head(&[], 65_537).into_bytes(),
        head(&[], 4).into_bytes(),
        get("/nothing"),
        get("/ticket/018f0000-0000-7000-8000-000000000001"),
        get("/ticket"),
        request("POST", "/livez"),
    ];
    let mut problems = BTreeSet::new();
    for request in requests {
        problems.insert(problem(&mut ticketd, &request).await);
    }
    problems
}

/// What comes of who sends a request.
async fn of_senders(namespace: &Namespace) -> BTreeSet<Problem> {
    let lines = format!("shop bearer {} rate=1/s:1", "t".repeat(40));
    let token = format!("authorization: Bearer {}", "t".repeat(40));
    let settings = [("CREDENTIALS", lines.as_str()), ADMIN[0]];
    let mut ticketd = namespace.ready("serve", &settings).await;
    let ticket = post(&[&token], EXAMPLE);
    ticketd.client().await.ask(&ticket).await.id();
    let state = get("/ticket/018f0000-0000-7000-8000-000000000001");
    [
        problem(&mut ticketd, &ticket).await,
        problem(&mut ticketd, &post(&[], EXAMPLE)).await,
        problem(&mut ticketd, &state).await,
        problem(&mut ticketd, &request("DELETE", "/tickets")).await,
    ]
    .into()
}

/// What comes of RabbitMQ's and PostgreSQL's absence.
async fn of_absent_servers(namespace: &Namespace) -> BTreeSet<Problem> {
    let (amqp, database) = (
        format!("amqp://{NOBODY}"),
        format!("postgres://x@{NOBODY}/x"),
    );
    let settings = [
        ("AMQP_URL", amqp.as_str()),
        ("DATABASE_URL", database.as_str()),
        ADMIN[0],
    ];
    let mut ticketd = namespace.start("accept", &settings);
    let state = get("/ticket/018f0000-0000-7000-8000-000000000001");
    let ticket = post(&[], EXAMPLE);
    [
        problem(&mut ticketd, &ticket).await,
        problem(&mut ticketd, &state).await,
    ]
    .into()
}

/// What comes of a ticket whose last byte comes after SIGTERM.
async fn of_a_drain(namespace: &Namespace) -> Problem {
    let mut ticketd = namespace.ready("accept", &[]).await;
    let address = ticketd.address("LISTEN").await;
    let mut client = ticketd.client().await;
    let head = head(&["expect: 100-continue"], 1);
    assert_eq!(client.ask(head).await.status, 100);
    ticketd.signal("TERM");
    wait_until("connections are refused", async || {
        Client::connect(address).await.is_err()
    })
    .await;
    let answer = client.ask("x").await;
    // The listener that would tell the reason is closed by now.
    (
        Some("draining".into()),
        answer.status,
        answer.problem(answer.status),
    )
}

/// Asks on a connection of its own, and looks which reason is counted for it.
async fn problem(ticketd: &mut Process, request: &[u8]) -> Problem {
    let mut metrics = ticketd.admin().await;
    let before = metrics.ask(get("/metrics")).await;
    let answer = ticketd.client().await.ask(request).await;
    let after = metrics.ask(get("/metrics")).await;
    let series = |reason: &str| format!("ticketd_rejected_total{{reason=\"{reason}\"}}");
    let is_counted = |reason: &String| {
        metric(before.text(), &series(reason)) != metric(after.text(), &series(reason))
    };
    let mut reasons = label(after.text(), "ticketd_rejected_total{reason=\"").into_iter();
    (
        reasons.find(is_counted),
        answer.status,
        answer.problem(answer.status),
    )
}

/// The problems of the page.
pub(super) fn documented() -> BTreeSet<Problem> {
    let problem = |reason: Option<&str>, status: &str, details: &str| {
        let (reason, status) = (reason.map(str::to_owned), status.parse().unwrap());
        let details = codes(details).into_iter().map(str::to_owned);
        details
            .map(|detail| (reason.clone(), status, detail))
            .collect::<Vec<_>>()
    };
    let of_tickets = rows_of("http", "reason").into_iter();
    let of_tickets = of_tickets.flat_map(|row| problem(Some(codes(&row[0])[0]), &row[1], &row[2]));
    let others = rows_of("http", "status").into_iter();
    let others = others.flat_map(|row| problem(None, &row[0], &row[1]));
    of_tickets.chain(others).collect()
}

/// The values of a metric's label, which the series begins with.
fn label(metrics: &str, series: &str) -> BTreeSet<String> {
    let values = metrics.lines().filter_map(|line| line.strip_prefix(series));
    values
        .map(|rest| rest.split_once('"').unwrap().0.to_owned())
        .collect()
}
