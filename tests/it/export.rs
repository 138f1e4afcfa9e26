//! Stored tickets as files for others to read.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use ticketd_testing::*;

use crate::TICKETD;

/// Some tickets with whatever a CSV reader could stumble over: quotes, line ends, comments, formulas,
/// empty texts beside absent ones, and a last line that pretends to be the end.
const PLANTED: &str = r#"insert into tickets
    (ticket_id, order_id, vat, total, valid, invalid_reason, ticket_text, received_at, source, issued_at)
values
    ('00000000-0000-7000-8000-000000000001', '0007', 2, 2.50, true, null,
     E'Order: 0007\nVAT: 2\nTotal: 2.50\n\nproduct,product_id,price\n"a ""b"", #c",=1+1,2.00\n\nCafé,Z,0.5\n',
     '2026-03-28T22:59:59.999999Z', 'shop-1', '2026-03-28T23:59:58+01:00'),
    ('00000000-0000-7000-8000-000000000002', '=1+1', null, null, false, 'bad_vat:2',
     E'#\r\n"\n""\\.\n# complete: 9 rows\n', '2026-03-28T23:00:00Z', 'shop-2', null),
    ('00000000-0000-7000-8000-000000000003', '', 0.10, 1.00, true, null,
     E'Order: 3\nVAT: 0.10\nTotal: 1.00\n\nproduct,product_id,price\nx,y,1.00',
     '2026-03-29T21:59:59.999999Z', null, null),
    ('00000000-0000-7000-8000-000000000004', null, null, null, false, null, null,
     '2026-03-29T22:00:00Z', null, null)"#;

const DAY: [&str; 3] = [
    "--from=2026-03-29",
    "--to=2026-03-30",
    "--business-tz=Europe/Paris",
];
const ALL: [&str; 2] = ["--from=2000-01-01", "--to=2100-01-01"];

async fn planted() -> Namespace {
    let namespace = Namespace::new(TICKETD).await;
    let migrated = namespace.run(&["migrate"], &[]).await;
    assert_eq!(migrated.code(), Some(0), "{}", migrated.log);
    namespace.database.batch_execute(PLANTED).await.unwrap();
    namespace
}

async fn export(namespace: &Namespace, args: &[&[&str]]) -> Ended {
    let args = [&["export"], args.concat().as_slice()].concat();
    namespace.run(&args, &[]).await
}

/// The objects of an export, of which the last must say that they are all.
fn objects(ended: &Ended) -> Vec<Value> {
    assert_eq!(ended.code(), Some(0), "{}", ended.log);
    let lines = ended.text().lines();
    let mut objects: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let last = objects.pop().unwrap();
    assert_eq!(last, json!({"complete": true, "rows": objects.len()}));
    objects
}

/// The records of a CSV, read as RFC 4180 has it, character by character; no quotes are null.
fn records(text: &str) -> Vec<Vec<Option<String>>> {
    let (mut records, mut record, mut field) = (Vec::new(), Vec::new(), None);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            ',' => record.push(field.take()),
            '\n' => {
                record.push(field.take());
                records.push(std::mem::take(&mut record));
            }
            '"' => {
                assert_eq!(field, None, "a quote within a field");
                let mut quoted = String::new();
                loop {
                    match characters.next().expect("a closing quote") {
                        '"' if characters.next_if_eq(&'"').is_none() => break,
                        character => quoted.push(character),
                    }
                }
                field = Some(quoted);
            }
            character => field.get_or_insert_default().push(character),
        }
    }
    assert!(
        record.is_empty() && field.is_none(),
        "a last line without end"
    );
    records
}

/// The same of an export, as objects by the names of its heading, all of text.
fn csv_objects(ended: &Ended) -> Vec<Value> {
    assert_eq!(ended.code(), Some(0), "{}", ended.log);
    let text = ended.text().trim_end_matches('\n');
    let (rows, last) = text.rsplit_once('\n').unwrap();
    let mut records = records(&format!("{rows}\n")).into_iter();
    let heading: Vec<_> = records.next().unwrap().into_iter().flatten().collect();
    let objects: Vec<Value> = records
        .map(|record| {
            assert_eq!(record.len(), heading.len());
            heading
                .iter()
                .cloned()
                .zip(record.into_iter().map(Value::from))
                .collect()
        })
        .collect();
    assert_eq!(last, format!("# complete: {} rows", objects.len()));
    objects
}

/// Each value as a CSV has it.
fn as_text(object: Value) -> Value {
    let Value::Object(fields) = object else {
        panic!("no object")
    };
    let text = |value: Value| match value {
        Value::Null | Value::String(_) => value,
        other => other.to_string().into(),
    };
    fields
        .into_iter()
        .map(|(name, value)| (name, text(value)))
        .collect()
}

/// What is written is what is stored, in either form: compares both with the rows.
#[tokio::test]
async fn every_field_is_written_as_it_is_stored() {
    let namespace = planted().await;
    let tickets = objects(&export(&namespace, &[&ALL, &["--format=jsonl"]]).await);
    let stored = namespace.rows().await;
    assert_eq!(tickets.len(), stored.len());
    for (ticket, row) in tickets.iter().zip(&stored) {
        assert_eq!(ticket["ticket_id"], row.ticket_id.to_string());
        assert_eq!(ticket["order_id"], json!(row.order_id));
        assert_eq!(ticket["vat"], json!(row.vat));
        assert_eq!(ticket["total"], json!(row.total));
        assert_eq!(ticket["valid"], row.valid);
        assert_eq!(ticket["invalid_reason"], json!(row.invalid_reason));
        assert_eq!(ticket["ticket_text"], json!(row.ticket_text));
    }
    assert_eq!(
        tickets[0]["received_at"],
        "2026-03-28T22:59:59.999999+00:00"
    );
    assert_eq!(tickets[0]["issued_at"], "2026-03-28T22:59:58+00:00");
    assert_eq!(tickets[0]["source"], "shop-1");
    assert!(tickets[0]["created_at"].is_string());
    let csv = csv_objects(&export(&namespace, &[&ALL]).await);
    let expected: Vec<_> = tickets.into_iter().map(as_text).collect();
    assert_eq!(csv, expected);
}

/// Products are those that the parser read, and only of valid tickets.
#[tokio::test]
async fn the_products_of_valid_tickets_are_written() {
    let namespace = planted().await;
    let lines = objects(&export(&namespace, &[&ALL, &["--lines", "--format=jsonl"]]).await);
    let told: Vec<_> = lines
        .iter()
        .map(|line| {
            let text = |name: &str| line[name].as_str().unwrap_or("-").to_owned();
            let head = format!("{} {}", text("source"), text("order_id"));
            format!(
                "{head} {} {} {} {}",
                line["position"],
                text("name"),
                text("product_id"),
                text("price")
            )
        })
        .collect();
    let expected = [
        "shop-1 0007 1 a \"b\", #c =1+1 2.00",
        "shop-1 0007 2 Café Z 0.5",
        "-  1 x y 1.00",
    ];
    assert_eq!(told, expected);
    // The view reads the same out of the texts.
    let view = "select count(*), sum(price)::text from ticket_lines";
    let view = namespace.database.query_one(view, &[]).await.unwrap();
    assert_eq!((view.get(0), view.get(1)), (3_i64, "3.50"));
    let csv = csv_objects(&export(&namespace, &[&ALL, &["--lines"]]).await);
    let expected: Vec<_> = lines.into_iter().map(as_text).collect();
    assert_eq!(csv, expected);
}

/// The span is half open, its days are those of the shops, and its times have offsets.
#[tokio::test]
async fn a_span_has_its_first_moment_and_not_its_last() {
    let namespace = planted().await;
    let last_digits = async |args: &[&[&str]]| {
        let tickets = objects(&export(&namespace, &[args, &[&["--format=jsonl"]]].concat()).await);
        let ids = tickets
            .iter()
            .map(|ticket| ticket["ticket_id"].as_str().unwrap());
        ids.filter_map(|id| id.chars().last()).collect::<String>()
    };
    assert_eq!(last_digits(&[&DAY]).await, "23");
    assert_eq!(
        last_digits(&[&["--from=2026-03-29", "--to=2026-03-30"]]).await,
        "34"
    );
    for (from, to, found) in [
        (
            "2026-03-29T00:00:00+01:00",
            "2026-03-29T23:59:59.999999+02:00",
            "2",
        ),
        (
            "2026-03-28T22:59:59.999999Z",
            "2026-03-28T23:00:00.000001Z",
            "12",
        ),
        ("2026-03-28T23:00:00Z", "2026-03-28T23:00:00Z", ""),
        ("2026-03-29T22:00:00Z", "2026-03-30", "4"),
    ] {
        let (from, to) = (format!("--from={from}"), format!("--to={to}"));
        assert_eq!(last_digits(&[&[&from, &to]]).await, found, "{from} {to}");
    }
    assert_eq!(last_digits(&[&ALL, &["--source=shop-2"]]).await, "2");
    let none = export(&namespace, &[&ALL, &["--source=shop-9", "--lines"]]).await;
    assert!(csv_objects(&none).is_empty());
}

/// What is asked wrongly is named, before anything is written.
#[tokio::test]
async fn what_is_wrong_is_named() {
    let namespace = planted().await;
    for (args, code, words) in [
        (&["--to=2026-01-01"][..], 2, "--from"),
        (&["--from=yesterday", "--to=2026-01-01"], 2, "--from"),
        (
            &["--from=2026-01-01T00:00:00", "--to=2026-01-01"],
            2,
            "--from",
        ),
        (
            &["--from=2026-01-02", "--to=2026-01-01"],
            1,
            "--to is before --from",
        ),
        (
            &[
                "--from=2026-01-01",
                "--to=2026-01-02",
                "--business-tz=Paris",
            ],
            1,
            "BUSINESS_TZ",
        ),
        (
            &[
                "--from=2026-01-01",
                "--to=2026-01-02",
                "--output=/nowhere/x",
            ],
            1,
            "/nowhere/x.partial",
        ),
        (
            &["--from=2026-01-01", "--to=2026-01-02", "--source=A B"],
            2,
            "--source",
        ),
    ] {
        let ended = export(&namespace, &[args]).await;
        assert_eq!(ended.code(), Some(code), "{args:?}: {}", ended.log);
        assert!(ended.log.contains(words), "{args:?}: {}", ended.log);
        assert!(ended.out.is_empty(), "{args:?}");
    }
    namespace
        .database
        .batch_execute("alter table tickets drop column source cascade")
        .await
        .unwrap();
    let old = export(&namespace, &[&ALL]).await;
    assert_eq!(old.code(), Some(1));
    assert!(old.log.contains("ticketd migrate"), "{}", old.log);
}

/// A file has its name once it is whole; before that, and if it never is, it is called partial.
#[tokio::test]
async fn a_file_gets_its_name_when_it_is_whole() {
    let namespace = planted().await;
    let folder = Folder::new(namespace.schema());
    let file = folder.0.join("tickets.csv");
    let output = format!("--output={}", file.display());
    let ended = export(&namespace, &[&ALL, &[&output]]).await;
    assert_eq!((ended.code(), ended.text()), (Some(0), ""), "{}", ended.log);
    let written = fs::read(&file).unwrap();
    assert_eq!(written, export(&namespace, &[&ALL]).await.out);
    // Its last row cannot be read.
    let broken = "alter table tickets rename to stored; create view tickets as \
        select ticket_id, source, order_id, vat, total, valid, \
        invalid_reason, issued_at, received_at, created_at, \
        ticket_text || (1 / (id - (select max(id) from stored)))::text as ticket_text from stored";
    namespace.database.batch_execute(broken).await.unwrap();
    let interrupted = export(&namespace, &[&ALL, &[&output]]).await;
    assert_eq!(interrupted.code(), Some(1), "{}", interrupted.log);
    assert!(
        interrupted.log.contains("DATABASE_URL: "),
        "{}",
        interrupted.log
    );
    assert_eq!(fs::read(&file).unwrap(), written, "the one before it stays");
    let partial = fs::read_to_string(folder.0.join("tickets.csv.partial")).unwrap();
    assert!(
        partial.starts_with("ticket_id,") && !partial.contains("complete: 3"),
        "{partial}"
    );
    let interrupted = export(&namespace, &[&ALL, &["--format=jsonl"]]).await;
    assert_eq!(interrupted.code(), Some(1));
    assert!(!interrupted.text().contains("\"complete\":true"));
}

/// A reader that has seen enough ends it with the exit code that shells know, and no word about it.
#[tokio::test]
async fn a_reader_may_go() {
    let namespace = planted().await;
    many(&namespace).await;
    let mut command = Command::new(TICKETD);
    command.args(["export", ALL[0], ALL[1]]).env_clear();
    command.envs(namespace.settings("export", &[]));
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut first = [0; 100];
    out.read_exact(&mut first).unwrap();
    drop(out);
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(141));
    assert_eq!(String::from_utf8(ended.stderr).unwrap(), "");
}

/// 20,000 tickets more, with texts of 2 KiB: more than all buffers on the way hold.
async fn many(namespace: &Namespace) {
    let insert = "insert into tickets (ticket_text) \
        select repeat('x', 2048) from generate_series(1, 20000)";
    namespace.database.batch_execute(insert).await.unwrap();
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}
