//! Many dead tickets at once: listed, replayed and purged.

use serde_json::{Value, json};
use ticketd_testing::*;
use uuid::Uuid;

use crate::TICKETD;
use crate::senders::{LINES, SHOP_1, SHOP_2};

async fn dead(namespace: &Namespace, args: &[&str]) -> Ended {
    let args: Vec<_> = ["dead"].iter().chain(args).copied().collect();
    namespace.run(&args, &[]).await
}

async fn lists_are_filtered(namespace: &Namespace, of_shop_2: Uuid) {
    for (filter, count) in [
        (&[][..], 4),
        (&["--reason=no_green"], 3),
        (&["--reason=no_green", "--source=shop-1"], 2),
        (&["--source=shop-3"], 0),
        (&["--since=1h"], 4),
        (&["--until=1h"], 0),
        (
            &[
                "--since=1h",
                "--until=2999-01-01 00:00:00",
                "--reason=content type",
            ],
            1,
        ),
    ] {
        let list = dead(namespace, &[&["list"], filter].concat()).await;
        assert_eq!(
            list.text().lines().count(),
            count,
            "{filter:?} {}",
            list.log
        );
        let dry = dead(
            namespace,
            &[&["purge", "--all", "--dry-run"], filter].concat(),
        )
        .await;
        assert_eq!(dry.text(), list.text());
    }
    let id = of_shop_2.to_string();
    let json = dead(namespace, &["list", "--format=json", "--id", &id]).await;
    let json: Value = serde_json::from_str(json.text()).unwrap();
    assert_eq!(
        (&json["id"], &json["source"]),
        (&json!(id), &json!("shop-2"))
    );
    for wrong in [
        &["replay"][..],
        &["purge", "--reason=x"],
        &["replay", "1", "--all"],
        &["replay", "1", "--reason=x"],
        &["list", "--since=soon"],
    ] {
        assert_eq!(dead(namespace, wrong).await.code(), Some(2), "{wrong:?}");
    }
}

/// Many dead tickets are listed, replayed and purged by what they have in common, and a replay does
/// not meet what dies again: makes some of several kinds, replays them while they die again, and then
/// for good.
#[tokio::test]
async fn dead_tickets_are_repaired_together() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[("CREDENTIALS", LINES)]).await;
    let mut client = ticketd.client().await;
    namespace
        .row(namespace.accepted(&mut client, &[SHOP_1], EXAMPLE).await)
        .await;
    let refuse = "alter table tickets add constraint no_green check (order_id not like 'green%')";
    namespace.database.batch_execute(refuse).await.unwrap();
    let mut ids = Vec::new();
    for (n, shop) in [SHOP_1, SHOP_2, SHOP_1].into_iter().enumerate() {
        let body = ticket(&format!("green {n}"));
        ids.push(namespace.accepted(&mut client, &[shop], &body).await);
        namespace.filled("dead_tickets", n as i64 + 1).await;
        // One that is stored, so that a refusal is known to be the ticket's fault.
        namespace
            .row(namespace.accepted(&mut client, &[shop], EXAMPLE).await)
            .await;
    }
    let image = ticket_properties(Uuid::now_v7(), 1).with_content_type("image/png".into());
    namespace.publish(image, b"\0\xff").await;
    namespace.filled("dead_tickets", 4).await;

    lists_are_filtered(&namespace, ids[1]).await;

    // Each dies again, as a new row that this replay does not meet.
    let again = dead(&namespace, &["replay", "--all", "--reason=no_green"]).await;
    assert_eq!(
        (again.code(), again.text().lines().count()),
        (Some(0), 3),
        "{}",
        again.log
    );
    namespace
        .row(namespace.accepted(&mut client, &[SHOP_1], EXAMPLE).await)
        .await;
    namespace.filled("dead_tickets", 4).await;
    let drop = "alter table tickets drop constraint no_green";
    namespace.database.batch_execute(drop).await.unwrap();
    let replayed = dead(&namespace, &["replay", "--all", "--source=shop-1"]).await;
    assert_eq!(replayed.text().lines().count(), 2, "{}", replayed.log);
    namespace.filled("dead_tickets", 2).await;
    let numbers: Vec<_> = namespace
        .dead()
        .await
        .iter()
        .map(|dead| dead.number.to_string())
        .collect();
    let missing = dead(&namespace, &["purge", &numbers[0], "99999"]).await;
    assert_eq!(missing.code(), Some(1));
    assert!(
        missing.log.contains("no dead ticket 99999"),
        "{}",
        missing.log
    );
    let purged = dead(&namespace, &["purge", "--all"]).await;
    assert_eq!((purged.code(), purged.text()), (Some(0), "1\n"));
    for id in [ids[0], ids[2]] {
        assert_eq!(namespace.row(id).await.ticket_id, id);
    }
    namespace.filled("dead_tickets", 0).await;
}

/// A replay that is killed anywhere loses nothing, and two at once do no harm: kills some on their
/// way through many dead tickets, and runs two to the end.
#[tokio::test]
async fn a_replay_may_be_killed_and_run_again() {
    let namespace = Namespace::new(TICKETD).await;
    let ticketd = namespace.ready("serve", &[]).await;
    let insert = "insert into dead_tickets (ticket_id, reason, body, received_at) \
        select gen_random_uuid(), 'put here', convert_to(replace($1, '123456', n::text), 'UTF8'), now() \
        from generate_series(1, 300) n";
    namespace
        .database
        .execute(insert, &[&EXAMPLE])
        .await
        .unwrap();
    let settings = namespace.settings("dead", &[]);
    for left in [250, 180, 120] {
        let replay = Process::start(TICKETD, &["dead", "replay", "--all"], &settings);
        wait_until("some are replayed", async || {
            namespace.count("dead_tickets").await <= left
        })
        .await;
        replay.signal("KILL");
        replay.ended().await;
    }
    let both = ["dead", "replay", "--all"];
    let both = tokio::join!(namespace.run(&both, &[]), namespace.run(&both, &[]));
    for ended in [both.0, both.1] {
        assert_eq!(ended.code(), Some(0), "{}", ended.log);
    }
    namespace.filled("dead_tickets", 0).await;
    namespace.stored(300).await;
    ticketd.drained().await;
}

/// What RabbitMQ gave up delivering joins the others, ticket by ticket, and a collector that is
/// killed loses nothing: puts messages of each kind into the queue, and many.
#[tokio::test]
async fn dead_letters_are_collected() {
    let namespace = Namespace::new(TICKETD).await;
    namespace.ready("serve", &[]).await.drained().await;
    let queue = namespace.dead_queue();
    let single = ticket_properties(Uuid::now_v7(), 1);
    namespace
        .publish_to(&queue, single, EXAMPLE.as_bytes())
        .await;
    let bodies = ["7", "8", "9"].map(ticket);
    let records = bodies
        .iter()
        .map(|body| (Uuid::now_v7(), 1, body.as_bytes()));
    let group = group(records);
    namespace
        .publish_to(&queue, group_properties(), &group)
        .await;
    namespace
        .publish_to(&queue, group_properties(), b"\xffno group")
        .await;
    let collected = dead(&namespace, &["collect"]).await;
    assert_eq!(
        (collected.code(), collected.text()),
        (Some(0), "3\n"),
        "{}",
        collected.log
    );
    namespace.filled("dead_tickets", 5).await;
    assert_eq!(namespace.depth(&queue).await, 0);
    for dead in namespace.dead().await {
        assert!(
            dead.reason.starts_with("RabbitMQ gave up delivering it"),
            "{}",
            dead.reason
        );
    }
    let again = dead(&namespace, &["collect"]).await;
    assert_eq!((again.code(), again.text()), (Some(0), "0\n"));

    for n in 0..1000 {
        let properties = ticket_properties(Uuid::now_v7(), 1);
        namespace
            .publish_to(&queue, properties, ticket(&n.to_string()).as_bytes())
            .await;
    }
    let settings = namespace.settings("dead", &[]);
    for moved in [200, 400] {
        let collector = Process::start(TICKETD, &["dead", "collect"], &settings);
        wait_until("some are moved", async || {
            namespace.count("dead_tickets").await > moved
        })
        .await;
        collector.signal("KILL");
        collector.ended().await;
    }
    let rest = dead(&namespace, &["collect"]).await;
    assert_eq!(rest.code(), Some(0), "{}", rest.log);
    namespace.filled("dead_tickets", 1005).await;
    assert_eq!(namespace.depth(&queue).await, 0);
    let ticketd = namespace.ready("serve", &[]).await;
    let replayed = dead(&namespace, &["replay", "--all"]).await;
    assert_eq!(replayed.code(), Some(0), "{}", replayed.log);
    // What is no group dies again.
    namespace.stored(1004).await;
    namespace.filled("dead_tickets", 1).await;
    ticketd.drained().await;
}
