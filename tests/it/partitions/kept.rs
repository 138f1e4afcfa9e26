//! Partitions that are made ahead, taken out and dropped.

use uuid::Uuid;

use ticketd_testing::*;

use super::convert::{converted, migrated, partitions};
use super::sql;

const NAMES: &str = "select string_agg(c.relname, ' ' order by c.relname) from pg_inherits \
    join pg_class c on c.oid = inhrelid where inhparent = 'tickets'::regclass and c.relname ~ '^tickets_[0-9]{8}'";

/// A ticket a day of the last 60 days, and one whose id is of no time, though it lies in the first week.
const ROWS: &str = "insert into tickets (ticket_id, ticket_text) select id_of(n, n), 'text' from generate_series(0, 59) n; \
    insert into tickets (ticket_id, ticket_text) select overlay(id_of(0, 59)::text placing '5' from 15 for 1)::uuid, 'keyed'";

async fn names(namespace: &Namespace) -> Vec<String> {
    let row = namespace.database.query_one(NAMES, &[]).await.unwrap();
    let names: String = row.get(0);
    names.split(' ').map(str::to_owned).collect()
}

async fn keyed(namespace: &Namespace) -> (Uuid, String) {
    let query =
        "select ticket_id, tableoid::regclass::text from tickets where ticket_text = 'keyed'";
    let row = namespace.database.query_one(query, &[]).await.unwrap();
    (row.get(0), row.get(1))
}

/// Only what is older goes, and of that not the tickets whose ids have no time: drops weeks, looks for
/// the ticket of a key that lay in one, and sends it again; then has a process drop more by itself.
#[tokio::test]
async fn what_is_older_is_dropped_but_keys() {
    let namespace = migrated().await;
    sql(&namespace, ROWS).await;
    converted(&namespace).await;
    let before = names(&namespace).await;
    let dropped = partitions(&namespace, &["drop", "--older-than", "40d"]).await;
    assert_eq!(dropped.code(), Some(0), "{}", dropped.log);
    let gone: Vec<_> = dropped.text().lines().map(str::to_owned).collect();
    assert!((2..=3).contains(&gone.len()), "{gone:?}");
    assert_eq!(names(&namespace).await, before[gone.len()..]);
    let (id, table) = keyed(&namespace).await;
    assert_eq!(table, "tickets_past");
    let left = namespace.count("tickets").await;
    assert!((42..=48).contains(&left), "{left}");

    let settings = [("RETENTION", "20d")];
    let mut consume = namespace.ready("consume", &settings).await;
    namespace
        .publish(group_properties(), &group([(id, 1, b"keyed".as_slice())]))
        .await;
    let old =
        "select count(*) from tickets where ticket_text <> 'keyed' and ticket_id < id_of(0, 28)";
    wait_until("dropped", async || {
        let row = namespace.database.query_one(old, &[]).await.unwrap();
        row.get::<_, i64>(0) == 0
    })
    .await;
    wait_until("days ahead", async || {
        let page = consume.admin().await.ask(get("/metrics")).await;
        metric(page.text(), "ticketd_partitions_ahead_seconds") >= Some(7.0 * 86_400.0)
    })
    .await;
    consume.drained().await;
    assert_eq!(keyed(&namespace).await.0, id);
    assert_eq!(namespace.count("dead_tickets").await, 0);
}

/// The oldest partition alone can be taken out, and stays with its rows: tries the second first.
#[tokio::test]
async fn the_oldest_is_taken_out() {
    let namespace = migrated().await;
    sql(&namespace, ROWS).await;
    converted(&namespace).await;
    let all = names(&namespace).await;
    let refused = partitions(&namespace, &["detach", &all[1]]).await;
    assert_eq!(refused.code(), Some(1));
    assert!(refused.log.contains(&all[0]), "{}", refused.log);
    let taken = partitions(&namespace, &["detach", &all[0]]).await;
    assert_eq!(taken.code(), Some(0), "{}", taken.log);
    let out = namespace.count(&all[0]).await;
    assert!(out >= 2, "{out}");
    assert_eq!(keyed(&namespace).await.1, "tickets_past");
    // The one of the key is in both.
    assert_eq!(namespace.count("tickets").await, 61 - out + 1);
    let list = partitions(&namespace, &["list"]).await;
    let lines: Vec<_> = list.text().lines().collect();
    assert!(
        lines[0].starts_with("tickets_before_2020\t-\t2020-01-01T00:00:00Z\t"),
        "{lines:?}"
    );
    assert!(
        lines[1].starts_with("tickets_past\t2020-01-01T00:00:00Z\t"),
        "{lines:?}"
    );
}

/// A table whose partitions end there, as if nobody had looked after them, and the URL of a role that
/// may not make any.
pub(crate) async fn neglected(horizon: &str) -> (Namespace, String) {
    let namespace = migrated().await;
    converted(&namespace).await;
    let neglect = format!(
        "do $$ declare name text; first uuid := \
            (substr({horizon}::text, 1, 14) || '0000-0000-000000000000')::uuid; \
        begin \
            for name in select c.relname from pg_inherits join pg_class c on c.oid = inhrelid \
                where inhparent = 'tickets'::regclass and c.relname ~ '^tickets_([0-9]|until_2030|past)' loop \
                execute 'alter table tickets detach partition ' || name; \
                if name ~ '^tickets_[0-9]' then execute 'drop table ' || name; end if; \
            end loop; \
            execute format('alter table tickets attach partition tickets_past for values from \
                (''016f5e66-e800-0000-0000-000000000000'') to (%L)', first); \
            execute format('alter table tickets attach partition tickets_until_2030 for values from (%L) \
                to (''01b8dac5-b400-0000-0000-000000000000'')', first); \
        end $$"
    );
    sql(&namespace, &neglect).await;
    let (schema, role) = (namespace.schema(), format!("{}_writer", namespace.schema()));
    let grant = format!(
        "create role {role}; grant usage on schema {schema} to {role}; \
         grant select, insert, update on all tables in schema {schema} to {role}"
    );
    sql(&namespace, &grant).await;
    let url = format!("{}%20-c%20role%3D{role}", namespace.database_url());
    (namespace, url)
}

/// Drops that role.
pub(crate) async fn forget_role(namespace: &Namespace) {
    let role = format!("{}_writer", namespace.schema());
    sql(
        namespace,
        &format!("drop owned by {role}; drop role {role}"),
    )
    .await;
}

async fn days_ahead(consume: &mut Process) -> f64 {
    let page = consume.admin().await.ask(get("/metrics")).await;
    metric(page.text(), "ticketd_partitions_ahead_seconds").unwrap() / 86_400.0
}

/// Partitions are made in time by a process that may; where that was neglected, for some days or for
/// weeks, no ticket that has come meanwhile is lost: stores tickets of then and of times to come, by a
/// role that may not make any, which says so, and then by one that may.
#[tokio::test]
async fn partitions_are_made_ahead() {
    for (horizon, expected) in [("id_of(0, 14)", -14.0), ("id_of(0, -3)", 3.0)] {
        let (namespace, url) = neglected(horizon).await;
        let tickets =
            "insert into tickets (ticket_id) select id_of(n, n - 20) from generate_series(0, 40) n";
        sql(&namespace, tickets).await;
        let mut weak = namespace.ready("consume", &[("DATABASE_URL", &url)]).await;
        weak.logged("may not change the partitions").await;
        let days = days_ahead(&mut weak).await;
        assert!((days - expected).abs() < 0.1, "{days}");
        let body = ticket("now");
        let properties = ticket_properties(Uuid::now_v7(), 1_000_000);
        namespace.publish(properties, body.as_bytes()).await;
        namespace.stored(42).await;
        weak.drained().await;

        let mut strong = namespace.ready("consume", &[]).await;
        wait_until("days ahead", async || days_ahead(&mut strong).await >= 7.0).await;
        strong.drained().await;
        assert_eq!(namespace.count("tickets").await, 42);
        let misplaced = "select count(*) from tickets_until_2030 where ticket_id < id_of(0, -7)";
        let row = namespace.database.query_one(misplaced, &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), 0);
        assert_eq!(namespace.count("dead_tickets").await, 0);
        forget_role(&namespace).await;
    }
}
