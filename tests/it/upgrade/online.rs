//! Upgrading large tables while the Go service goes on writing to them.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::old_service::{OldService, in_zone, session};
use super::{IDENTITY, ODD, ROWS, SHAPES, Shape, lines, make, takes_tickets};
use ticketd_testing::*;

use crate::TICKETD;

/// Maximum duration of an upgrade in these tests.
pub(super) const UPGRADE_MAX: Duration = Duration::from_secs(900);

/// As many tickets, and products, as make a table that is not upgraded at once.
pub(super) const LARGE: u32 = 36_000;
const LARGE_PRODUCTS: u32 = 90_000;

/// Tables with the known rows and many more.
pub(super) async fn make_large(namespace: &Namespace, shape: &Shape, tickets: u32, products: u32) {
    let many = format!(
        "insert into tickets (id, order_id, vat, total, valid, ticket_text, created_at) \
            overriding system value select n, 'o' || n, 3.10, n / 100.0, n % 2 = 0, repeat('ticket ', 30), \
            '2023-05-06 07:08:09' from generate_series(100, {tickets} + 99) n; \
        insert into products (id, name, product_id, price, created_at) overriding system value \
            select n, rpad('Product', 50, '.'), 'p' || n, n / 100.0, '2023-05-06 07:08:09' \
            from generate_series(100, {products} + 99) n; \
        select setval('tickets_id_seq', {tickets} + 100), setval('products_id_seq', {products} + 100)"
    );
    make(namespace, shape, &[ROWS, &many].join(";")).await;
}

/// Starts `migrate` as on a server that keeps another zone.
pub(super) fn start_migrate(namespace: &Namespace) -> Process {
    Process::start(
        TICKETD,
        &["migrate"],
        &[("DATABASE_URL", in_zone(namespace))],
    )
}

/// Waits for its end, which may take a while.
pub(super) async fn ended_in_time(mut migrate: Process) -> Ended {
    wait_within("the upgrade", UPGRADE_MAX, async || migrate.try_end()).await;
    migrate.ended().await
}

/// Runs `migrate` to its end, which must be a good one.
pub(super) async fn migrated(namespace: &Namespace) -> Ended {
    let ended = ended_in_time(start_migrate(namespace)).await;
    assert_eq!(ended.code(), Some(0), "{}", ended.log);
    ended
}

/// All that the old service wrote, in few words: a line for each table.
async fn contents(namespace: &Namespace) -> Vec<String> {
    let query = "select concat_ws('|', 'a', count(*), md5(string_agg(concat_ws('|', id, order_id, vat::numeric(20,4), \
            total::numeric(20,4), valid, ticket_text, created_at::timestamptz), ';' order by id))) from tickets \
        union all select concat_ws('|', 'b', count(*), md5(string_agg(concat_ws('|', id, name, product_id, \
            price::numeric(20,4), created_at::timestamptz), ';' order by id))) from products order by 1";
    lines_of(&session(namespace).await, query).await
}

async fn lines_of(client: &Client, query: &str) -> Vec<String> {
    let rows = client.query(query, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Everything that PostgreSQL knows of the two tables.
pub(super) async fn definitions(namespace: &Namespace) -> Vec<String> {
    let query = "select concat_ws('|', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, \
            a.attidentity, pg_get_expr(d.adbin, d.adrelid)) from pg_class c \
            join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped \
            left join pg_attrdef d on (d.adrelid, d.adnum) = (a.attrelid, a.attnum) \
            where c.relnamespace = current_schema::regnamespace and c.relkind = 'r' \
        union all select concat_ws('|', indexname, indexdef) from pg_indexes where schemaname = current_schema \
        union all select concat_ws('|', conname, pg_get_constraintdef(oid)) from pg_constraint \
            where connamespace = current_schema::regnamespace and contype <> 'n' \
        union all select proname::text from pg_proc where pronamespace = current_schema::regnamespace \
        union all select tgname::text from pg_trigger t join pg_class c on c.oid = t.tgrelid \
            where c.relnamespace = current_schema::regnamespace \
        union all select relname::text from pg_class where relnamespace = current_schema::regnamespace order by 1";
    lines(namespace, query).await
}

/// No INSERT of the old service fails before, during or after the upgrade, or waits for long:
/// upgrades large tables under it.
async fn upgraded_under_the_old_service(tickets: u32, products: u32) -> Namespace {
    let namespace = Namespace::new(TICKETD).await;
    make_large(&namespace, &SHAPES[0], tickets, products).await;
    let before = namespace.count("tickets").await;
    let old = OldService::start(&namespace).await;
    let started = Instant::now();
    let ended = migrated(&namespace).await;
    eprintln!("{}{:?}", ended.log, started.elapsed());
    old.goes_on().await;
    let inserted = old.stopped().await;
    assert_eq!(namespace.count("tickets").await, before + inserted);
    let wrong = "select id::text from tickets where ticket_id is null \
        or ticket_text <> 'old' and received_at <> created_at \
        or ticket_text = 'old' and (vat <> 3.1 or order_id <> 'old') limit 3";
    assert_eq!(lines(&namespace, wrong).await, [""; 0]);
    namespace
}

/// Upgrades as many rows as take some seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_insert_of_the_old_service_fails_or_waits() {
    let namespace = upgraded_under_the_old_service(150_000, LARGE_PRODUCTS).await;
    takes_tickets(&namespace).await;
}

/// The same with as many rows as take minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes and gigabytes"]
async fn no_insert_of_the_old_service_fails_or_waits_on_five_million_rows() {
    upgraded_under_the_old_service(5_000_000, 200_000).await;
}

/// Large tables of every shape become what small ones become, with their rows, and with indexes of
/// their owner's: upgrades each, and compares it with new tables.
#[tokio::test]
async fn large_tables_of_every_shape_are_upgraded() {
    let fresh = Namespace::new(TICKETD).await;
    fresh.run(&["migrate"], &[]).await;
    let columns = async |namespace: &Namespace| lines(namespace, COLUMNS).await;
    let expected = columns(&fresh).await;
    assert!(expected.len() > 10, "{expected:?}");
    for shape in SHAPES.iter().chain([&IDENTITY, &ODD]) {
        eprintln!("shape: {}", shape.name);
        let namespace = Namespace::new(TICKETD).await;
        let products = if shape.name == "floats" {
            LARGE_PRODUCTS
        } else {
            9
        };
        make_large(&namespace, shape, LARGE, products).await;
        let own = "create index by_day on tickets (created_at desc, order_id) include (id) with (fillfactor = 80)";
        namespace.database.batch_execute(own).await.unwrap();
        let keys = "select indexname || regexp_replace(indexdef, '^.* USING', '') from pg_indexes \
            where schemaname = current_schema and indexname <> 'tickets_ticket_id_key' \
            and tablename in ('tickets', 'products') order by 1";
        let before = (contents(&namespace).await, lines(&namespace, keys).await);
        migrated(&namespace).await;
        assert_eq!(
            (contents(&namespace).await, lines(&namespace, keys).await),
            before
        );
        assert_eq!(columns(&namespace).await, expected);
        let definitions = definitions(&namespace).await;
        let left =
            |line: &&String| line.contains("ticketd_") && !line.contains("ticketd_migrations");
        assert_eq!(definitions.iter().find(left), None);
        takes_tickets(&namespace).await;
        let used = "select count(*)::text from tickets group by ticket_id having count(*) > 1";
        assert_eq!(lines(&namespace, used).await, [""; 0]);
    }
}

/// The columns that must be the same however a table came to be.
const COLUMNS: &str = "select concat_ws('|', table_name, column_name, data_type, is_nullable) \
    from information_schema.columns where table_schema = current_schema and table_name in ('tickets', 'products') \
    and column_name not in ('order_id', 'name', 'product_id') order by 1";

/// An upgrade that is killed goes on where it was, from anywhere: kills it later and later, until it
/// gets to its end, with the old service writing all the while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_upgrade_goes_on() {
    const LATER: Duration = Duration::from_millis(50);
    let namespace = Namespace::new(TICKETD).await;
    make_large(&namespace, &SHAPES[2], LARGE, 9).await;
    let before = contents(&namespace).await;
    let old = OldService::start(&namespace).await;
    let (mut kills, mut after) = (0, LATER);
    loop {
        let mut migrate = start_migrate(&namespace);
        // How long it may run is what differs here, and not what is waited for.
        tokio::time::sleep(after).await;
        if let Some(status) = migrate.try_end() {
            assert_eq!(status.code(), Some(0), "{}", migrate.log());
            break;
        }
        migrate.signal("KILL");
        migrate.end().await;
        kills += 1;
        after += LATER;
    }
    eprintln!("killed {kills} times");
    assert!(kills >= 3, "{kills}");
    let inserted = old.stopped().await;
    let rows = namespace.count("tickets").await;
    assert_eq!(rows, i64::from(LARGE) + 2 + inserted);
    let new = "delete from tickets where ticket_text = 'old' or order_id = 'old'; \
        delete from products where name = 'Old product'";
    namespace.database.batch_execute(new).await.unwrap();
    assert_eq!(contents(&namespace).await[0], before[0]);
    let definitions = definitions(&namespace).await;
    assert!(
        !definitions
            .iter()
            .any(|line| line.contains("ticketd_") && !line.contains("ticketd_migrations"))
    );
    takes_tickets(&namespace).await;
}

/// A transaction that has read the table and stays open keeps no INSERT waiting: upgrades beside
/// one, which ends only once the upgrade has said that it waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_transaction_makes_no_insert_wait() {
    let namespace = Namespace::new(TICKETD).await;
    make_large(&namespace, &SHAPES[0], LARGE, 9).await;
    let reader = session(&namespace).await;
    let read = "begin; select from tickets limit 1; select from products limit 1";
    reader.batch_execute(read).await.unwrap();
    let old = OldService::start(&namespace).await;
    let migrate = start_migrate(&namespace);
    migrate.logged("waiting for process").await;
    // Longer than what an INSERT may wait for.
    for _ in 0..6 {
        old.goes_on().await;
    }
    reader.batch_execute("commit").await.unwrap();
    let ended = ended_in_time(migrate).await;
    assert_eq!(ended.code(), Some(0), "{}", ended.log);
    old.stopped().await;
}

/// A vacuum that goes on for long keeps no INSERT waiting either: upgrades beside one, which is ended
/// only once the upgrade has met it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_vacuum_makes_no_insert_wait() {
    let namespace = Namespace::new(TICKETD).await;
    make_large(&namespace, &SHAPES[0], LARGE, 9).await;
    let vacuum = session(&namespace).await;
    let slowly = "set vacuum_cost_delay = 100; set vacuum_cost_limit = 1";
    vacuum.batch_execute(slowly).await.unwrap();
    let pid = "select pg_backend_pid()";
    let pid: i32 = vacuum.query_one(pid, &[]).await.unwrap().get(0);
    let vacuuming = tokio::spawn(async move { vacuum.batch_execute("vacuum tickets").await });
    wait_until("a vacuum", async || {
        let progress = "select from pg_stat_progress_vacuum where pid = $1";
        let progress = namespace
            .database
            .query_opt(progress, &[&pid])
            .await
            .unwrap();
        progress.is_some()
    })
    .await;
    let old = OldService::start(&namespace).await;
    let migrate = start_migrate(&namespace);
    migrate.logged("tickets is in use").await;
    let end = "select pg_cancel_backend($1)";
    namespace.database.execute(end, &[&pid]).await.unwrap();
    assert!(vacuuming.await.unwrap().is_err());
    let ended = ended_in_time(migrate).await;
    assert_eq!(ended.code(), Some(0), "{}", ended.log);
    old.stopped().await;
}

/// A snapshot that is held for long, which an index has to wait for, keeps no INSERT waiting, and
/// whoever holds it is named: upgrades beside one, which ends only then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_snapshot_is_named_and_makes_no_insert_wait() {
    let namespace = Namespace::new(TICKETD).await;
    make_large(&namespace, &SHAPES[0], LARGE, 9).await;
    let dump = session(&namespace).await;
    let pid = "select pg_backend_pid()";
    let pid: i32 = dump.query_one(pid, &[]).await.unwrap().get(0);
    let snapshot = "begin isolation level repeatable read; select from pg_class limit 1";
    dump.batch_execute(snapshot).await.unwrap();
    let old = OldService::start(&namespace).await;
    let migrate = start_migrate(&namespace);
    migrate
        .logged(&format!("old snapshots, process {pid}"))
        .await;
    old.goes_on().await;
    dump.batch_execute("commit").await.unwrap();
    let ended = ended_in_time(migrate).await;
    assert_eq!(ended.code(), Some(0), "{}", ended.log);
    old.stopped().await;
}

/// serve and consume leave large tables to `migrate`, say so, take tickets meanwhile, and go on by
/// themselves: starts both before it.
#[tokio::test]
async fn storing_waits_for_the_upgrade_and_accepting_does_not() {
    let namespace = Namespace::new(TICKETD).await;
    make_large(&namespace, &SHAPES[0], LARGE, LARGE_PRODUCTS).await;
    let before = definitions(&namespace).await;
    let (mut serve, mut consume) = (
        namespace.start("serve", &[]),
        namespace.start("consume", &[]),
    );
    for process in [&serve, &consume] {
        process
            .logged("`ticketd migrate` has upgraded tickets and products")
            .await;
        assert!(process.log().contains("WARN"));
    }
    let mut client = serve.client().await;
    let mut id = None;
    wait_until("202 before the upgrade", async || {
        let answer = client.ask(post(&[], EXAMPLE)).await;
        id = (answer.status == 202).then(|| answer.id());
        id.is_some()
    })
    .await;
    let mut admin = consume.admin().await;
    assert_eq!(admin.ask(get("/readyz")).await.status, 503);
    assert_eq!(definitions(&namespace).await, before);
    migrated(&namespace).await;
    namespace.row(id.unwrap()).await;
    serve.ready().await;
    consume.ready_on("ADMIN_LISTEN").await;
    serve.drained().await;
    consume.drained().await;
}

/// Two upgrades at once are as good as one: starts both on large tables.
#[tokio::test]
async fn two_upgrades_take_turns() {
    let namespace = Namespace::new(TICKETD).await;
    make_large(&namespace, &SHAPES[4], LARGE, 9).await;
    let before = contents(&namespace).await;
    let both = [start_migrate(&namespace), start_migrate(&namespace)];
    let mut waited = 0;
    for migrate in both {
        let ended = ended_in_time(migrate).await;
        assert_eq!(ended.code(), Some(0), "{}", ended.log);
        waited += usize::from(ended.log.contains("another process"));
    }
    assert_eq!(waited, 1);
    assert_eq!(contents(&namespace).await, before);
}

/// Tables of an earlier ticketd, which gave no defaults, are good enough to store in and are not
/// locked for that; `migrate` gives them, but waits for nobody: does both beside an open transaction.
#[tokio::test]
async fn tables_of_an_earlier_ticketd_are_not_locked() {
    let namespace = Namespace::new(TICKETD).await;
    namespace.run(&["migrate"], &[]).await;
    let earlier = "alter table tickets alter ticket_id drop default, alter valid drop default, \
            alter received_at drop default; \
        alter table products alter ticket_id drop default, alter ticket_received_at drop default";
    namespace.database.batch_execute(earlier).await.unwrap();
    let open = session(&namespace).await;
    let writing = "begin; insert into tickets (ticket_id, valid, received_at) values (gen_random_uuid(), false, now()); \
        insert into products (product_id, ticket_received_at, ticket_id) values ('p', now(), gen_random_uuid())";
    open.batch_execute(writing).await.unwrap();
    let mut serve = namespace.ready("serve", &[]).await;
    let id = namespace
        .accepted(&mut serve.client().await, &[], EXAMPLE)
        .await;
    namespace.row(id).await;
    let ended = migrated(&namespace).await;
    assert!(ended.log.contains("have no default"), "{}", ended.log);
    open.batch_execute("rollback").await.unwrap();
    let old = "insert into tickets (order_id) values ('old'); insert into products (product_id) values ('old')";
    assert!(namespace.database.batch_execute(old).await.is_err());
    let ended = migrated(&namespace).await;
    assert!(!ended.log.contains("WARN"), "{}", ended.log);
    namespace.database.batch_execute(old).await.unwrap();
    serve.drained().await;
}

/// A role that may write rows and nothing else stores tickets: starts serve as one.
#[tokio::test]
async fn a_role_that_may_only_write_rows_stores_tickets() {
    let namespace = Namespace::new(TICKETD).await;
    namespace.run(&["migrate"], &[]).await;
    let (schema, role) = (namespace.schema(), format!("{}_writer", namespace.schema()));
    let grant = format!(
        "create role {role}; grant usage on schema {schema} to {role}; \
         grant select, insert, update on all tables in schema {schema} to {role}"
    );
    namespace.database.batch_execute(&grant).await.unwrap();
    let url = format!("{}%20-c%20role%3D{role}", namespace.database_url());
    let mut serve = namespace.ready("serve", &[("DATABASE_URL", &url)]).await;
    let id = namespace
        .accepted(&mut serve.client().await, &[], EXAMPLE)
        .await;
    namespace.row(id).await;
    serve.drained().await;
    let forget = format!("drop owned by {role}; drop role {role}");
    namespace.database.batch_execute(&forget).await.unwrap();
}
