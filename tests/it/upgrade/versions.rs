//! Versions of the tables: an older database becomes what a fresh one is, and one at a newer version
//! is left as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ticketd_testing::servers::connect;
use ticketd_testing::*;

use super::lines;
use crate::TICKETD;

/// Everything in the schema, a line each, in any order. Of a column everything but its place, since
/// an older table has its new columns behind the others. The names of NOT NULL constraints, which
/// PostgreSQL has from version 18 on, say nothing more than that the column is.
const CATALOG: &str = "with here as (select current_schema::regnamespace::oid as oid), \
    relations as (select c.* from pg_class c join here on c.relnamespace = here.oid) \
    select format('relation %s', row(relname, relkind, relpersistence, reloptions, relreplident, \
        relrowsecurity, relforcerowsecurity, relispartition, reltablespace, relacl, relhasrules)) from relations \
    union all select format('column %s', row(c.relname, a.attname, format_type(a.atttypid, a.atttypmod), \
        a.attnotnull, a.attidentity, a.attgenerated, pg_get_expr(d.adbin, d.adrelid), a.attcollation, \
        a.attstorage, a.attstattarget, a.attoptions, a.attacl, a.attislocal)) \
        from relations c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped \
        left join pg_attrdef d on (d.adrelid, d.adnum) = (a.attrelid, a.attnum) where c.relkind <> 'S' \
    union all select format('constraint %s', row(conname, contype, conrelid::regclass, condeferrable, condeferred, \
        convalidated, connoinherit, pg_get_constraintdef(c.oid))) \
        from pg_constraint c join here on c.connamespace = here.oid where contype <> 'n' \
    union all select format('index %s', row(pg_get_indexdef(c.oid), indisprimary, indisvalid, indisready, indislive, \
        indimmediate, indisreplident, indisclustered)) from pg_index i join relations c on c.oid = i.indexrelid \
    union all select format('view %s', row(relname, pg_get_viewdef(oid))) from relations where relkind = 'v' \
    union all select format('sequence %s', row(relname, seqtypid::regtype, seqstart, seqincrement, seqmax, seqmin, \
        seqcache, seqcycle, d.refobjid::regclass, d.deptype)) \
        from pg_sequence s join relations c on c.oid = s.seqrelid \
        left join pg_depend d on d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype in ('a', 'i') \
    union all select format('trigger %s', pg_get_triggerdef(t.oid)) from pg_trigger t join relations c on c.oid = t.tgrelid \
    union all select format('rule %s', row(c.relname, rulename)) from pg_rewrite r join relations c on c.oid = r.ev_class \
    union all select format('policy %s', polname) from pg_policy p join relations c on c.oid = p.polrelid \
    union all select format('comment %s', row(c.relname, objsubid, description)) \
        from pg_description d join relations c on (d.classoid, d.objoid) = ('pg_class'::regclass, c.oid) \
    union all select format('function %s', proname) from pg_proc p join here on p.pronamespace = here.oid \
    union all select format('type %s', row(typname, typtype)) from pg_type t join here on t.typnamespace = here.oid \
    union all select format('statistics %s', stxname) from pg_statistic_ext s join here on s.stxnamespace = here.oid \
    order by 1";

const RECORD: &str =
    "select concat_ws(' ', version, name) from ticketd_migrations order by version";

/// As many rows as make a table that is not rewritten at once.
const MANY: &str = "insert into tickets (order_id, vat, total, valid, ticket_text) \
        select 'o' || n, 3.10, 16.90, true, repeat('ticket ', 30) from generate_series(1, 36000) n; \
    insert into products (name, product_id, price) \
        select rpad('Product', 50, '.'), 'p' || n, 2 from generate_series(1, 90000) n";

fn checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The files of the migrations, in their order.
fn migrations() -> Vec<PathBuf> {
    let files = fs::read_dir(checkout("src/store/migrations")).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let mut files: Vec<_> = files
        .filter(|file| file.extension() == Some("sql".as_ref()))
        .collect();
    files.sort();
    files
}

/// The lines that a database at that version has in its record: `0001_a.sql` is "1 a".
fn recorded(version: usize) -> Vec<String> {
    let name = |file: &PathBuf| {
        let stem = file.file_stem().unwrap().to_str().unwrap();
        let (number, name) = stem.split_once('_').unwrap();
        format!("{} {name}", number.parse::<u32>().unwrap())
    };
    migrations().iter().take(version).map(name).collect()
}

/// All that PostgreSQL knows of a schema, under a name that all schemas share.
async fn catalog(namespace: &Namespace) -> Vec<String> {
    let known = lines(namespace, CATALOG).await;
    let shared = known
        .iter()
        .map(|line| line.replace(namespace.schema(), "schema"));
    let mut shared: Vec<_> = shared.collect();
    shared.sort();
    shared
}

async fn execute(namespace: &Namespace, script: &str) {
    namespace.database.batch_execute(script).await.unwrap();
}

/// An empty schema with the tables of a version.
async fn at_version(version: usize) -> Namespace {
    let namespace = Namespace::new(TICKETD).await;
    let file = match version {
        1 => migrations().remove(0),
        _ => checkout(&format!("tests/it/upgrade/schema/{version:04}.sql")),
    };
    let script = fs::read_to_string(&file);
    execute(
        &namespace,
        &script.unwrap_or_else(|error| panic!("{}: {error}", file.display())),
    )
    .await;
    if exists(&namespace, "ticketd_migrations").await {
        for line in recorded(version) {
            let (version, name) = line.split_once(' ').unwrap();
            let insert = format!("insert into ticketd_migrations values ({version}, '{name}')");
            execute(&namespace, &insert).await;
        }
    }
    namespace
}

async fn exists(namespace: &Namespace, table: &str) -> bool {
    let query = "select to_regclass($1) is not null";
    let row = namespace
        .database
        .query_one(query, &[&table])
        .await
        .unwrap();
    row.get(0)
}

async fn migrated(namespace: &Namespace) -> Ended {
    let ended = namespace.run(&["migrate"], &[]).await;
    assert_eq!(ended.code(), Some(0), "{}", ended.log);
    ended
}

/// A fresh database at the newest version.
async fn fresh() -> Namespace {
    let namespace = Namespace::new(TICKETD).await;
    migrated(&namespace).await;
    namespace
}

/// Compares everything that PostgreSQL knows of two schemas, and says what differs.
async fn assert_equal(namespace: &Namespace, fresh: &Namespace, what: &str) {
    let (found, expected) = (catalog(namespace).await, catalog(fresh).await);
    assert!(expected.len() > 60, "{expected:#?}");
    let only = |these: &[String], those: &[String]| {
        let only = these.iter().filter(|line| !those.contains(line));
        only.cloned().collect::<Vec<_>>()
    };
    let (more, less) = (only(&found, &expected), only(&expected, &found));
    assert_eq!(
        (more, less),
        (vec![], vec![]),
        "{what}: only there, only in a fresh one"
    );
    assert_eq!(found, expected, "{what}");
    assert_eq!(
        lines(namespace, RECORD).await,
        recorded(usize::MAX),
        "{what}"
    );
}

/// Every older version becomes exactly what a fresh database is, so that schema.sql and the
/// migrations cannot part: upgrades each, and compares the catalogs.
#[tokio::test]
async fn an_upgraded_database_is_equal_to_a_fresh_one() {
    let fresh = fresh().await;
    assert_eq!(lines(&fresh, RECORD).await, recorded(usize::MAX));
    for version in 1..migrations().len() {
        let namespace = at_version(version).await;
        migrated(&namespace).await;
        assert_equal(&namespace, &fresh, &format!("version {version}")).await;
        let again = catalog(&namespace).await;
        migrated(&namespace).await;
        assert_eq!(
            catalog(&namespace).await,
            again,
            "version {version}, migrated again"
        );
    }
}

/// So does one whose tables are too large to be rewritten at once: upgrades the Go service's with
/// many rows.
#[tokio::test]
async fn an_upgraded_large_database_is_equal_to_a_fresh_one() {
    let fresh = fresh().await;
    let namespace = at_version(1).await;
    execute(&namespace, MANY).await;
    migrated(&namespace).await;
    assert_equal(&namespace, &fresh, "version 1, large").await;
}

/// A released migration is never edited: checks the files against their sums.
#[test]
fn migrations_are_never_edited() {
    let sums = fs::read_to_string(checkout("src/store/migrations/SHA256SUMS")).unwrap();
    assert_eq!(sums.lines().count(), migrations().len());
    for file in migrations() {
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(sums.contains(name), "{name} has no line in SHA256SUMS");
    }
    let mut check = Command::new("sha256sum");
    check.args(["--check", "--strict", "SHA256SUMS"]);
    let checked = check
        .current_dir(checkout("src/store/migrations"))
        .output()
        .unwrap();
    assert!(checked.status.success(), "{checked:?}");
}

/// An older ticketd goes on beside tables that a newer one has migrated, says so, and undoes
/// nothing: starts it on some with a version that it does not know.
#[tokio::test]
async fn a_newer_version_is_left_alone() {
    let namespace = fresh().await;
    let newer = "insert into ticketd_migrations values (9999, 'of_a_newer_ticketd'); \
        drop view ticket_facts cascade; \
        alter table tickets add column till text, alter order_id type varchar(300), alter valid drop default; \
        drop view ticket_lines";
    execute(&namespace, newer).await;
    let before = catalog(&namespace).await;
    let mut serve = namespace.ready("serve", &[]).await;
    let id = namespace
        .accepted(&mut serve.client().await, &[], EXAMPLE)
        .await;
    namespace.row(id).await;
    let migrate = migrated(&namespace).await;
    for log in [serve.drained().await.log, migrate.log] {
        assert!(log.contains("newer") && log.contains("9999"), "{log}");
        assert!(!log.contains("WARN"), "{log}");
    }
    assert_eq!(catalog(&namespace).await, before);
}

/// What somebody has dropped is made again, as a fresh database has it: drops some of it.
#[tokio::test]
async fn what_was_dropped_is_made_again() {
    let fresh = fresh().await;
    for drop in [
        "drop view ticket_lines",
        "drop view ticket_lines; drop table tickets cascade",
        "drop table products, dead_tickets",
        "drop table ticketd_migrations",
        "drop table tickets, products, dead_tickets cascade",
        "drop view ticket_doubles",
        "drop view ticket_facts cascade",
    ] {
        let namespace = Namespace::new(TICKETD).await;
        migrated(&namespace).await;
        execute(&namespace, drop).await;
        migrated(&namespace).await;
        assert_equal(&namespace, &fresh, drop).await;
    }
}

/// A role that may only write rows goes on with tables that its owner has not migrated yet, as long
/// as they are good enough, and records nothing; its owner does so later: does both.
#[tokio::test]
async fn a_role_that_may_not_migrate_leaves_it_to_the_owner() {
    let namespace = at_version(2).await;
    let (schema, role) = (namespace.schema(), format!("{}_writer", namespace.schema()));
    // As in a database of before PostgreSQL 15, where everybody may make tables in public.
    let grant = format!(
        "create role {role}; grant usage, create on schema {schema} to {role}; \
         grant select, insert, update on all tables in schema {schema} to {role}"
    );
    execute(&namespace, &grant).await;
    let url = format!("{}%20-c%20role%3D{role}", namespace.database_url());
    let as_role = [("DATABASE_URL", url.as_str())];
    let stores = async |log: &str| {
        let mut serve = namespace.ready("serve", &as_role).await;
        let mut client = serve.client().await;
        let id = namespace.accepted(&mut client, &[], EXAMPLE).await;
        namespace.row(id).await;
        let ended = serve.drained().await;
        assert!(ended.log.contains(log), "{}", ended.log);
    };
    stores("dead_tickets_received_at").await;
    assert!(!exists(&namespace, "ticketd_migrations").await);
    migrated(&namespace).await;
    // It has no right to the table that is new, and needs none.
    stores("").await;
    let refused = namespace.run(&["migrate"], &as_role).await;
    assert_eq!(refused.code(), Some(1), "{}", refused.log);
    assert!(refused.log.contains("may not read"), "{}", refused.log);
    execute(
        &namespace,
        &format!("drop owned by {role}; drop role {role}"),
    )
    .await;
    assert_eq!(lines(&namespace, RECORD).await, recorded(usize::MAX));
}

/// A ticket with a time of issue, which a table of before version 4 has no column for.
const ISSUED: &[&str] = &["Ticket-Issued-At: 2026-11-20T12:00:00Z"];

async fn has_time(namespace: &Namespace, id: uuid::Uuid) -> bool {
    let origin = namespace.origin("tickets", id).await;
    origin.is_some_and(|(_, issued_at)| issued_at.as_deref() == Some("2026-11-20 12:00:00.000000"))
}

/// Where the columns for source and time of issue are missing and its role may not add them, a
/// consumer stores every ticket that has neither; one that has waits, and is stored whole once the
/// owner has migrated: does so with version 3.
#[tokio::test]
async fn a_ticket_that_the_tables_have_no_room_for_waits_for_the_owner() {
    let namespace = at_version(3).await;
    let (schema, role) = (namespace.schema(), format!("{}_writer", namespace.schema()));
    let grant = format!(
        "create role {role}; grant usage on schema {schema} to {role}; \
         grant select, insert, update on all tables in schema {schema} to {role}"
    );
    execute(&namespace, &grant).await;
    let url = format!("{}%20-c%20role%3D{role}", namespace.database_url());
    let mut serve = namespace.ready("serve", &[("DATABASE_URL", &url)]).await;
    serve.logged("source_and_issued_at").await;
    let mut client = serve.client().await;
    let plain = namespace.accepted(&mut client, &[], EXAMPLE).await;
    namespace.row(plain).await;
    let state = client.ask(get(&format!("/ticket/{plain}"))).await.json();
    assert!(state["source"].is_null() && state["issued_at"].is_null());
    assert!(state["valid"].as_bool().unwrap(), "{state}");

    let issued = namespace.accepted(&mut client, ISSUED, EXAMPLE).await;
    serve.logged("wait until `ticketd migrate`").await;
    assert_eq!(namespace.count("tickets").await, 1);
    migrated(&namespace).await;
    namespace.row(issued).await;
    assert!(has_time(&namespace, issued).await);
    serve.drained().await;
    assert_eq!(namespace.count("dead_tickets").await, 0);
    let drop = format!("drop owned by {role}; drop role {role}");
    execute(&namespace, &drop).await;
}

/// Where a transaction holds a table that is to get columns, such as a dump, a consumer starts and
/// stores what needs none, others' writes do not wait, and the columns come by themselves once they
/// are needed and the transaction has ended: does so with version 3.
#[tokio::test]
async fn columns_come_once_a_dump_has_ended() {
    let namespace = at_version(3).await;
    let dump = connect(&namespace.database_url()).await.unwrap();
    let hold = "begin isolation level repeatable read; select count(*) from tickets";
    dump.batch_execute(hold).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let started = std::time::Instant::now();
    let mut serve = namespace.ready("serve", &[]).await;
    let mut client = serve.client().await;
    let plain = namespace.accepted(&mut client, &[], EXAMPLE).await;
    namespace.row(plain).await;
    let issued = namespace.accepted(&mut client, ISSUED, EXAMPLE).await;
    serve.logged("wait until `ticketd migrate`").await;
    for n in 0..40 {
        let asked = std::time::Instant::now();
        let insert = format!("insert into tickets (order_id) values ('{n}')");
        execute(&namespace, &insert).await;
        let waited = asked.elapsed();
        assert!(
            waited.as_millis() < 500,
            "{waited:?} after {:?}",
            started.elapsed()
        );
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    dump.batch_execute("commit").await.unwrap();
    namespace.row(issued).await;
    assert!(has_time(&namespace, issued).await);
    serve.drained().await;
    assert_eq!(lines(&namespace, RECORD).await, recorded(usize::MAX));
}

/// A server that takes no writes, as a replica, is no obstacle where there is nothing to do, and is
/// named where there is: migrates the newest version and the oldest.
#[tokio::test]
async fn a_read_only_server_is_looked_at() {
    for (namespace, code) in [(fresh().await, 0), (at_version(1).await, 1)] {
        let before = catalog(&namespace).await;
        let url = format!(
            "{}%20-c%20default_transaction_read_only%3Don",
            namespace.database_url()
        );
        let ended = namespace.run(&["migrate"], &[("DATABASE_URL", &url)]).await;
        assert_eq!(ended.code(), Some(code), "{}", ended.log);
        assert_eq!(ended.log.contains("read-only transaction"), code == 1);
        assert_eq!(catalog(&namespace).await, before);
    }
}
