//! Tickets that PostgreSQL refuses: those at fault go to `dead_tickets`, and a fault of the tables
//! dead-letters none.

use uuid::Uuid;

use ticketd_testing::*;

use crate::TICKETD;

/// What no ticket meets, though rows that are there may break it.
const NO_TICKET: &str =
    "alter table tickets add constraint nothing_fits check (ticket_text is null) not valid";
const CORRECTED: &str = "alter table tickets drop constraint nothing_fits";

async fn sql(namespace: &Namespace, script: &str) {
    namespace.database.batch_execute(script).await.unwrap();
}

/// Tables to work on, and a consumer of them that is ready.
async fn consuming(script: &str) -> (Namespace, Process) {
    let namespace = Namespace::new(TICKETD).await;
    namespace.run(&["migrate"], &[]).await;
    sql(&namespace, script).await;
    let consume = namespace.ready("consume", &[]).await;
    (namespace, consume)
}

/// Publishes a ticket of that order.
async fn publish(namespace: &Namespace, order: &str) -> Uuid {
    let id = Uuid::now_v7();
    let body = ticket(order);
    namespace
        .publish(ticket_properties(id, 1_000_000), body.as_bytes())
        .await;
    id
}

/// Publishes one message with a ticket of each of these orders, in the order of their ids.
async fn publish_group(namespace: &Namespace, orders: impl IntoIterator<Item = String>) {
    let bodies: Vec<_> = orders.into_iter().map(|order| ticket(&order)).collect();
    let record = |body: &'static str| (Uuid::now_v7(), 1_000_000, body.as_bytes());
    let records = bodies.into_iter().map(|body| record(body.leak()));
    namespace.publish(group_properties(), &group(records)).await;
}

/// Waits until the consumer says that the tables refuse everything, and is not ready for it.
async fn refusing(consume: &mut Process) {
    let mut admin = consume.admin().await;
    wait_until("not ready, because tickets are refused", async || {
        let answer = admin.ask(get("/readyz")).await;
        answer.status == 503 && answer.json()["checks"]["database"] == "refusing"
    })
    .await;
}

async fn held(process: &mut Process) -> Option<f64> {
    let page = process.admin().await.ask(get("/metrics")).await;
    metric(page.text(), "ticketd_pg_refusing")
}

/// Waits until that many tickets are stored and it is ready again, with nothing left in the queue.
async fn goes_on(namespace: &Namespace, mut consume: Process, tickets: i64) {
    namespace.stored(tickets).await;
    consume.ready_on("ADMIN_LISTEN").await;
    assert_eq!(held(&mut consume).await, Some(0.0));
    consume.drained().await;
    assert_eq!(namespace.depth(namespace.queue()).await, 0);
}

/// A constraint that no ticket meets dead-letters none: the consumer says so in its health and names the
/// constraint in its log, still has them all after several attempts, and stores them by itself once
/// the constraint is gone. Adds one before 40 tickets come together.
#[tokio::test]
async fn a_fault_of_the_table_dead_letters_nothing() {
    let (namespace, mut consume) = consuming(NO_TICKET).await;
    publish_group(&namespace, (0..40).map(|n| n.to_string())).await;
    refusing(&mut consume).await;
    assert_eq!(held(&mut consume).await, Some(40.0));
    let log = consume.log();
    let error = log.lines().find(|line| line.contains("ERROR")).unwrap();
    assert!(error.contains("nothing_fits"), "{error}");
    assert!(error.contains("23514"), "{error}");
    repeated(&mut consume, 3.0).await;
    assert_eq!(namespace.count("dead_tickets").await, 0);
    assert_eq!(namespace.count("tickets").await, 0);
    sql(&namespace, CORRECTED).await;
    goes_on(&namespace, consume, 40).await;
    assert_eq!(namespace.count("dead_tickets").await, 0);
}

/// Waits until refused batches have been tried again that many times.
async fn repeated(consume: &mut Process, times: f64) {
    let mut admin = consume.admin().await;
    let series = "ticketd_flush_failed_total{reason=\"refused\"}";
    let mut count = async || {
        let page = admin.ask(get("/metrics")).await;
        metric(page.text(), series).unwrap()
    };
    let first = count().await;
    wait_until("tried again", async || count().await >= first + times).await;
}

/// Tickets that come one by one are no different: the first two may be at fault themselves, and from
/// the third on they are held. Publishes each once the one before is dealt with, and more after that.
#[tokio::test]
async fn the_third_ticket_in_a_row_is_held() {
    let (namespace, mut consume) = consuming(NO_TICKET).await;
    for n in 1..=2 {
        publish(&namespace, &n.to_string()).await;
        namespace.filled("dead_tickets", n).await;
    }
    for n in 3..=10 {
        publish(&namespace, &n.to_string()).await;
        refusing(&mut consume).await;
    }
    wait_until("all held", async || held(&mut consume).await == Some(8.0)).await;
    repeated(&mut consume, 3.0).await;
    assert_eq!(namespace.count("dead_tickets").await, 2);
    sql(&namespace, CORRECTED).await;
    goes_on(&namespace, consume, 8).await;
    assert_eq!(namespace.count("dead_tickets").await, 2);
}

/// A consumer that has stored a ticket before has something to compare with, so that not even the
/// first that comes alone is dead-lettered. Adds the constraint after one was stored.
#[tokio::test]
async fn a_fault_of_the_table_after_a_ticket_was_stored_dead_letters_nothing() {
    let (namespace, mut consume) = consuming("").await;
    publish(&namespace, "stored").await;
    namespace.stored(1).await;
    sql(&namespace, NO_TICKET).await;
    for n in 1..=3 {
        publish(&namespace, &n.to_string()).await;
        refusing(&mut consume).await;
    }
    wait_until("all held", async || held(&mut consume).await == Some(3.0)).await;
    assert_eq!(namespace.count("dead_tickets").await, 0);
    sql(&namespace, CORRECTED).await;
    goes_on(&namespace, consume, 4).await;
    assert_eq!(namespace.count("dead_tickets").await, 0);
}

/// The same with several writers, which share what they know.
#[tokio::test]
async fn several_writers_dead_letter_no_more_than_one() {
    let namespace = Namespace::new(TICKETD).await;
    namespace.run(&["migrate"], &[]).await;
    sql(&namespace, NO_TICKET).await;
    let settings = [("WRITERS", "3"), ("BATCH_ROWS", "1")];
    let mut consume = namespace.ready("consume", &settings).await;
    for n in 0..20 {
        publish(&namespace, &n.to_string()).await;
    }
    refusing(&mut consume).await;
    repeated(&mut consume, 5.0).await;
    assert!(namespace.count("dead_tickets").await <= 2);
    sql(&namespace, CORRECTED).await;
    let dead = namespace.count("dead_tickets").await;
    goes_on(&namespace, consume, 20 - dead).await;
}

/// Tickets in a row that are at fault themselves hold up nobody for long: the next one that the table
/// takes shows whose fault it is. Publishes five of them one by one, then a good one.
#[tokio::test]
async fn a_good_ticket_frees_those_that_are_held() {
    let poison = "alter table tickets add constraint poison check (order_id not like 'bad%')";
    let (namespace, mut consume) = consuming(poison).await;
    for n in 1..=5 {
        publish(&namespace, &format!("bad-{n}")).await;
        namespace.filled_at_least("dead_tickets", n.min(2)).await;
    }
    wait_until("three held", async || held(&mut consume).await == Some(3.0)).await;
    publish(&namespace, "good").await;
    namespace.filled("dead_tickets", 5).await;
    goes_on(&namespace, consume, 1).await;
}

/// Tickets at fault go to `dead_tickets` at once where others of their batch are stored, however many
/// they are and wherever they stand, and the consumer stays ready: publishes groups that begin with
/// them, end with them, and consist of little else.
#[tokio::test]
async fn many_refused_tickets_of_a_batch_are_dead_lettered() {
    let poison = "alter table tickets add constraint poison check (order_id not like 'bad%')";
    let (namespace, mut consume) = consuming(poison).await;
    let (mut good, mut dead) = (0, 0);
    for pattern in ["10", "0111111", "1111111110", "1111011111111"] {
        for repeat in [1, 7] {
            let orders = pattern.chars().flat_map(|bit| vec![bit; repeat]);
            let orders: Vec<_> = (0..)
                .zip(orders)
                .map(|(n, bit)| match bit {
                    '0' => format!("good-{pattern}-{repeat}-{n}"),
                    _ => format!("bad-{pattern}-{repeat}-{n}"),
                })
                .collect();
            let bad = orders.iter().filter(|order| order.starts_with("bad"));
            dead += bad.count() as i64;
            good += orders.len() as i64;
            publish_group(&namespace, orders).await;
            namespace.filled("dead_tickets", dead).await;
            consume.ready_on("ADMIN_LISTEN").await;
        }
    }
    goes_on(&namespace, consume, good - dead).await;
    assert_eq!(namespace.count("dead_tickets").await, dead);
}

/// The same where they are refused for what others have: adds a key of somebody's own, and publishes
/// every order several times.
#[tokio::test]
async fn tickets_that_break_another_key_are_dead_lettered() {
    let (namespace, mut consume) = consuming("create unique index on tickets (order_id)").await;
    let orders = (0..30).map(|n| (n / 10).to_string());
    publish_group(&namespace, orders).await;
    namespace.filled("dead_tickets", 27).await;
    let ready = consume.admin().await.ask(get("/readyz")).await;
    assert_eq!(ready.status, 200);
    goes_on(&namespace, consume, 3).await;
}

/// A product that the tables refuse is its ticket's fault also where nothing else of the batch writes
/// a product, because all the others are stored already: publishes it beside one of those.
#[tokio::test]
async fn a_refused_product_is_compared_with_those_that_are_known() {
    let bitter = "alter table products add constraint bitter check (product_id <> 't-bad')";
    let (namespace, mut consume) = consuming(bitter).await;
    publish(&namespace, "good").await;
    namespace.stored(1).await;
    let orders = ["good", "bad", "good", "bad"].map(str::to_owned);
    publish_group(&namespace, orders).await;
    namespace.filled("dead_tickets", 2).await;
    consume.ready_on("ADMIN_LISTEN").await;
    assert!(!consume.log().contains("has taken no other"));
    goes_on(&namespace, consume, 3).await;
}

/// No kind of fault dead-letters a batch, whatever its SQLSTATE: makes one after the other, and corrects it.
#[tokio::test]
async fn no_fault_of_the_tables_dead_letters_a_batch() {
    let faults = [
        (
            "a column that must be filled",
            "alter table tickets add column shop text not null",
            "alter table tickets drop column shop",
        ),
        (
            "a column that is too narrow",
            "drop view ticket_facts cascade; alter table tickets alter column order_id type varchar(3)",
            "alter table tickets alter column order_id type varchar(255)",
        ),
        (
            "a number of too few digits",
            "alter table products alter column price type numeric(2, 2)",
            "alter table products alter column price type numeric",
        ),
        (
            "numbers that have come to their end",
            "alter table tickets alter column id set maxvalue 1000000; \
            select setval(pg_get_serial_sequence('tickets', 'id'), 1000000)",
            "alter table tickets alter column id set maxvalue 2000000",
        ),
        (
            "a missing row elsewhere",
            "create table shops (id varchar primary key); alter table tickets \
            add constraint shop foreign key (order_id) references shops deferrable initially deferred",
            "alter table tickets drop constraint shop",
        ),
    ];
    for (what, fault, repaired) in faults {
        eprintln!("fault: {what}");
        let (namespace, mut consume) = consuming("").await;
        sql(&namespace, fault).await;
        publish_group(&namespace, (0..40).map(|n| format!("order-{n}"))).await;
        refusing(&mut consume).await;
        assert_eq!(namespace.count("dead_tickets").await, 0, "{what}");
        sql(&namespace, repaired).await;
        namespace.stored(40).await;
        consume.ready_on("ADMIN_LISTEN").await;
        assert_eq!(namespace.count("dead_tickets").await, 0, "{what}");
        consume.drained().await;
    }
}

/// Between two attempts at tables that can store no ticket, it is still the tables that are at fault, and
/// not PostgreSQL that is away: asks again and again while it makes several.
#[tokio::test]
async fn unusable_tables_are_not_a_lost_database() {
    let (namespace, mut consume) = consuming("").await;
    let ended = "alter table tickets alter column id set maxvalue 1000000; \
        select setval(pg_get_serial_sequence('tickets', 'id'), 1000000)";
    sql(&namespace, ended).await;
    publish(&namespace, "order").await;
    refusing(&mut consume).await;
    let mut admin = consume.admin().await;
    wait_until("several attempts", async || {
        let ready = admin.ask(get("/readyz")).await;
        assert_eq!(ready.json()["checks"]["database"], "refusing");
        let page = admin.ask(get("/metrics")).await;
        assert!(metric(page.text(), "ticketd_pg_connected") > Some(0.0));
        let failed = metric(page.text(), "ticketd_flush_failed_total{reason=\"schema\"}");
        failed >= Some(4.0)
    })
    .await;
    sql(
        &namespace,
        "alter table tickets alter column id set maxvalue 2000000",
    )
    .await;
    goes_on(&namespace, consume, 1).await;
}

/// A column of another type is put right where that takes an instant, and nothing is dead-lettered until it
/// is: makes one while tickets are stored.
#[tokio::test]
async fn a_column_of_another_type_is_corrected() {
    let (namespace, mut consume) = consuming("").await;
    sql(
        &namespace,
        "drop view ticket_facts cascade; alter table tickets alter column received_at type date",
    )
    .await;
    publish_group(&namespace, (0..40).map(|n| format!("order-{n}"))).await;
    namespace.stored(40).await;
    consume.ready_on("ADMIN_LISTEN").await;
    assert_eq!(namespace.count("dead_tickets").await, 0);
    let types = "select pg_typeof(received_at)::text from tickets limit 1";
    let row = namespace.database.query_one(types, &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "timestamp with time zone");
    consume.drained().await;
}

/// What refuses tickets may go while a batch is searched: then those refused before are stored, too.
/// Lets a trigger refuse the first rows, ever later ones, and then none.
#[tokio::test]
async fn a_fault_that_ends_during_the_search_dead_letters_nothing() {
    const TICKETS: i64 = 40;
    for refusals in [3, 20, 70] {
        let (namespace, consume) =
            consuming(&refuse_while(&format!("nextval('attempts') <= {refusals}"))).await;
        publish_group(&namespace, (0..TICKETS).map(|n| n.to_string())).await;
        goes_on(&namespace, consume, TICKETS).await;
        assert_eq!(namespace.count("dead_tickets").await, 0, "{refusals}");
    }
}

/// What refuses every ticket may come while a batch is searched for one: then no more than two others
/// are dead-lettered beside that one. Lets a trigger refuse one order always, and everything after so many rows.
#[tokio::test]
async fn a_fault_that_begins_during_the_search_dead_letters_next_to_nothing() {
    const TICKETS: i64 = 40;
    for stored in [20, 45, 60] {
        let begins = format!(
            "new.order_id = '7' or (nextval('attempts') > {stored} \
            and not exists (select from pg_class where relname = 'repaired' \
                and relnamespace = 'attempts_here'::regnamespace))"
        );
        let namespace = Namespace::new(TICKETD).await;
        let begins = begins.replace("attempts_here", namespace.schema());
        namespace.run(&["migrate"], &[]).await;
        sql(&namespace, &refuse_while(&begins)).await;
        let mut consume = namespace.ready("consume", &[]).await;
        publish_group(&namespace, (0..TICKETS).map(|n| n.to_string())).await;
        refusing(&mut consume).await;
        repeated(&mut consume, 2.0).await;
        sql(&namespace, "create table repaired ()").await;
        wait_until("all dealt with", async || {
            namespace.count("tickets").await + namespace.count("dead_tickets").await == TICKETS
        })
        .await;
        let dead = namespace.count("dead_tickets").await;
        assert!((1..=3).contains(&dead), "{dead} after {stored}");
        goes_on(&namespace, consume, TICKETS - dead).await;
    }
}

/// A trigger that refuses a ticket while the condition holds, with the error that one raises by default.
fn refuse_while(condition: &str) -> String {
    format!(
        "create sequence attempts; \
        create function refuse() returns trigger language plpgsql as $$ begin \
            if {condition} then raise exception 'refused by a trigger'; end if; return new; end $$; \
        create trigger refuse before insert on tickets for each row execute function refuse()"
    )
}

/// That invalid tickets are stored says nothing of valid ones, which have more columns to fill, and
/// products: lets the tables take the former alone, both by the total and by the products.
#[tokio::test]
async fn invalid_tickets_do_not_vouch_for_valid_ones() {
    let faults = [
        (
            "alter table tickets add constraint no_total check (total < 0) not valid",
            "alter table tickets drop constraint no_total",
        ),
        (
            "alter table products add constraint no_products check (price < 0) not valid",
            "alter table products drop constraint no_products",
        ),
    ];
    for (fault, repaired) in faults {
        let (namespace, mut consume) = consuming(fault).await;
        let valid = (0..20).map(|n| (Uuid::now_v7(), ticket(&n.to_string())));
        let mixed = valid.flat_map(|(id, body)| [(id, body), (Uuid::now_v7(), "x".to_owned())]);
        let mixed: Vec<_> = mixed.collect();
        let records = mixed.iter().map(|(id, body)| (*id, 1, body.as_bytes()));
        namespace.publish(group_properties(), &group(records)).await;
        refusing(&mut consume).await;
        repeated(&mut consume, 2.0).await;
        assert_eq!(namespace.count("dead_tickets").await, 0);
        assert_eq!(namespace.count("tickets").await, 20);
        sql(&namespace, repaired).await;
        goes_on(&namespace, consume, 40).await;
        assert_eq!(namespace.count("dead_tickets").await, 0);
    }
}

/// What was held by one process is not dead-lettered by the next, and what is held for too long goes back to
/// the queue: ends one process after the other, and lets the last hold nothing for long.
#[tokio::test]
async fn held_tickets_survive_a_restart() {
    let (namespace, mut consume) = consuming(NO_TICKET).await;
    for n in 1..=2 {
        publish(&namespace, &n.to_string()).await;
        namespace.filled("dead_tickets", n).await;
    }
    publish(&namespace, "3").await;
    refusing(&mut consume).await;
    drop(consume);
    for settings in [[("WRITERS", "1")], [("HOLD_MAX", "1s")]] {
        let mut consume = namespace.start("consume", &settings);
        refusing(&mut consume).await;
        repeated(&mut consume, 2.0).await;
        if settings[0].0 == "HOLD_MAX" {
            consume.logged("too long").await;
            sql(&namespace, CORRECTED).await;
            namespace.stored(1).await;
            consume.drained().await;
        }
    }
    assert_eq!(namespace.count("dead_tickets").await, 2);
    assert_eq!(namespace.depth(namespace.queue()).await, 0);
}

/// A till does not notice: `serve` goes on taking tickets, and tells in its health and metrics.
#[tokio::test]
async fn serve_takes_tickets_that_the_table_refuses() {
    let namespace = Namespace::new(TICKETD).await;
    namespace.run(&["migrate"], &[]).await;
    sql(&namespace, NO_TICKET).await;
    let settings = [("ADMIN_LISTEN", "127.0.0.1:0")];
    let mut ticketd = namespace.ready("serve", &settings).await;
    let mut client = ticketd.client().await;
    for n in 0..8 {
        namespace
            .accepted(&mut client, &[], &ticket(&n.to_string()))
            .await;
    }
    let mut admin = ticketd.admin().await;
    wait_until("told", async || {
        admin.ask(get("/readyz")).await.json()["checks"]["database"] == "refusing"
    })
    .await;
    namespace.accepted(&mut client, &[], EXAMPLE).await;
    sql(&namespace, CORRECTED).await;
    wait_until("all dealt with", async || {
        namespace.count("tickets").await + namespace.count("dead_tickets").await == 9
    })
    .await;
    assert!(namespace.count("dead_tickets").await <= 2);
    ticketd.drained().await;
}
