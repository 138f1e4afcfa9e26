//! Clients that are slow, huge, endless, many, or gone: others are served all the while, memory
//! stays bounded, and the service needs nobody's help to recover.

mod bodies;

use std::time::{Duration, Instant};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Confirmation};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::accept::{Accept, Setup};
use crate::stack::{self, Exclusivity};
use ticketd_testing::proc::{Usage, usage};
use ticketd_testing::{Answer, Client, ask_once, head, post, wait_until, wait_within};

/// What any client may wait while others misbehave.
const SERVED_WITHIN: Duration = Duration::from_secs(2);

/// What a hostile client may wait for its own answer: the longest is for a slow body, after 10 s.
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);

/// What may be held more, in KiB, for all hostile clients of a test together.
const GROWTH_KIB: u64 = 96 * 1024;

async fn start(exclusivity: Exclusivity) -> Accept {
    Accept::start(Setup {
        exclusivity,
        ..Setup::default()
    })
    .await
}

/// A ticket that the fake broker confirms.
fn confirmed(n: u32) -> String {
    format!("mark:{n} confirm;")
}

/// The answer to a client that may have to wait for it.
async fn answer(client: &mut Client) -> Answer {
    let answer = timeout(ANSWERED_WITHIN, client.answer()).await;
    answer.expect("an answer in time")
}

impl Accept {
    async fn connect(&self) -> Client {
        Client::connect(self.ticketd.address).await.unwrap()
    }

    fn usage(&self) -> Usage {
        usage(self.ticketd.pid())
    }

    /// The answer to raw bytes.
    async fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut client = self.connect().await;
        client.send(request).await;
        answer(&mut client).await
    }

    /// Well-behaved clients, each on a connection of its own, are answered 202, and soon.
    async fn serves_others(&self) {
        for n in 0..50 {
            let request = post(&[], confirmed(n));
            let answer = ask_once(self.ticketd.address, &request, SERVED_WITHIN).await;
            assert_eq!(answer.expect("an answer in time").status, 202);
        }
    }

    /// After the hostile clients have gone, their sockets and their memory go, too.
    async fn recovers(&self, before: Usage) {
        wait_until("descriptors to be given back", async || {
            self.usage().files <= before.files + 4
        })
        .await;
        self.is_bounded(before);
        self.serves_others().await;
    }

    fn is_bounded(&self, before: Usage) {
        let now = self.usage();
        assert!(
            now.rss_kib < before.rss_kib + GROWTH_KIB,
            "memory grew from {before:?} to {now:?}"
        );
    }
}

/// So many clients do the same at once, each on a connection of its own.
async fn crowd<T, F>(accept: &Accept, count: u32, each: impl Fn(Client, u32) -> F) -> JoinSet<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut clients = JoinSet::new();
    for n in 0..count {
        clients.spawn(each(accept.connect().await, n));
    }
    clients
}

/// Clients that send a byte of their headers now and then hold up nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn slow_headers() {
    let accept = start(Exclusivity::Shared).await;
    let before = accept.usage();
    let clients = crowd(&accept, 300, async |mut client, _| {
        for byte in head(&[], 10).into_bytes() {
            if client.try_send([byte]).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    for _ in 0..4 {
        accept.serves_others().await;
    }
    drop(clients);
    accept.recovers(before).await;
}

/// Who is too slow with the headers is told so, and the connection ends.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "it takes the 30 s of the time-out; part of make test_faults"]
async fn slow_headers_are_answered_408() {
    let accept = start(Exclusivity::Shared).await;
    let mut client = accept.connect().await;
    client.send("POST /ticket HTTP/1.1\r\nhost: ").await;
    assert_eq!(client.answer().await.status, 408);
    assert!(client.is_closed().await);
}

/// Headers without end are refused before they fill the memory.
#[tokio::test(flavor = "multi_thread")]
async fn huge_headers() {
    let accept = start(Exclusivity::Exclusive).await;
    let before = accept.usage();
    let mut clients = crowd(&accept, 100, async |mut client, _| {
        client.send("POST /ticket HTTP/1.1\r\n").await;
        let line = format!("x-padding: {}\r\n", "y".repeat(1_000));
        let mut sent = 0;
        // Up to 100 MB, unless somebody stops us.
        while sent < 100_000 && client.try_send(&line).await.is_ok() {
            sent += 1;
        }
        sent
    })
    .await;
    accept.serves_others().await;
    while let Some(sent) = clients.join_next().await {
        assert!(sent.unwrap() < 100_000, "all of it was taken");
    }
    accept.is_bounded(before);
    let many = format!("POST /ticket HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(2_000));
    assert_eq!(accept.ask(many).await.status, 431);
    accept.recovers(before).await;
}

/// A length that is not the body's is an error of that client alone.
#[tokio::test(flavor = "multi_thread")]
async fn content_length_lies() {
    let accept = start(Exclusivity::Exclusive).await;
    let before = accept.usage();
    let with = |length: &str, body: &str| {
        format!("POST /ticket HTTP/1.1\r\nhost: till\r\ncontent-length: {length}\r\n\r\n{body}")
    };
    for (length, status) in [
        ("1000000000000000000", 413),
        ("65537", 413),
        ("-1", 400),
        ("1e3", 400),
        ("99999999999999999999999", 400),
        ("10\r\ncontent-length: 11", 400),
        ("0", 400),
    ] {
        let answer = accept.ask(with(length, "0123456789")).await;
        assert_eq!(answer.status, status, "content-length: {length}");
    }
    let mut short = accept.connect().await;
    let garbage = "01234garbage that is no request\r\n\r\n";
    short.send(with("5", garbage)).await;
    assert_eq!(answer(&mut short).await.status, 202, "the first five bytes");
    assert_eq!(answer(&mut short).await.status, 400, "and the rest");

    let mut long = accept.connect().await;
    long.send(with("1000", "0123456789")).await;
    long.finish().await;
    let incomplete = answer(&mut long).await;
    assert_eq!(incomplete.status, 400, "a body that stays incomplete");
    accept.recovers(before).await;
}

/// 10,000 requests at once on one connection are answered one by one, in their order.
#[tokio::test(flavor = "multi_thread")]
async fn pipelining() {
    let accept = start(Exclusivity::Exclusive).await;
    let before = accept.usage();
    let (mut reader, mut writer) = accept.connect().await.split();
    // Every hundredth is not a ticket, to see whose answer is whose.
    let is_ticket = |n: u32| n % 100 != 99;
    let writing = tokio::spawn(async move {
        for n in 0..10_000 {
            let body = if is_ticket(n) {
                confirmed(n)
            } else {
                "\0".into()
            };
            writer.write_all(&post(&[], body)).await.unwrap();
        }
        writer
    });
    accept.serves_others().await;
    for n in 0..10_000 {
        let answer = timeout(Duration::from_secs(30), reader.answer()).await;
        let status = answer.expect("in time").status;
        assert_eq!(status, if is_ticket(n) { 202 } else { 400 }, "request {n}");
    }
    drop((writing.await.unwrap(), reader));
    accept.recovers(before).await;
}

/// Connections that do nothing cost little.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections() {
    let accept = start(Exclusivity::Exclusive).await;
    let before = accept.usage();
    let possible = rlimit::increase_nofile_limit(20_000).unwrap();
    let count = 5_000.min(possible / 2);
    let mut idle = Vec::new();
    for _ in 0..count {
        idle.push(accept.connect().await);
    }
    wait_within("all to be accepted", Duration::from_secs(15), async || {
        (accept.usage().files as u64 >= count).then_some(())
    })
    .await;
    accept.serves_others().await;
    accept.is_bounded(before);
    drop(idle);
    accept.recovers(before).await;
}

/// A client that has said all it will say may close its half and is answered.
#[tokio::test(flavor = "multi_thread")]
async fn half_closed_sockets() {
    let accept = start(Exclusivity::Exclusive).await;
    let before = accept.usage();
    let mut clients = crowd(&accept, 500, async |mut client, n| {
        client.send(post(&[], confirmed(n))).await;
        client.finish().await;
        // And the server closes its own half.
        (client.answer().await.status, client.is_closed().await)
    })
    .await;
    while let Some(answered) = clients.join_next().await {
        assert_eq!(answered.unwrap(), (202, true));
    }
    accept.recovers(before).await;
}

async fn send_and_hang_up(count: u32) {
    let accept = start(Exclusivity::Exclusive).await;
    let before = accept.usage();
    let mut clients = JoinSet::new();
    for n in 0..count {
        while clients.len() >= 64 {
            clients.join_next().await;
        }
        let mut client = accept.connect().await;
        clients.spawn(async move {
            let body = confirmed(n);
            // Some leave in the middle of the body, some as soon as it is sent; it may be refused by a reset.
            let request = head(&[], body.len() + n as usize % 2) + &body;
            let _sent = client.try_send(request).await;
        });
        if n % 1_000 == 999 {
            accept.serves_others().await;
            accept.is_bounded(before);
        }
    }
    drop(clients);
    accept.recovers(before).await;
}

/// Clients that send and hang up leave nothing behind.
#[tokio::test(flavor = "multi_thread")]
async fn hanging_up() {
    send_and_hang_up(5_000).await;
}

/// The same, long enough for a small leak to show.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "part of make test_faults"]
async fn hanging_up_100_000_times() {
    send_and_hang_up(100_000).await;
}

/// With too few descriptors, some clients wait; nothing spins, and all is well once they are fewer.
#[tokio::test(flavor = "multi_thread")]
async fn too_few_descriptors() {
    let accept = Accept::start(Setup {
        ulimit_files: Some(64),
        exclusivity: Exclusivity::Shared,
        ..Setup::default()
    })
    .await;
    let before = accept.usage();
    let mut crowd = Vec::new();
    for _ in 0..500 {
        // The kernel's backlog takes those that are not accepted.
        crowd.push(accept.connect().await);
    }
    let (started, ticks) = (Instant::now(), accept.usage().cpu_ticks);
    sleep(Duration::from_secs(3)).await;
    let busy = (accept.usage().cpu_ticks - ticks) as f64 / 100.0 / started.elapsed().as_secs_f64();
    assert!(
        busy < 0.2,
        "{:.0} % of a core for doing nothing",
        busy * 100.0
    );
    drop(crowd);
    accept.recovers(before).await;
}

/// Attacks: no producer has the consumer hold messages far larger than any of ours, since the broker
/// that is shipped refuses them.
#[tokio::test(flavor = "multi_thread")]
async fn the_broker_refuses_what_is_larger_than_any_of_our_messages() {
    const MESSAGE_MAX: usize = 2 * 1024 * 1024;
    let stack = stack::lease(Exclusivity::Shared).await;
    let (connection, channel) = stack.amqp().await;
    let confirms = ConfirmSelectOptions::default();
    channel.confirm_select(confirms).await.unwrap();
    let publish = async |bytes: usize| {
        let (options, body) = (BasicPublishOptions::default(), vec![b'x'; bytes]);
        let properties = BasicProperties::default();
        // To no queue at all, which is confirmed too.
        let published = channel.basic_publish("".into(), "".into(), options, &body, properties);
        published.await.unwrap().await
    };
    let taken = publish(MESSAGE_MAX).await;
    assert!(matches!(taken, Ok(Confirmation::Ack(_))), "{taken:?}");
    let refused = publish(MESSAGE_MAX + 1).await;
    let why = refused.expect_err("a refusal").to_string();
    assert!(why.contains("PRECONDITION_FAILED"), "{why}");
    connection.close(200, "done".into()).await.unwrap();
}
