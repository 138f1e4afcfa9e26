//! Idempotency keys: the same key is the same ticket.

use std::collections::HashSet;

use uuid::Uuid;

use ticketd_testing::*;

use crate::TICKETD;

/// The same key is the same ticket, whichever header brings it, and it is stored once: posts one
/// ticket several times and counts.
#[tokio::test]
async fn a_repeated_key_is_stored_once() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let mut client = ticketd.client().await;
    let mut ids = HashSet::new();
    for header in [
        "Idempotency-Key: till-7/1",
        "idempotency-key: till-7/1",
        "webhook-id: till-7/1",
    ] {
        ids.insert(namespace.accepted(&mut client, &[header], EXAMPLE).await);
    }
    assert_eq!(ids.len(), 1, "{ids:?}");
    let other = namespace
        .accepted(&mut client, &["webhook-id: till-7/2"], EXAMPLE)
        .await;
    assert!(!ids.contains(&other));
    namespace.row(other).await;
    assert_eq!(namespace.count("tickets").await, 2);
    assert_eq!(namespace.count("dead_tickets").await, 0);
}

/// A key that is a UUID of version 7 is the ticket's id, and a repetition is stored once, though ids of
/// that version are taken to be new: posts some several times, and one with another body.
#[tokio::test]
async fn a_key_of_version_7_is_the_id() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let mut client = ticketd.client().await;
    let keys: Vec<_> = (0..5).map(|_| Uuid::now_v7()).collect();
    for _ in 0..3 {
        for key in &keys {
            let header = format!("Idempotency-Key: {key}");
            assert_eq!(
                namespace.accepted(&mut client, &[&header], EXAMPLE).await,
                *key
            );
        }
    }
    namespace.stored(5).await;
    let header = format!("webhook-id: {}", keys[0]);
    namespace
        .accepted(&mut client, &[&header], &ticket("other"))
        .await;
    namespace.filled("dead_tickets", 1).await;
    ticketd.drained().await;
    assert_eq!(namespace.count("tickets").await, 5);
    assert_eq!(namespace.dead().await[0].ticket_id, keys[0]);
}

/// A key used for another ticket does not replace the first: the other goes to `dead_tickets`, once
/// however often it comes, and its products are not applied. Posts both several times, first to an
/// idle consumer and then within one message.
#[tokio::test]
async fn a_key_used_for_another_ticket_keeps_the_first() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let mut client = ticketd.client().await;
    let key = ["Idempotency-Key: till-7/1"];
    let (first, other) = (ticket("first"), ticket("other"));
    let id = namespace.accepted(&mut client, &key, &first).await;
    namespace.row(id).await;
    for body in [&other, &first, &other] {
        namespace.accepted(&mut client, &key, body).await;
    }
    namespace.filled("dead_tickets", 1).await;

    let twice = Uuid::now_v7();
    let (one, two) = (ticket("one"), ticket("two"));
    let payload = group([
        (twice, 1, one.as_bytes()),
        (twice, 2, two.as_bytes()),
        (twice, 3, one.as_bytes()),
    ]);
    namespace.publish(group_properties(), &payload).await;
    namespace.filled("dead_tickets", 2).await;
    ticketd.drained().await;

    let stored: Vec<_> = namespace
        .rows()
        .await
        .into_iter()
        .map(|row| row.ticket_text.unwrap())
        .collect();
    assert_eq!(stored, [first, one]);
    let dead = namespace.dead().await;
    let bodies: Vec<_> = dead.iter().map(|dead| dead.body.as_slice()).collect();
    assert_eq!(bodies, [other.as_bytes(), two.as_bytes()]);
    assert_eq!((dead[0].ticket_id, dead[1].ticket_id), (id, twice));
    assert!(
        dead.iter().all(|dead| dead.reason.contains("key")),
        "{dead:?}"
    );
    let products: Vec<_> = namespace
        .products()
        .await
        .into_iter()
        .map(|product| product.0)
        .collect();
    assert_eq!(products, ["t-first", "t-one"]);
    assert_eq!(namespace.depth(namespace.queue()).await, 0);
}
