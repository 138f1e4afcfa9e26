//! Tickets that the tables refuse, among others that they take.

use uuid::Uuid;

use ticketd_testing::*;

use crate::TICKETD;

/// Tickets that the tables refuse go to `dead_tickets` alone, and all that travel with them are
/// stored: adds constraints that refuse three of them, in the middle of a group of 1,000.
#[tokio::test]
async fn a_poisonous_ticket_is_set_aside_alone() {
    poisonous_tickets_are_dead_lettered(
        "alter table tickets add constraint poison check (order_id not in ('444', '777')); \
        alter table products add constraint bitter check (product_id <> 't-555')",
    )
    .await;
}

/// The same where the tables refuse them only at COMMIT: adds a deferred foreign key and a deferred
/// trigger.
#[tokio::test]
async fn a_ticket_that_commit_refuses_is_set_aside_alone() {
    poisonous_tickets_are_dead_lettered(
        "create table orders (id varchar(255) primary key); \
        insert into orders select n::text from generate_series(0, 999) n where n not in (444, 777); \
        alter table tickets add constraint poison foreign key (order_id) references orders \
            deferrable initially deferred; \
        create function refuse() returns trigger language plpgsql as \
            $$ begin raise exception using errcode = 'check_violation', message = tg_name; end $$; \
        create constraint trigger bitter after insert on products deferrable initially deferred \
            for each row when (new.product_id = 't-555') execute function refuse()",
    )
    .await;
}

/// Makes the tables refuse the orders 444 and 777 for what they call poison, and the product t-555
/// for what they call bitter.
async fn poisonous_tickets_are_dead_lettered(poison: &str) {
    const TICKETS: usize = 1_000;
    let namespace = Namespace::new(TICKETD).await;
    namespace.run(&["migrate"], &[]).await;
    namespace.database.batch_execute(poison).await.unwrap();
    let ticketd = namespace.ready("serve", &[]).await;
    let bodies: Vec<String> = (0..TICKETS).map(|n| ticket(&n.to_string())).collect();
    let records = bodies
        .iter()
        .map(|body| (Uuid::now_v7(), 1_000_000, body.as_bytes()));
    namespace.publish(group_properties(), &group(records)).await;
    namespace.stored(TICKETS as i64 - 3).await;
    namespace.filled("dead_tickets", 3).await;
    let dead = namespace.dead().await;
    for (dead, (n, why)) in dead
        .iter()
        .zip([(444, "poison"), (555, "bitter"), (777, "poison")])
    {
        assert_eq!(dead.body, bodies[n].as_bytes());
        assert!(dead.reason.contains(why), "{}", dead.reason);
    }
    assert_eq!(namespace.count("products").await, TICKETS as i64 - 3);
    ticketd.drained().await;
    assert_eq!(namespace.depth(namespace.queue()).await, 0);
}
