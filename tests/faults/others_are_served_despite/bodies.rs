//! Bodies that are slow, stalled, endless or large.

use super::*;

/// The head of a body that may go on for ever.
const ENDLESS: &str = "POST /ticket HTTP/1.1\r\nhost: till\r\ntransfer-encoding: chunked\r\n\r\n";

/// What one connection may hold while it is idle, whatever it has sent, in KiB.
const IDLE_KIB: u64 = 16;

/// A body that does not come is answered 408, and others are served meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn slow_body() {
    let accept = start(Exclusivity::Shared).await;
    let before = accept.usage();
    let mut clients = crowd(&accept, 300, async |mut client, _| {
        client.send(head(&[], 1_000)).await;
        answer(&mut client).await
    })
    .await;
    accept.serves_others().await;
    while let Some(answer) = clients.join_next().await {
        let answer = answer.unwrap();
        assert_eq!((answer.status, answer.closes()), (408, true));
    }
    accept.recovers(before).await;
}

/// A body that takes longer to come than a confirm may is no fault of the broker's: its sender is
/// answered 202, and others see nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_slower_than_a_confirm() {
    let accept = Accept::start(Setup {
        settings: &[("CONFIRM_TIMEOUT", "1s")],
        // So that tickets wait for their confirms when deadlines are looked at.
        lull: Duration::from_millis(100),
        exclusivity: Exclusivity::Shared,
        ..Setup::default()
    })
    .await;
    let clients = crowd(&accept, 100, async |mut client, n| {
        let body = confirmed(n);
        let (first, rest) = body.split_at(body.len() / 2);
        client.send(head(&[], body.len()) + first).await;
        sleep(Duration::from_secs(2)).await;
        client.send(rest).await;
        answer(&mut client).await.status
    })
    .await;
    accept.serves_others().await;
    let statuses = clients.join_all().await;
    let accepted = statuses.iter().filter(|&&status| status == 202).count();
    let late = "ticketd_publish_failed_total{reason=\"timeout\"}";
    let late = accept.ticketd.metric(late).await;
    assert_eq!((accepted, late), (100, 0.0), "{statuses:?}");
}

/// Senders that stall after a byte hold a byte each of what unfinished bodies may hold, not the
/// largest body: many more of them than largest bodies have room are taken in the end.
#[tokio::test(flavor = "multi_thread")]
async fn stalled_bodies() {
    // At the largest of these, 64 bodies have room.
    let accept = Accept::start(Setup {
        settings: &[("BODY_MAX", "1048576")],
        exclusivity: Exclusivity::Shared,
        ..Setup::default()
    })
    .await;
    let before = accept.usage();
    let begun = crowd(&accept, 256, async |mut client, n| {
        let body = confirmed(n);
        // Who is told to go on is being read.
        client
            .send(head(&["expect: 100-continue"], body.len()))
            .await;
        assert_eq!(client.answer().await.status, 100);
        client.send(&body.as_bytes()[..1]).await;
        (client, body)
    })
    .await
    .join_all()
    .await;
    accept.serves_others().await;
    let mut statuses = Vec::new();
    for (mut client, body) in begun {
        // One that was refused may have been cut off.
        let _sent = client.try_send(&body.as_bytes()[1..]).await;
        statuses.push(answer(&mut client).await.status);
    }
    let accepted = statuses.iter().filter(|&&status| status == 202).count();
    assert_eq!(accepted, 256, "{statuses:?}");
    accept.recovers(before).await;
}

/// A chunked body without end is refused at the limit.
#[tokio::test(flavor = "multi_thread")]
async fn endless_chunked_body() {
    let accept = start(Exclusivity::Exclusive).await;
    let before = accept.usage();
    let mut clients = crowd(&accept, 100, async |mut client, _| {
        client.send(ENDLESS).await;
        let (mut reader, mut writer) = client.split();
        let endless = async {
            let chunk = format!("400\r\n{}\r\n", "z".repeat(1_024));
            while writer.write_all(chunk.as_bytes()).await.is_ok() {}
            std::future::pending::<()>().await;
        };
        tokio::select! {
            answer = reader.try_answer() => answer,
            () = endless => unreachable!("it never ends"),
        }
    })
    .await;
    accept.serves_others().await;
    while let Some(answer) = clients.join_next().await {
        assert_eq!(answer.unwrap().expect("an answer, not a reset").status, 413);
    }
    accept.recovers(before).await;
}

/// A connection that has sent a large body holds no more than any other once it is idle.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_after_large_bodies() {
    let accept = start(Exclusivity::Exclusive).await;
    let large = post(&[], format!("{}{}", confirmed(0), "x".repeat(60_000)));
    let send = async || {
        let clients = crowd(&accept, 50, |mut client, _| {
            let large = large.clone();
            async move {
                assert_eq!(client.ask(large).await.status, 202);
                client
            }
        });
        clients.await.join_all().await
    };
    // The buffers that all connections share grow to their size.
    drop(send().await);
    let possible = rlimit::increase_nofile_limit(20_000).unwrap();
    let count = 5_000.min(possible / 2);
    let before = accept.usage();
    let mut idle = Vec::new();
    while (idle.len() as u64) < count {
        idle.extend(send().await);
    }
    let each = accept.usage().rss_kib.saturating_sub(before.rss_kib) / count;
    assert!(each <= IDLE_KIB, "{each} KiB each");
    drop(idle);
    accept.recovers(before).await;
}
