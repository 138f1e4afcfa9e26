//! How it ends: the lame duck, the drain, and what bounds them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use ticketd_testing::*;

use crate::TICKETD;

/// After SIGTERM it is not ready at once, and all the same takes tickets on old and new connections
/// for `LAME_DUCK`; then it drains. Ends one, and sends tickets until connections are refused.
#[tokio::test]
async fn a_lame_duck_is_not_ready_and_takes_tickets() {
    let namespace = Namespace::new(TICKETD).await;
    let settings = [("LAME_DUCK", "3s"), ("ADMIN_LISTEN", "127.0.0.1:0")];
    let mut ticketd = namespace.ready("serve", &settings).await;
    let address = ticketd.address("LISTEN").await;
    let (mut admin, mut old) = (ticketd.admin().await, ticketd.client().await);
    namespace.accepted(&mut old, &[], EXAMPLE).await;

    let told = Instant::now();
    ticketd.signal("TERM");
    let ready = wait_for("not ready", async || {
        let answer = admin.ask(get("/readyz")).await;
        (answer.status == 503).then_some(answer)
    })
    .await;
    assert_eq!(ready.json()["status"], "draining");
    assert!(told.elapsed() < Duration::from_secs(2), "at once");
    let answer = old.ask(post(&[], EXAMPLE)).await;
    assert_eq!((answer.status, answer.closes()), (202, false));
    let mut tickets = 2;
    while let Ok(mut new) = Client::connect(address).await {
        // The drain may begin between the two.
        let Ok(answer) = new.try_ask(post(&[], EXAMPLE)).await else {
            break;
        };
        if answer.status != 202 {
            answer.problem(503);
            break;
        }
        tickets += 1;
        assert_eq!(admin.ask(get("/readyz")).await.status, 503);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let lasted = told.elapsed();
    assert!(lasted >= Duration::from_millis(2_900), "{lasted:?}");
    assert!(tickets > 10, "{tickets}");
    let ended = ticketd.ended().await;
    assert_eq!(ended.code(), Some(0), "{}", ended.log);
    namespace.stored(tickets).await;
}

/// Before the drain begins, answers tell their connections to end, so that who holds one comes back
/// elsewhere: sends on one connection until it is told so.
#[tokio::test]
async fn a_lame_duck_sees_its_connections_off() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[("LAME_DUCK", "3s")]).await;
    let mut client = ticketd.client().await;
    let told = Instant::now();
    ticketd.signal("TERM");
    wait_until("an answer that closes", async || {
        let answer = client.ask(post(&[], EXAMPLE)).await;
        assert_eq!(answer.status, 202);
        answer.closes()
    })
    .await;
    let closed = told.elapsed();
    assert!(closed < Duration::from_secs(3), "{closed:?}");
    assert!(client.is_closed().await);
    // Where it came from, it is still taken.
    let mut again = ticketd.client().await;
    namespace.accepted(&mut again, &[], EXAMPLE).await;
    let ended = ticketd.ended().await;
    assert_eq!(ended.code(), Some(0), "{}", ended.log);
}

/// What a balancer knows: which of its servers are ready.
type Ready = Arc<Mutex<Vec<SocketAddr>>>;

/// Looks after each server's readiness, as balancers do, for as long as it is kept.
fn balance(servers: [SocketAddr; 2]) -> (Ready, JoinSet<()>) {
    let (ready, mut looking) = (Ready::default(), JoinSet::new());
    let known = ready.clone();
    looking.spawn(async move {
        loop {
            let mut up = Vec::new();
            for server in servers {
                let answer = ask_once(server, &get("/readyz"), Duration::from_secs(1)).await;
                up.extend(
                    answer
                        .is_ok_and(|answer| answer.status == 200)
                        .then_some(server),
                );
            }
            if !up.is_empty() {
                *known.lock().unwrap() = up;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    (ready, looking)
}

/// Sends tickets over connections that last as long as the servers let them; how many were taken,
/// and what else happened.
async fn send_by_balancer(ready: Ready, end: Arc<AtomicBool>) -> (usize, Vec<String>) {
    let (mut taken, mut failed) = (0, Vec::new());
    let mut client: Option<Client> = None;
    while !end.load(Ordering::Relaxed) {
        // As tills do, if seldom so quickly.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let server = {
            let ready = ready.lock().unwrap();
            ready[taken % ready.len()]
        };
        let mut connected = match client.take() {
            Some(connected) => connected,
            None => match Client::connect(server).await {
                Ok(connected) => connected,
                Err(error) => {
                    failed.push(format!("no connection: {error}"));
                    continue;
                }
            },
        };
        match connected.try_ask(post(&[], EXAMPLE)).await {
            Ok(answer) if answer.status == 202 => {
                taken += 1;
                client = (!answer.closes()).then_some(connected);
            }
            Ok(answer) => failed.push(answer.text().to_owned()),
            Err(error) => failed.push(format!("no answer: {error}")),
        }
    }
    (taken, failed)
}

/// Behind a balancer a rolling restart refuses nobody: restarts one of two after the other under
/// load, with lasting connections, and counts what was not taken.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_refuses_nobody() {
    let namespace = Namespace::new(TICKETD).await;
    let settings = [("LAME_DUCK", "3s")];
    let mut servers = [
        namespace.ready("accept", &settings).await,
        namespace.ready("accept", &settings).await,
    ];
    let mut addresses = Vec::new();
    for server in &mut servers {
        addresses.push(server.address("LISTEN").await);
    }
    let (ready, _looking) = balance([addresses[0], addresses[1]]);
    let all_ready = async || {
        wait_until("both are ready", async || ready.lock().unwrap().len() == 2).await;
    };
    all_ready().await;
    let (end, mut senders) = (Arc::<AtomicBool>::default(), JoinSet::new());
    for _ in 0..8 {
        senders.spawn(send_by_balancer(ready.clone(), end.clone()));
    }
    let mut restarted = Vec::new();
    for (server, address) in servers.into_iter().zip(&addresses) {
        server.drained().await;
        wait_until("it is missed", async || ready.lock().unwrap().len() == 1).await;
        let address = address.to_string();
        let settings = [("LAME_DUCK", "3s"), ("LISTEN", &address)];
        restarted.push(namespace.ready("accept", &settings).await);
        all_ready().await;
    }
    end.store(true, Ordering::Relaxed);
    let mut taken = 0;
    for (accepted, failed) in senders.join_all().await {
        assert!(
            failed.is_empty(),
            "{} failed: {:?}",
            failed.len(),
            failed.first()
        );
        taken += accepted;
    }
    assert!(taken > 100, "{taken}");
}

/// A process that takes no tickets has nothing to wait for: ends a consumer.
#[tokio::test]
async fn a_consumer_is_no_lame_duck() {
    let namespace = Namespace::new(TICKETD).await;
    let ticketd = namespace.ready("consume", &[("LAME_DUCK", "10m")]).await;
    ticketd.drained().await;
}

/// A second signal ends the lame duck, too.
#[tokio::test]
async fn a_second_signal_ends_the_lame_duck() {
    let namespace = Namespace::new(TICKETD).await;
    let ticketd = namespace.ready("accept", &[("LAME_DUCK", "10m")]).await;
    ticketd.signal("TERM");
    ticketd.logged("lame_duck").await;
    ticketd.signal("TERM");
    let ended = ticketd.ended().await;
    assert_eq!(ended.code(), Some(1), "{}", ended.log);
    assert!(ended.log.contains("second signal"), "{}", ended.log);
}

/// SIGTERM under load loses nothing: what was answered 202 is stored once, what was stored is
/// acknowledged, and the exit code is 0. Ends one under load and lets a second store what is left.
#[tokio::test]
async fn a_drained_process_leaves_nothing_behind() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace
        .ready("serve", &[("ADMIN_LISTEN", "127.0.0.1:0")])
        .await;
    let mut senders = JoinSet::new();
    for sender in 0..8 {
        senders.spawn(send_until_refused(ticketd.client().await, sender));
    }
    namespace.filled_at_least("tickets", 200).await;
    let ended = ticketd.drained().await;
    let accepted: Vec<_> = senders.join_all().await.into_iter().flatten().collect();
    assert!(accepted.len() >= 200, "{}", ended.log);

    let mut second = namespace.ready("consume", &[]).await;
    wait_until("an empty queue", async || {
        namespace.depth(namespace.queue()).await == 0
    })
    .await;
    let mut admin = second.admin().await;
    wait_until("every accepted ticket", async || {
        namespace.count("tickets").await >= accepted.len() as i64
    })
    .await;
    let stored: std::collections::HashSet<_> = namespace
        .rows()
        .await
        .into_iter()
        .map(|row| row.ticket_id)
        .collect();
    assert!(accepted.iter().all(|id| stored.contains(id)));
    let metrics = admin.ask(get("/metrics")).await;
    let again = metric(metrics.text(), "ticketd_stored_total{result=\"duplicate\"}");
    assert_eq!(again, Some(0.0), "stored, but not acknowledged");
    assert_eq!(namespace.count("dead_tickets").await, 0);
    second.drained().await;
}

/// Posts tickets until the service takes no more; the ids of those that it took.
async fn send_until_refused(mut client: Client, sender: u32) -> Vec<uuid::Uuid> {
    let mut ids = Vec::new();
    for n in 0.. {
        let body = ticket(&format!("{sender}-{n}"));
        if client.try_send(post(&[], body)).await.is_err() {
            break;
        }
        match client.try_answer().await {
            Ok(answer) if answer.status == 202 => ids.push(answer.id()),
            Ok(answer) => {
                answer.problem(503);
                break;
            }
            Err(_) => break,
        }
    }
    ids
}

/// While it drains, it is not ready, takes no connection, and answers what comes on an old one 503:
/// holds a request half sent, ends the process, and looks at each.
#[tokio::test]
async fn a_draining_process_takes_nothing_new() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace
        .ready("serve", &[("ADMIN_LISTEN", "127.0.0.1:0")])
        .await;
    let address = ticketd.address("LISTEN").await;
    let mut admin = ticketd.admin().await;
    let (mut held, mut idle) = (ticketd.client().await, ticketd.client().await);
    idle.ask(get("/livez")).await;
    begin_a_ticket(&mut held).await;

    ticketd.signal("TERM");
    wait_until("connections are refused", async || {
        Client::connect(address).await.is_err()
    })
    .await;
    let ready = admin.ask(get("/readyz")).await;
    assert_eq!(
        (ready.status, &ready.json()["status"]),
        (503, &"draining".into())
    );
    assert_eq!(admin.ask(get("/livez")).await.status, 200);
    assert!(idle.is_closed().await, "an idle connection");
    let answer = held.ask("!").await;
    answer.problem(503);
    assert!((1..=5).contains(&answer.retry_after()), "{answer:?}");
    let ended = ticketd.ended().await;
    assert_eq!(ended.code(), Some(0), "{}", ended.log);
    assert_eq!(namespace.count("tickets").await, 0);
}

/// A second signal ends it at once, and the exit code tells that it did not finish: holds a request
/// half sent, so that draining would take its 10 s.
#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("accept", &[]).await;
    let mut held = ticketd.client().await;
    begin_a_ticket(&mut held).await;
    ticketd.signal("TERM");
    ticketd.logged("draining").await;
    let started = Instant::now();
    ticketd.signal("INT");
    let ended = ticketd.ended().await;
    assert!(started.elapsed() < Duration::from_secs(5), "{}", ended.log);
    assert_eq!(ended.code(), Some(1));
    assert!(ended.log.contains("second signal"), "{}", ended.log);
}

/// Draining lasts no longer than `SHUTDOWN_GRACE`, and says so: holds a request half sent for longer.
#[tokio::test]
async fn draining_is_bounded_by_the_grace() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace
        .ready("accept", &[("SHUTDOWN_GRACE", "500ms")])
        .await;
    let mut held = ticketd.client().await;
    begin_a_ticket(&mut held).await;
    let started = Instant::now();
    ticketd.signal("TERM");
    let ended = ticketd.ended().await;
    assert!(started.elapsed() < Duration::from_secs(6), "{}", ended.log);
    assert_eq!(ended.code(), Some(1));
    assert!(ended.log.contains("SHUTDOWN_GRACE"), "{}", ended.log);
}

/// Sends all of a ticket but its last byte, and makes sure that the request has begun.
async fn begin_a_ticket(client: &mut Client) {
    let head =
        "POST /ticket HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n";
    assert_eq!(client.ask(head).await.status, 100);
    client.send("abc").await;
}
