//! What operators rely on: metrics, health, the admin listener and the health check.

use std::time::{Duration, Instant, UNIX_EPOCH};

use ticketd_testing::*;

use crate::TICKETD;

/// Every metric of the contract is served, under its name and labels, and counts: sends a ticket of
/// each kind and reads /metrics.
#[tokio::test]
async fn every_metric_is_served() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let mut client = ticketd.client().await;
    namespace
        .accepted(&mut client, &["webhook-id: 1"], EXAMPLE)
        .await;
    namespace.stored(1).await;
    namespace
        .accepted(&mut client, &["webhook-id: 1"], EXAMPLE)
        .await;
    namespace
        .accepted(&mut client, &["webhook-id: 1"], "another")
        .await;
    namespace.accepted(&mut client, &[], "invalid").await;
    client.ask(post(&[], "")).await.problem(400);
    let counts = [
        (
            "ticketd_http_requests_total{code=\"202\",route=\"/ticket\"}",
            4.0,
        ),
        (
            "ticketd_http_requests_total{code=\"400\",route=\"/ticket\"}",
            1.0,
        ),
        (
            "ticketd_http_request_duration_seconds_count{route=\"/ticket\"}",
            5.0,
        ),
        ("ticketd_accepted_total", 4.0),
        ("ticketd_rejected_total{reason=\"not_text\"}", 1.0),
        ("ticketd_publish_groups_total", 4.0),
        ("ticketd_stored_total{result=\"valid\"}", 1.0),
        ("ticketd_stored_total{result=\"invalid\"}", 1.0),
        ("ticketd_stored_total{result=\"duplicate\"}", 1.0),
        ("ticketd_stored_total{result=\"dead\"}", 1.0),
        ("ticketd_publish_confirm_seconds_count", 4.0),
        ("ticketd_publish_group_size_sum", 4.0),
        ("ticketd_batch_rows_sum", 4.0),
        ("ticketd_end_to_end_seconds_count", 4.0),
        ("ticketd_inflight", 0.0),
        ("ticketd_amqp_connected{role=\"consume\"}", 1.0),
        ("ticketd_amqp_blocked", 0.0),
        ("ticketd_pg_connected", 1.0),
    ];
    for (series, expected) in counts {
        let mut last = None;
        wait_until(&format!("{series} {expected}"), async || {
            let answer = client.ask(get("/metrics")).await;
            last = metric(answer.text(), series);
            last == Some(expected)
        })
        .await;
    }
    let answer = client.ask(get("/metrics")).await;
    let content_type = answer.header("content-type").unwrap();
    assert!(
        content_type.starts_with("text/plain; version=0.0.4"),
        "{content_type}"
    );
    let text = answer.text();
    assert!(metric(text, "ticketd_amqp_connected{role=\"publish\"}").is_some_and(|n| n >= 1.0));
    for stage in ["encode", "copy", "merge", "commit"] {
        let series = format!("ticketd_flush_seconds_count{{stage=\"{stage}\"}}");
        assert!(metric(text, &series).is_some_and(|n| n >= 1.0), "{series}");
    }
}

/// Who is content with older metrics shares them with others, is told how old they are, and takes none
/// from who is not.
#[tokio::test]
async fn metrics_may_be_as_old_as_is_said() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let mut client = ticketd.client().await;
    let content = "GET /metrics HTTP/1.1\r\nhost: x\r\ncache-control: max-age=10\r\n\r\n";
    let age = |answer: &Answer| -> u64 {
        let timing = answer.header("server-timing").unwrap();
        timing.strip_prefix("age;dur=").unwrap().parse().unwrap()
    };
    let first = client.ask(content).await;
    assert_eq!(age(&first), 0);
    namespace.accepted(&mut client, &[], EXAMPLE).await;
    let older = wait_for("an answer of some age", async || {
        let answer = client.ask(content).await;
        (age(&answer) > 0).then_some(answer)
    })
    .await;
    assert_eq!(older.text(), first.text());
    let now = client.ask(get("/metrics")).await;
    assert_eq!(age(&now), 0);
    assert_eq!(metric(now.text(), "ticketd_accepted_total"), Some(1.0));
}

/// Scrapes, probes and what is asked for by mistake do not count as tickets, neither in number nor in
/// time: asks for each of them, on both listeners.
#[tokio::test]
async fn each_route_is_counted_for_itself() {
    let namespace = Namespace::new(TICKETD).await;
    let admin = [("ADMIN_LISTEN", "127.0.0.1:0")];
    let mut ticketd = namespace.ready("serve", &admin).await;
    let (mut client, mut admin) = (ticketd.client().await, ticketd.admin().await);
    let id = namespace.accepted(&mut client, &[], EXAMPLE).await;
    namespace.row(id).await;
    let before = admin.ask(get("/metrics")).await;
    let asked = [
        ("/ticket/{id}", vec![get(&format!("/ticket/{id}")); 2]),
        ("/metrics", vec![get("/metrics"); 3]),
        ("/livez", vec![get("/livez"); 4]),
        ("/readyz", vec![get("/readyz"), get("/healthz")]),
        (
            "other",
            vec![get("/ticket"), get("/ticket/x"), request("POST", "/livez")],
        ),
    ];
    for (route, request) in asked
        .iter()
        .flat_map(|(route, requests)| requests.iter().map(move |request| (route, request)))
    {
        let asked = match *route {
            "/metrics" => &mut admin,
            _ => &mut client,
        };
        asked.ask(request).await;
    }
    // With this one.
    let after = admin.ask(get("/metrics")).await;
    let more = |route: &str| {
        let series = format!("ticketd_http_request_duration_seconds_count{{route=\"{route}\"}}");
        let count = |page: &str| metric(page, &series).unwrap();
        let requests = |page: &str| {
            let of = format!(",route=\"{route}\"}} ");
            let lines = page.lines().filter(|line| line.contains(&of));
            lines
                .map(|line| line.split_once("} ").unwrap().1.parse::<f64>().unwrap())
                .sum::<f64>()
        };
        let (timed, counted) = (
            count(after.text()) - count(before.text()),
            requests(after.text()) - requests(before.text()),
        );
        assert!(timed == counted, "{route}: {timed} {counted}");
        counted
    };
    assert!(more("/ticket") == 0.0);
    for (route, requests) in &asked {
        // The first scrape is not in itself.
        let own = if *route == "/metrics" { 1.0 } else { 0.0 };
        assert!(more(route) == requests.len() as f64 + own, "{route}");
    }
}

/// A process tells what it uses of its machine: compares that with what the kernel says of it.
#[tokio::test]
async fn the_process_tells_what_it_uses() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[]).await;
    let mut client = ticketd.client().await;
    // Seen in the number of files.
    let mut others = Vec::new();
    for _ in 0..50 {
        let mut other = ticketd.client().await;
        other.ask(get("/livez")).await;
        others.push(other);
    }
    let page = client.ask(get("/metrics")).await;
    let told = |name: &str| metric(page.text(), &format!("process_{name}")).expect(name);
    let of = |what: &str| format!("/proc/{}/{what}", ticketd.pid());
    let entries = |what: &str| std::fs::read_dir(of(what)).unwrap().count() as f64;
    assert!((told("open_fds") - entries("fd")).abs() <= 2.0);
    assert!(told("threads") == entries("task"));
    let status = std::fs::read_to_string(of("status")).unwrap();
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.unwrap().trim().trim_end_matches(" kB");
        kib.parse::<f64>().unwrap() * 1024.0
    };
    let is_near = |told: f64, real: f64| (told - real).abs() < real / 4.0;
    assert!(is_near(told("resident_memory_bytes"), bytes("VmRSS:")));
    assert!(is_near(told("virtual_memory_bytes"), bytes("VmSize:")));
    let limits = std::fs::read_to_string(of("limits")).unwrap();
    let files = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let files = files.unwrap().split_whitespace().next().unwrap();
    assert!(told("max_fds") == files.parse::<f64>().unwrap());
    let now = UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    assert!((now - told("start_time_seconds")).abs() < 60.0);
}

/// Processor time counts: has a process answer until it has used a second of it.
#[tokio::test]
async fn processor_time_is_counted() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[]).await;
    let mut client = ticketd.client().await;
    let begun = Instant::now();
    loop {
        let page = client.ask(get("/metrics")).await;
        if metric(page.text(), "process_cpu_seconds_total").unwrap() >= 1.0 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
}

/// Every metric is there before its first event, so that alerts and rates see the first one: reads
/// /metrics of a process that has done nothing yet.
#[tokio::test]
async fn every_metric_is_there_from_the_start() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let answer = ticketd.client().await.ask(get("/metrics")).await;
    let names = [
        "ticketd_http_requests_total",
        "ticketd_http_request_duration_seconds",
        "ticketd_accepted_total",
        "ticketd_rejected_total",
        "ticketd_publish_groups_total",
        "ticketd_publish_group_size",
        "ticketd_publish_confirm_seconds",
        "ticketd_publish_failed_total",
        "ticketd_inflight",
        "ticketd_stored_total",
        "ticketd_batch_rows",
        "ticketd_flush_seconds",
        "ticketd_end_to_end_seconds",
        "ticketd_amqp_connected",
        "ticketd_amqp_blocked",
        "ticketd_queue_messages",
        "ticketd_backlog_age_seconds",
        "ticketd_dead_tickets",
        "ticketd_last_ticket_timestamp_seconds",
        "ticketd_draining",
        "ticketd_pg_connected",
        "ticketd_build_info",
    ];
    let missing = |name: &&str| !answer.text().contains(&format!("# TYPE {name} "));
    let missing: Vec<_> = names.into_iter().filter(missing).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// /livez, /readyz and /healthz answer in JSON and say what is up: asks all of them, GET and HEAD.
#[tokio::test]
async fn health_is_told_in_json() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let mut client = ticketd.client().await;
    assert_eq!(client.ask(get("/livez")).await.json()["status"], "alive");
    for path in ["/readyz", "/healthz"] {
        let expected = serde_json::json!({
            "status": "ready",
            "checks": {"publishing": "up", "consuming": "up", "database": "up"},
        });
        assert_eq!(client.ask(get(path)).await.json(), expected);
        client.send(request("HEAD", path)).await;
        assert_eq!(client.answer_to_head().await.status, 200);
    }
}

/// The admin listener serves metrics, health and what became of tickets, and takes none: asks it for all.
#[tokio::test]
async fn the_admin_listener_takes_no_tickets() {
    let namespace = Namespace::new(TICKETD).await;
    let settings = [("ADMIN_LISTEN", "127.0.0.1:0")];
    let mut ticketd = namespace.ready("serve", &settings).await;
    let id = namespace
        .accepted(&mut ticketd.client().await, &[], EXAMPLE)
        .await;
    namespace.row(id).await;
    let mut admin = ticketd.admin().await;
    let state = format!("/ticket/{id}");
    for path in [
        "/metrics", "/version", "/livez", "/readyz", "/healthz", &state,
    ] {
        assert_eq!(admin.ask(get(path)).await.status, 200, "{path}");
    }
    admin.ask(post(&[], EXAMPLE)).await.problem(404);
    assert_eq!(namespace.count("tickets").await, 1);
}

/// The consume role stores what the accept role takes, and has no listener but the admin one: runs
/// the two beside each other.
#[tokio::test]
async fn the_roles_work_apart() {
    let namespace = Namespace::new(TICKETD).await;
    let mut accept = namespace.ready("accept", &[]).await;
    let mut consume = namespace.ready("consume", &[]).await;
    assert!(
        !consume.log().contains("setting=\"LISTEN\""),
        "{}",
        consume.log()
    );
    let id = namespace
        .accepted(&mut accept.client().await, &[], EXAMPLE)
        .await;
    assert!(namespace.row(id).await.valid);
    let mut admin = consume.admin().await;
    let ready = admin.ask(get("/readyz")).await.json();
    assert_eq!(
        ready["checks"],
        serde_json::json!({"consuming": "up", "database": "up"})
    );
    let metrics = admin.ask(get("/metrics")).await;
    let stored = metric(metrics.text(), "ticketd_stored_total{result=\"valid\"}");
    assert_eq!(stored, Some(1.0));
    accept.drained().await;
    consume.drained().await;
}

/// The health check is 0 exactly while ticketd is alive, whether or not it is ready: runs it beside
/// one without a broker, on either listener, and with nothing there.
#[tokio::test]
async fn the_health_check_tells_by_its_exit_code() {
    let settings = [
        ("AMQP_URL", "amqp://guest:guest@127.0.0.1:1/%2f"),
        ("LISTEN", "0.0.0.0:0"),
        ("ADMIN_LISTEN", "127.0.0.1:0"),
    ];
    let mut ticketd = Process::start(TICKETD, &["accept"], &settings);
    let listen = ticketd.address("LISTEN").await.to_string();
    let admin = ticketd.address("ADMIN_LISTEN").await.to_string();
    for settings in [
        vec![("LISTEN", listen.clone())],
        vec![
            ("LISTEN", "127.0.0.1:1".to_owned()),
            ("ADMIN_LISTEN", admin),
        ],
    ] {
        let ended = Process::run(TICKETD, &["healthcheck"], &settings).await;
        assert_eq!(ended.code(), Some(0), "{}", ended.log);
    }
    drop(ticketd);
    let port = listen.rsplit(':').next().unwrap();
    let settings = [("ADMIN_LISTEN", format!("127.0.0.1:{port}"))];
    let ended = Process::run(TICKETD, &["healthcheck"], &settings).await;
    assert_eq!(ended.code(), Some(1));
    assert!(ended.log.contains(port), "{}", ended.log);
}

/// A consumer is asked where it answers by default, though the image sets `LISTEN` for every role;
/// where that address is taken it does its work all the same. Starts two of them.
#[tokio::test]
async fn the_health_check_finds_a_consumer_by_itself() {
    const DEFAULT: &str = "127.0.0.1:8081";
    let settings = [
        ("AMQP_URL", "amqp://guest:guest@127.0.0.1:1/%2f"),
        ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/nothing"),
        ("LISTEN", "127.0.0.1:1"),
    ];
    let first = wait_for("8081 to be free", async || {
        let consumer = Process::start(TICKETD, &["consume"], &settings);
        consumer.logged(DEFAULT).await;
        (!consumer.log().contains("cannot listen")).then_some(consumer)
    })
    .await;
    let ended = Process::run(TICKETD, &["healthcheck"], &settings).await;
    assert_eq!(ended.code(), Some(0), "{}", ended.log);

    let second = Process::start(TICKETD, &["consume"], &settings);
    second
        .logged(&format!("cannot listen on ADMIN_LISTEN {DEFAULT}"))
        .await;
    second.logged("schema migration failed").await;
    second.drained().await;

    let explicit = [&settings[..], &[("ADMIN_LISTEN", "127.0.0.1:8081")]].concat();
    let ended = Process::run(TICKETD, &["consume"], &explicit).await;
    assert_eq!(ended.code(), Some(1), "what is asked for must be had");

    drop(first);
    // It may be a while if others run these tests on this machine.
    wait_until("nobody is found", async || {
        let ended = Process::run(TICKETD, &["healthcheck"], &settings).await;
        ended.code() == Some(1) && ended.log.contains("127.0.0.1:1")
    })
    .await;
}

/// The health check has an end of its own, before the 5 s after which a container's runtime gives up
/// on it, and one that hangs is not made up for by another: asks who never answers.
#[tokio::test]
async fn the_health_check_waits_less_than_its_caller() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let started = Instant::now();
    let ended = Process::run(TICKETD, &["healthcheck"], &[("LISTEN", &address)]).await;
    let waited = started.elapsed();
    assert!(waited < Duration::from_secs(3), "{waited:?}");
    assert_eq!(ended.code(), Some(1));
    assert!(ended.log.contains("no answer in time"), "{}", ended.log);
}

/// New connections are accepted and answered while a batch is read and encoded, which takes as long
/// as the batch is large: stores a backlog in the largest batches, and connects all the while.
#[tokio::test]
async fn a_large_batch_keeps_no_connection_waiting() {
    const MESSAGES: u32 = 60;
    const TICKETS: u32 = 1_000;
    let namespace = Namespace::new(TICKETD).await;
    namespace.ready("accept", &[]).await.drained().await;
    for message in 0..MESSAGES {
        let body = ticket(&message.to_string());
        let records = (0..TICKETS).map(|_| (uuid::Uuid::now_v7(), 1, body.as_bytes()));
        namespace.publish(group_properties(), &group(records)).await;
    }
    let settings = [
        ("BATCH_ROWS", "1000000"),
        ("BATCH_BYTES", "268435456"),
        ("BATCH_AGE", "1s"),
    ];
    let mut ticketd = namespace.start("serve", &settings);
    let address = ticketd.address("LISTEN").await;
    let mut longest = Duration::ZERO;
    let stored = "ticketd_stored_total{result=\"valid\"}";
    let page = wait_for("the backlog to be stored", async || {
        let asked = Instant::now();
        ask_once(address, &get("/livez"), DEADLINE).await.unwrap();
        longest = longest.max(asked.elapsed());
        let page = ask_once(address, &get("/metrics"), DEADLINE).await;
        let page = page.unwrap().text().to_owned();
        (metric(&page, stored) == Some(f64::from(MESSAGES * TICKETS))).then_some(page)
    })
    .await;
    let encoding = metric(&page, "ticketd_flush_seconds_sum{stage=\"encode\"}").unwrap();
    let longest = longest.as_secs_f64();
    assert!(longest < encoding / 2.0, "{longest} s, of {encoding} s");
}
