//! 202 is for what the broker has confirmed, and for nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use tokio::task::JoinSet;

use crate::accept::{Accept, Setup};
use crate::fake_broker::{FakeBroker, Fate};
use crate::stack::Exclusivity;
use ticketd_testing::{Client, ask_once, post, wait_until};

/// The confirm time-out of the test that has one, and a second for two busy cores.
const ANSWERED_WITHIN: Duration = Duration::from_millis(1_500);

/// One ticket of a test and what became of it.
struct Sent {
    number: u32,
    fate: Fate,
    status: u16,
    waited: Duration,
}

/// Posts so many tickets over some connections, each with the fate that chance gives it.
async fn post_all(
    accept: &Accept,
    connections: u32,
    tickets: u32,
    size_max: usize,
    fate: fn(&mut Rng) -> Fate,
) -> Vec<Sent> {
    let mut clients = JoinSet::new();
    let address = accept.ticketd.address;
    for client in 0..connections {
        clients.spawn(async move {
            let mut rng = Rng::with_seed(client.into());
            let mut till = Client::connect(address).await.unwrap();
            let mut sent = Vec::new();
            for number in (client..tickets).step_by(connections as usize) {
                let fate = fate(&mut rng);
                let mark = format!("mark:{number} {};", fate.word());
                let body = format!("{mark}{}", "x".repeat(rng.usize(0..size_max)));
                let started = std::time::Instant::now();
                let answer = till.ask(post(&[], body)).await;
                sent.push(Sent {
                    number,
                    fate,
                    status: answer.status,
                    waited: started.elapsed(),
                });
            }
            sent
        });
    }
    clients.join_all().await.into_iter().flatten().collect()
}

impl Accept {
    /// No 202 without a confirm, and every message as it must be; returns how many had each status.
    fn check(&self, sent: &[Sent]) -> BTreeMap<u16, usize> {
        let seen = self.broker.seen.lock().unwrap();
        let mut statuses = BTreeMap::new();
        for Sent {
            number,
            fate,
            status,
            ..
        } in sent
        {
            assert!(
                matches!(status, 202 | 503),
                "ticket {number} was answered {status}"
            );
            assert!(
                *status != 202 || *fate == Fate::Confirm,
                "ticket {number} was answered 202 after {fate:?}"
            );
            assert!(
                *status != 202 || seen.confirmed.contains(number),
                "ticket {number} was never confirmed"
            );
            *statuses.entry(*status).or_insert(0) += 1;
        }
        assert_eq!(
            (seen.transient, seen.optional),
            (0, 0),
            "messages that are not persistent, or not mandatory"
        );
        statuses
    }
}

fn mostly_confirmed(rng: &mut Rng) -> Fate {
    if rng.u8(0..100) < 15 {
        Fate::Refuse
    } else {
        Fate::Confirm
    }
}

/// Attacks: each confirm is taken for its own message, when many are awaited and the order is odd.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_message_is_never_202() {
    let accept = Accept::in_disorder(&[("PUBLISH_GROUP_MAX", "1")]).await;
    let sent = post_all(&accept, 96, 6_000, 8_000, mostly_confirmed).await;
    let statuses = accept.check(&sent);
    let confirmed = sent
        .iter()
        .filter(|sent| sent.fate == Fate::Confirm)
        .count();
    assert_eq!(
        statuses.get(&202),
        Some(&confirmed),
        "each confirmed ticket is a 202"
    );
    assert!(
        accept.broker.seen.lock().unwrap().multiple > 10,
        "several confirmed at once"
    );
}

/// Attacks: a group is confirmed or refused as a whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_group_is_never_202() {
    let accept = Accept::in_disorder(&[("PUBLISH_GROUP_MAX", "8")]).await;
    let fate = |rng: &mut Rng| {
        if rng.u8(0..100) < 4 {
            Fate::Refuse
        } else {
            Fate::Confirm
        }
    };
    let statuses = accept.check(&post_all(&accept, 128, 6_000, 400, fate).await);
    assert!(
        statuses.get(&202).is_some_and(|count| *count > 1_000),
        "{statuses:?}"
    );
    assert!(
        statuses.get(&503).is_some_and(|count| *count > 100),
        "{statuses:?}"
    );
}

/// Attacks: 503 at the deadline for what is never confirmed, though its neighbours are.
#[tokio::test(flavor = "multi_thread")]
async fn an_unconfirmed_message_is_never_202() {
    let settings = [("PUBLISH_GROUP_MAX", "1"), ("CONFIRM_TIMEOUT", "500ms")];
    let accept = Accept::in_disorder(&settings).await;
    let fate = |rng: &mut Rng| {
        if rng.u8(0..100) < 2 {
            Fate::Ignore
        } else {
            Fate::Confirm
        }
    };
    let sent = post_all(&accept, 32, 1_000, 400, fate).await;
    let statuses = accept.check(&sent);
    assert!(
        statuses.get(&202).is_some_and(|count| *count > 100),
        "{statuses:?}"
    );
    let ignored: Vec<_> = sent
        .iter()
        .filter(|sent| sent.fate == Fate::Ignore)
        .collect();
    assert!(!ignored.is_empty());
    for Sent { number, waited, .. } in ignored {
        assert!(
            *waited < ANSWERED_WITHIN,
            "ticket {number} waited {waited:?}"
        );
    }
}

/// No more messages wait for their confirms at a time than 512, and the tickets of the others wait
/// for those: more are posted than that, of which none is confirmed.
#[tokio::test(flavor = "multi_thread")]
async fn unconfirmed_messages_are_bounded() {
    const POSTED: u32 = 600;
    const UNCONFIRMED_MAX: usize = 512;
    let settings = [("PUBLISH_GROUP_MAX", "1"), ("CONFIRM_TIMEOUT", "1h")];
    let accept = Accept::in_disorder(&settings).await;
    let mut waiting = Vec::new();
    for number in 0..POSTED {
        let mut till = Client::connect(accept.ticketd.address).await.unwrap();
        till.send(post(&[], format!("mark:{number} ignore;"))).await;
        waiting.push(till);
    }
    wait_until("every ticket waits", async || {
        let taken = accept.ticketd.metric("ticketd_inflight").await;
        let published = accept.broker.seen.lock().unwrap().messages;
        taken == f64::from(POSTED) && published >= UNCONFIRMED_MAX
    })
    .await;
    // One more would have left before the look that found the last ticket taken.
    let published = accept.broker.seen.lock().unwrap().messages;
    assert_eq!(published, UNCONFIRMED_MAX);
}

/// Attacks: a ticket that was published again with little of its time left, and runs out of it, is
/// answered 503, and costs nobody the link on which it is still to be confirmed.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_ticket_does_not_end_the_next_link() {
    let accept = Accept::start(Setup {
        settings: &[("CONFIRM_TIMEOUT", "3s")],
        lull: Duration::from_secs(2),
        ..Setup::default()
    })
    .await;
    let post_marked = async |mark: &str| {
        let (address, request) = (accept.ticketd.address, post(&[], mark));
        let answer = ask_once(address, &request, Duration::from_secs(10)).await;
        answer.expect("an answer in time").status
    };
    // Nothing settles the first, so the link is given up after 3 s; the second would be confirmed
    // half a second later, and half of its time is left when it is published again.
    let statuses = tokio::join!(post_marked("mark:1 ignore;"), async {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        post_marked("mark:2 confirm;").await
    });
    assert_eq!(statuses, (503, 503));
    wait_until("a confirm on the second link", async || {
        accept.broker.seen.lock().unwrap().confirmed.contains(&2)
    })
    .await;
    let given_up = "ticketd_publish_failed_total{reason=\"timeout\"}";
    assert_eq!(accept.ticketd.metric(given_up).await, 1.0);
}

/// Attacks: what the broker returns went nowhere, and its confirm says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_returned_message_is_never_202() {
    let accept = Accept::in_disorder(&[("PUBLISH_GROUP_MAX", "1")]).await;
    let fate = |rng: &mut Rng| {
        if rng.u8(0..100) < 20 {
            Fate::Return
        } else {
            Fate::Confirm
        }
    };
    // One at a time: only then can be known which message a return is about.
    let statuses = accept.check(&post_all(&accept, 1, 60, 400, fate).await);
    assert!(
        statuses.contains_key(&202) && statuses.contains_key(&503),
        "{statuses:?}"
    );
}

/// Attacks: one of several servers goes, and the next one refuses at first, as one does that has not
/// heard yet which node leads the queue. Nobody is rejected for either.
#[tokio::test(flavor = "multi_thread")]
async fn another_server_takes_over() {
    let one = FakeBroker::start(Duration::ZERO).await;
    let other = FakeBroker::start(Duration::ZERO).await;
    let urls = [one.url(), other.url()].join(",");
    let accept = Accept::start(Setup {
        settings: &[("AMQP_URL", &urls)],
        exclusivity: Exclusivity::Shared,
        ..Setup::default()
    })
    .await;
    let post_marked = async |mark: &str| {
        let (address, request) = (accept.ticketd.address, post(&[], mark));
        let answer = ask_once(address, &request, Duration::from_secs(10)).await;
        answer.expect("an answer in time").status
    };
    assert_eq!(post_marked("mark:1 confirm;").await, 202);
    let is_one = one.seen.lock().unwrap().messages > 0;
    let (used, next) = if is_one { (one, other) } else { (other, one) };
    drop(used);
    for number in 2..12 {
        let mark = format!(
            "mark:{number} {};",
            if number == 2 { "hesitate" } else { "confirm" }
        );
        assert_eq!(post_marked(&mark).await, 202, "{}", accept.ticketd.log());
    }
    {
        let seen = next.seen.lock().unwrap();
        assert!(seen.hesitated.contains(&2) && seen.confirmed.contains(&2));
    }
    // Once something was confirmed, a refusal is one.
    assert_eq!(post_marked("mark:13 refuse;").await, 503);
}
