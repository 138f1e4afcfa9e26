//! What is on the books of a day, and who has fallen silent, with planted tickets.

use serde_json::{Value, json};
use ticketd_testing::*;

use crate::TICKETD;

/// Tickets of a line each: source, order id, VAT, total, when issued and when received, `-` for none.
/// Without a total they are invalid.
async fn plant(namespace: &Namespace, tickets: &str) {
    let insert = "insert into tickets (source, order_id, vat, total, valid, issued_at, received_at) \
        select f[1], f[2], f[3]::text::numeric, f[4]::text::numeric, f[4] is not null, \
        f[5]::text::timestamptz, f[6]::text::timestamptz \
        from unnest(string_to_array($1, E'\\n')) line, string_to_array(trim(line), ' ', '-') f \
        where trim(line) <> ''";
    namespace
        .database
        .execute(insert, &[&tickets])
        .await
        .unwrap();
}

async fn migrated() -> Namespace {
    let namespace = Namespace::new(TICKETD).await;
    let migrated = namespace.run(&["migrate"], &[]).await;
    assert_eq!(migrated.code(), Some(0), "{}", migrated.log);
    namespace
}

async fn day(namespace: &Namespace, args: &[&str]) -> Ended {
    let args: Vec<_> = ["day"].iter().chain(args).copied().collect();
    namespace
        .run(&args, &[("BUSINESS_TZ", "Europe/Paris")])
        .await
}

/// An object of each source.
fn objects(ended: &Ended) -> Vec<Value> {
    assert_eq!(ended.code(), Some(0), "{}", ended.log);
    let lines = ended.text().lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Of 23 hours: midnight is 23:00 the day before, and 22:00. One of its tickets is each of first and
/// last moment, one is beyond either.
const SPRING: &str = "
    shop-1 18 2 12 2026-03-28T22:59:59.999999Z 2026-03-28T23:00:00Z
    shop-1 0007 2.00 12.00 2026-03-28T23:00:00Z 2026-03-28T23:00:01Z
    shop-1 8 1.75 10.5 2026-03-29T01:00:00Z 2026-03-29T01:00:01Z
    shop-1 A-1 0 1 2026-03-29T01:30:00Z 2026-03-29T01:30:00Z
    shop-1 12 0.50 5 2026-03-29T02:00:00Z 2026-03-29T02:00:00Z
    shop-1 12 0.50 5.00 2026-03-29T02:00:00Z 2026-03-29T02:10:00Z
    shop-1 12 0.50 6.00 2026-03-29T02:00:00Z 2026-03-29T02:11:00Z
    shop-1 13 -2.00 -12.00 2026-03-29T03:00:00Z 2026-03-29T03:00:00Z
    shop-1 14 2.00 -12.00 2026-03-29T03:10:00Z 2026-03-29T03:10:00Z
    shop-1 15 1.68 10.00 2026-03-29T03:20:00Z 2026-03-29T03:20:00Z
    shop-1 16 0.01 0.05 2026-03-29T03:30:00Z 2026-03-29T03:30:00Z
    shop-1 - - - - 2026-03-29T03:40:00Z
    shop-1 20 1 10 2026-03-29T20:00:00Z 2026-03-29T22:00:00Z
    shop-1 999999999999999999 1 10 2026-03-29T21:59:59.999999Z 2026-03-30T01:02:03.5Z
    shop-1 17 2 12 2026-03-29T22:00:00Z 2026-03-29T22:00:00Z
    shop-2 B-1 0.30 3 - 2026-03-29T10:00:00Z
    shop-2 B-2 - - - 2026-03-29T11:00:00Z
    shop-2 B-2 - - - 2026-03-29T11:00:00Z
    - 1 0.1 1 - 2026-03-29T10:00:00Z
    - 1000000000000000000 0.1 1 - 2026-03-29T10:00:01Z
";

fn told_of_shop_1() -> Value {
    json!({
        "day": "2026-03-29", "time_zone": "Europe/Paris", "source": "shop-1",
        "tickets": 13, "valid": 12, "invalid": 1, "total": "45.55", "vat": "8.94", "numbered": 11,
        "first": {"order_id": "0007", "at": "2026-03-29T00:00:00+01:00"},
        "last": {"order_id": "999999999999999999", "at": "2026-03-29T23:59:59.999999+02:00"},
        "missing": {"count": 999_999_999_999_999_984_u64, "ranges": 3, "first": [
            {"from": "9", "to": "11"}, {"from": "17", "to": "19"},
            {"from": "21", "to": "999999999999999998"},
        ]},
        "late": {"count": 2, "by_seconds": 10_923},
        "doubles": {"count": 1, "orders": 1, "first": [{"order_id": "12", "total": "5", "times": 2}]},
    })
}

/// Gaps, doubles, late ones and implausible VAT of a day are found exactly, and nothing of the days
/// around it: plants some of each among two sources and tickets without one.
#[tokio::test]
async fn a_day_is_told_exactly() {
    let namespace = migrated().await;
    plant(&namespace, SPRING).await;
    let ended = day(&namespace, &["2026-03-29", "--format=json"]).await;
    let [none, mut shop_1, shop_2] = objects(&ended).try_into().unwrap();
    let vat = shop_1.as_object_mut().unwrap().remove("implausible_vat");
    let vat = vat.unwrap();
    assert_eq!(shop_1, told_of_shop_1());
    let orders = [&vat["first"][0]["order_id"], &vat["first"][1]["order_id"]];
    assert_eq!(
        (vat["count"].as_u64(), orders),
        (Some(2), [&json!("14"), &json!("15")])
    );
    assert_eq!(
        (&none["source"], &none["tickets"]),
        (&Value::Null, &json!(2))
    );
    assert_eq!(
        (&none["numbered"], &none["missing"]["count"]),
        (&json!(1), &json!(0))
    );
    let nothing = json!({"count": 0, "orders": 0, "first": []});
    assert_eq!(
        (&shop_2["invalid"], &shop_2["doubles"]),
        (&json!(2), &nothing)
    );
    assert_eq!(shop_2["late"], json!({"count": 0, "by_seconds": null}));

    let args = ["2026-03-29", "--source=shop-1", "--vat-max=25.5"];
    let text = day(&namespace, &args).await;
    for line in [
        "2026-03-29 (Europe/Paris), shop-1: 13 tickets, 12 valid, 1 invalid",
        "  total 45.55, VAT 8.94",
        "  missing order ids: 999999999999999984: 9-11, 17-19, 21-999999999999999998",
        "  late: 2, by up to 3h 2m",
        "  suspected doubles: 1: 12 (2 times 5)",
        "  implausible VAT: 1: 14 (2.00 of -12.00)",
    ] {
        assert!(
            text.text().lines().any(|found| found == line),
            "{line}\n{}",
            text.text()
        );
    }
    assert!(!text.text().contains("shop-2"), "{}", text.text());
}

/// The views say of each source's day what the command says: asks both of the planted days, in the time
/// zone of the session, and in another one.
#[tokio::test]
async fn the_views_agree_with_the_command() {
    let namespace = migrated().await;
    plant(&namespace, SPRING).await;
    for (zone, days) in [("Europe/Paris", 3), ("Pacific/Auckland", 2)] {
        let set = format!("set timezone = '{zone}'");
        namespace.database.batch_execute(&set).await.unwrap();
        let rows = namespace.database.query(VIEWS, &[]).await.unwrap();
        let seen: Vec<(String, Value)> = rows
            .iter()
            .map(|row| (row.get(0), serde_json::from_str(row.get(1)).unwrap()))
            .collect();
        let mut dates: Vec<_> = seen.iter().map(|(day, _)| day.clone()).collect();
        dates.dedup();
        assert_eq!(dates.len(), days, "{dates:?}");
        let mut told = Vec::new();
        for date in dates {
            let zone = format!("--business-tz={zone}");
            let ended = day(&namespace, &[&date, "--format=json", &zone]).await;
            told.extend(objects(&ended).iter().map(|of| (date.clone(), summary(of))));
        }
        assert_eq!(seen, told, "{zone}");
    }
}

/// What the views tell of each source and day.
const VIEWS: &str = "select day::text, json_build_object('source', source, 'tickets', tickets, 'valid', valid, \
        'invalid', invalid, 'total', total::text, 'vat', vat::text, 'first', first_order_id, 'last', last_order_id, \
        'late', late, \
        'missing', (select coalesce(sum(missing), 0)::bigint from ticket_order_gaps where (day, coalesce(source, '')) = key), \
        'doubles', (select coalesce(sum(times - 1), 0)::bigint from ticket_doubles where (day, coalesce(source, '')) = key), \
        'vats', (select count(*) from ticket_implausible_vat where (day, coalesce(source, '')) = key))::text \
    from (select *, (day, coalesce(source, '')) as key from ticket_days) days \
    order by day, coalesce(source, '') collate \"C\"";

/// The same of what the command tells.
fn summary(of: &Value) -> Value {
    json!({
        "source": of["source"], "tickets": of["tickets"], "valid": of["valid"], "invalid": of["invalid"],
        "total": of["total"], "vat": of["vat"], "first": of["first"]["order_id"],
        "last": of["last"]["order_id"], "late": of["late"]["count"], "missing": of["missing"]["count"],
        "doubles": of["doubles"]["count"], "vats": of["implausible_vat"]["count"],
    })
}

/// A day may have 25 hours, or no ticket, or more gaps than are listed.
#[tokio::test]
async fn days_are_of_their_time_zone() {
    let namespace = migrated().await;
    let autumn = "
        - 1 0 1 2026-10-24T21:59:59Z 2026-10-24T22:00:00Z
        - 2 0 1 2026-10-24T22:00:00Z 2026-10-24T22:00:00Z
        - 3 0 1 2026-10-25T22:59:59Z 2026-10-25T22:59:59Z
        - 4 0 1 2026-10-25T23:00:00Z 2026-10-25T23:00:00Z
    ";
    plant(&namespace, autumn).await;
    let counts = async |args: &[&str]| -> Vec<Value> {
        let ended = day(&namespace, &[args, &["--format=json"]].concat()).await;
        let objects = objects(&ended);
        objects
            .iter()
            .map(|object| object["tickets"].clone())
            .collect()
    };
    assert_eq!(counts(&["2026-10-25"]).await, [2]);
    assert_eq!(counts(&["2026-10-25", "--business-tz=utc"]).await, [2]);
    assert_eq!(counts(&["2026-10-24", "--business-tz=UTC"]).await, [2]);
    assert_eq!(counts(&["2026-10-27"]).await, [0; 0]);
    let empty = day(&namespace, &["2026-10-27"]).await;
    assert_eq!(empty.text(), "2026-10-27 (Europe/Paris): no tickets\n");

    let odd = "insert into tickets (source, order_id, received_at) \
        select 'shop-3', n::text, '2026-11-01T12:00:00Z' from generate_series(1, 101, 2) n";
    namespace.database.batch_execute(odd).await.unwrap();
    let told = &objects(&day(&namespace, &["2026-11-01", "--format=json"]).await)[0]["missing"];
    assert_eq!((&told["count"], &told["ranges"]), (&json!(50), &json!(50)));
    assert_eq!(told["first"].as_array().unwrap().len(), 20);
    assert_eq!(told["first"][19], json!({"from": "40", "to": "40"}));
    let text = day(&namespace, &["2026-11-01"]).await;
    assert!(
        text.text().contains(" ids: 50: 2, 4, 6, "),
        "{}",
        text.text()
    );
    assert!(text.text().contains(", 38, 40, …\n"), "{}", text.text());
}

/// Of each list the first 20 are told, by time, and all are counted: plants 30 tickets twice, whose VAT
/// is all of the total.
#[tokio::test]
async fn long_lists_are_cut_and_counted() {
    let namespace = migrated().await;
    let insert = "insert into tickets (order_id, vat, total, valid, received_at) \
        select 'x' || n, 5, 5, true, timestamptz '2026-11-01T12:00:00Z' - make_interval(secs => n) \
        from generate_series(1, 30) n, generate_series(1, 2)";
    namespace.database.batch_execute(insert).await.unwrap();
    let told = objects(&day(&namespace, &["2026-11-01", "--format=json"]).await);
    let (doubles, vat) = (&told[0]["doubles"], &told[0]["implausible_vat"]);
    assert_eq!(
        (&doubles["count"], &doubles["orders"]),
        (&json!(30), &json!(30))
    );
    assert_eq!(vat["count"], 60);
    for (list, last) in [(doubles, "x11"), (vat, "x21")] {
        let first = list["first"].as_array().unwrap();
        let ends = [&first[0]["order_id"], &first[19]["order_id"]];
        assert_eq!((first.len(), ends), (20, [&json!("x30"), &json!(last)]));
    }
    assert_eq!(
        (&told[0]["numbered"], &told[0]["missing"]["count"]),
        (&json!(0), &json!(0))
    );
    let text = day(&namespace, &["2026-11-01"]).await;
    assert!(
        text.text().contains(" x11 (2 times 5), …\n"),
        "{}",
        text.text()
    );
    assert!(
        text.text().contains("missing order ids: not known"),
        "{}",
        text.text()
    );
}

/// What cannot be told is said, by the name of what is wrong.
#[tokio::test]
async fn a_wrong_zone_day_or_table_is_named() {
    let namespace = migrated().await;
    // The second is the rule of a zone of one's own to PostgreSQL.
    for zone in ["Europe/Pari", "Europe-3", ""] {
        let zone = format!("--business-tz={zone}");
        let wrong = day(&namespace, &["2026-03-29", &zone]).await;
        assert_eq!(wrong.code(), Some(1), "{zone}");
        assert!(wrong.log.contains("BUSINESS_TZ: "), "{}", wrong.log);
    }
    for wrong in [
        &["2026-02-29"][..],
        &["today"],
        &["2026-03-29", "--vat-max=101"],
        &[],
    ] {
        assert_eq!(day(&namespace, wrong).await.code(), Some(2), "{wrong:?}");
    }
    for change in [
        "alter table tickets drop column source cascade",
        "drop table tickets cascade",
    ] {
        namespace.database.batch_execute(change).await.unwrap();
        for args in [&["day", "2026-03-29"][..], &["silent"]] {
            let ended = namespace.run(args, &[]).await;
            assert_eq!(ended.code(), Some(1), "{args:?}");
            assert!(ended.log.contains("run `ticketd migrate`"), "{}", ended.log);
        }
    }
}

/// Who has sent nothing for longer than usual is listed, and nobody else: plants sources that pause
/// at night, failed before, are new, or are long gone.
#[tokio::test]
async fn silent_sources_are_listed() {
    let namespace = migrated().await;
    assert_eq!(namespace.run(&["silent"], &[]).await.text(), "");
    // Name, how long ago the last is, at which intervals before and how many; all in minutes.
    for (source, last, every, tickets) in [
        ("steady", 180, 10, 720),
        ("failed", 180, 10, 720),
        ("failed", 180 + 7200 + 2400, 10, 100),
        ("talks", 1, 10, 720),
        ("new", 180, 1, 60),
        ("new-gone", 1800, 1, 60),
        ("gone", 60 * 24 * 30, 10, 100),
    ] {
        put(&namespace, source, last, every, tickets).await;
    }
    for night in 0..9 {
        put(&namespace, "sleeps", 300 + night * 1440, 30, 24).await;
        put(&namespace, "overslept", 900 + night * 1440, 30, 24).await;
    }
    let ended = namespace.run(&["silent", "--format=json"], &[]).await;
    let silent = objects(&ended);
    let names: Vec<_> = silent
        .iter()
        .map(|of| of["source"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["new-gone", "overslept", "steady", "failed"]);
    let seconds = |of: &Value, name: &str| of[name].as_i64().unwrap();
    let usual: Vec<_> = silent
        .iter()
        .map(|of| seconds(of, "usual_seconds"))
        .collect();
    // Each was put there a moment after the one before.
    assert!((44_990..=45_000).contains(&usual[1]), "{usual:?}");
    assert_eq!([usual[0], usual[2], usual[3]], [86_400, 3600, 3600]);
    assert!((10_800..10_900).contains(&seconds(&silent[3], "silent_seconds")));
    let text = namespace.run(&["silent"], &[]).await;
    let last = text.text().lines().last().unwrap().split('\t');
    let last: Vec<_> = last.collect();
    assert_eq!(
        (last[0], last[2], last[3], last.len()),
        ("failed", "3h 0m", "1h 0m", 4)
    );
}

async fn put(namespace: &Namespace, source: &str, last: i32, every: i32, tickets: i32) {
    let insert = "insert into tickets (source, received_at) \
        select $1, now() - make_interval(mins => $2 + $3 * n) from generate_series(0, $4 - 1) n";
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
        [&source, &last, &every, &tickets];
    namespace.database.execute(insert, &values).await.unwrap();
}
