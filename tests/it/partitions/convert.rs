//! A plain table that becomes a partitioned one.

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use ticketd_testing::*;

use super::sql;
use crate::TICKETD;

/// A function that makes ids of version 7, of so many days ago.
pub(super) const ID_OF: &str = "create function id_of(n int, days int) returns uuid language sql as $$ \
    select (lpad(to_hex((extract(epoch from now()) * 1000)::bigint - days * 86400000::bigint), 12, '0') || '7' || \
        substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid $$";

/// Rows of many weeks, and some with ids of no time.
const ROWS: &str = "insert into tickets (ticket_id, order_id, vat, total, valid, ticket_text) \
    select case n % 10 when 0 then gen_random_uuid() else id_of(n, n / 20) end, 'o' || n, 3.10, 16.90, true, 'text' || n \
    from generate_series(1, 6000) n";

/// What is kept of each row, but those that came meanwhile.
const KEPT: &str = "select md5(string_agg(md5(row(id, ticket_id, order_id, vat, total, valid, ticket_text, received_at, created_at)::text), '' \
    order by id)) from tickets where order_id like 'o%'";

async fn text(namespace: &Namespace, query: &str) -> String {
    namespace
        .database
        .query_one(query, &[])
        .await
        .unwrap()
        .get(0)
}

pub(super) async fn partitions(namespace: &Namespace, args: &[&str]) -> Ended {
    let args = [&["partitions"], args].concat();
    namespace.run(&args, &[]).await
}

pub(super) async fn converted(namespace: &Namespace) -> Ended {
    let ended = partitions(namespace, &["convert"]).await;
    assert_eq!(ended.code(), Some(0), "{}", ended.log);
    ended
}

/// A schema with ticketd's tables.
pub(super) async fn migrated() -> Namespace {
    let namespace = Namespace::new(TICKETD).await;
    let ended = namespace.run(&["migrate"], &[]).await;
    assert_eq!(ended.code(), Some(0), "{}", ended.log);
    sql(&namespace, ID_OF).await;
    namespace
}

/// A schema with a table of many weeks, and a view, an index and a reader of others'; the reader's name.
async fn long_in_use() -> (Namespace, String) {
    let namespace = migrated().await;
    let (schema, role) = (namespace.schema(), format!("{}_reader", namespace.schema()));
    let own = format!(
        "create view sums as select sum(total) as total from tickets; \
         create index by_order on tickets (order_id); create role {role}; \
         grant select on tickets to {role}; grant usage on schema {schema} to {role}"
    );
    sql(&namespace, ROWS).await;
    sql(&namespace, &own).await;
    (namespace, role)
}

/// Starts to convert the table, and kills that when some rows are copied and others are not.
async fn convert_and_kill(namespace: &Namespace) {
    let settings = namespace.settings("partitions", &[]);
    let killed = Process::start(TICKETD, &["partitions", "convert"], &settings);
    wait_until("some are copied", async || {
        let copied = "select copied > 0 from ticketd_conversion";
        let row = namespace.database.query_opt(copied, &[]).await;
        row.is_ok_and(|row| row.is_some_and(|row| row.get(0)))
    })
    .await;
    killed.signal("KILL");
    killed.ended().await;
}

/// Sends so many tickets; returns their ids.
async fn send(namespace: &Namespace, client: &mut Client, tickets: usize) -> Vec<Uuid> {
    let mut ids = Vec::new();
    for _ in 0..tickets {
        let body = ticket(&format!("x{}", Uuid::now_v7()));
        ids.push(namespace.accepted(client, &[], &body).await);
    }
    ids
}

/// Everything is as it was but for the partitions, though tickets are stored meanwhile and it is killed
/// on its way: looks for each row, for a duplicate of one, for a list, and for what depends on the table.
#[tokio::test]
async fn a_table_is_converted_beside_its_writers() {
    let (namespace, role) = long_in_use().await;
    let before = text(&namespace, KEPT).await;
    let known = "select ticket_id::text from tickets where order_id = 'o11'";
    let known = Uuid::parse_str(&text(&namespace, known).await).unwrap();

    let mut serve = namespace.ready("serve", &[]).await;
    let mut client = serve.client().await;
    convert_and_kill(&namespace).await;
    let mut sent = send(&namespace, &mut client, 10).await;
    namespace.stored(6010).await;
    let frozen = "update tickets set valid = false where order_id = 'o1'";
    let error = namespace.database.batch_execute(frozen).await.unwrap_err();
    let error = error.as_db_error().unwrap().message();
    assert!(error.contains("being converted"), "{error}");
    converted(&namespace).await;

    sent.extend(send(&namespace, &mut client, 10).await);
    namespace.stored(6020).await;
    assert_eq!(text(&namespace, KEPT).await, before);
    for id in &sent {
        namespace.row(*id).await;
    }
    let again = group([(known, 1, b"text11".as_slice())]);
    namespace.publish(group_properties(), &again).await;
    let list = "GET /tickets?limit=3 HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n";
    let list = client.ask(list).await.json();
    assert_eq!(list["tickets"][0]["id"], sent[19].to_string());
    assert_eq!(list["tickets"].as_array().unwrap().len(), 3);
    serve.drained().await;
    assert_eq!(namespace.count("tickets").await, 6020);
    assert_eq!(namespace.count("dead_tickets").await, 0);
    nothing_is_left_behind(&namespace, &role).await;
}

/// What depends on the table is there, and what served the conversion is not.
async fn nothing_is_left_behind(namespace: &Namespace, role: &str) {
    let spans = "select count(*)::text from pg_inherits where inhparent = 'tickets'::regclass";
    assert!(text(namespace, spans).await.parse::<i32>().unwrap() > 40);
    let left = "select count(*)::text from pg_class where relnamespace = current_schema::regnamespace \
        and relname like 'ticketd\\_%' and relname not like 'ticketd\\_migrations%'";
    assert_eq!(text(namespace, left).await, "0");
    let used = format!(
        "set role {role}; select * from tickets limit 1; select last_value from tickets_id_seq; \
         reset role; select total from sums; drop owned by {role}; drop role {role}; drop index by_order"
    );
    sql(namespace, &used).await;
    let ended = namespace.run(&["migrate"], &[]).await;
    assert_eq!(ended.code(), Some(0), "{}", ended.log);
    assert!(!ended.log.contains("WARN"), "{}", ended.log);
}

/// An empty table of a new installation and one of an old one become the same: compares what PostgreSQL
/// says of their columns, indexes and partitions.
#[tokio::test]
async fn a_converted_table_is_the_same_whatever_it_was() {
    const SHAPE: &str = "select string_agg(line, e'\\n' order by line) from ( \
        select concat_ws(' ', c.relname, attname, format_type(atttypid, atttypmod), attnotnull, attidentity, \
            pg_get_expr(d.adbin, d.adrelid)) as line from pg_class c join pg_attribute a on a.attrelid = c.oid and attnum > 0 \
            and not attisdropped left join pg_attrdef d on (d.adrelid, d.adnum) = (a.attrelid, a.attnum) \
            where c.relnamespace = current_schema::regnamespace and c.relname like 'tickets%' and relkind <> 'S' \
        union all select replace(pg_get_indexdef(i.indexrelid), current_schema || '.', '') from pg_index i \
            join pg_class c on c.oid = i.indrelid where c.relnamespace = current_schema::regnamespace \
            and c.relname like 'tickets%') lines";
    let namespace = migrated().await;
    converted(&namespace).await;
    let fresh = text(&namespace, SHAPE).await;
    let old = Namespace::new(TICKETD).await;
    let schema = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/it/upgrade/schema/0002.sql"
    );
    sql(&old, &std::fs::read_to_string(schema).unwrap()).await;
    let ended = old.run(&["migrate"], &[]).await;
    assert_eq!(ended.code(), Some(0), "{}", ended.log);
    converted(&old).await;
    // Its new columns are behind the others, which the lines do not say.
    assert_eq!(text(&old, SHAPE).await, fresh);
    assert!(fresh.contains("USING brin"), "{fresh}");
    let again = converted(&old).await;
    assert!(again.log.contains("already"), "{}", again.log);
}

/// What would be lost with the plain table is named, and nothing is changed: tries to convert one with
/// things of others'.
#[tokio::test]
async fn what_would_be_lost_is_named() {
    let namespace = migrated().await;
    let own = "create table notes (ticket_id uuid references tickets (ticket_id)); \
        create materialized view totals as select total from tickets; \
        create function nothing() returns trigger language plpgsql as 'begin return null; end'; \
        create trigger mine after insert on tickets for each row execute function nothing()";
    sql(&namespace, own).await;
    let ended = partitions(&namespace, &["convert"]).await;
    assert_eq!(ended.code(), Some(1));
    for text in [
        "notes_ticket_id_fkey",
        "materialized view totals",
        "trigger mine",
    ] {
        assert!(ended.log.contains(text), "{text}: {}", ended.log);
    }
    let query = "select relkind::text from pg_class where oid = $1::text::regclass";
    let name: &(dyn ToSql + Sync) = &"tickets";
    let row = namespace.database.query_one(query, &[name]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "r");
    let ended = partitions(&namespace, &["create"]).await;
    assert!(ended.log.contains("partitions convert"), "{}", ended.log);
}
