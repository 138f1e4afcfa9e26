//! What is told of tickets: one, the newest, and the verdict on one that is not taken.

use serde_json::{Value, json};
use ticketd_testing::*;
use uuid::Uuid;

use crate::TICKETD;
use crate::senders::{LINES, SHOP_1, SHOP_2};

fn ask(path: &str, headers: &[&str]) -> String {
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{headers}\r\n")
}

fn check(headers: &[&str], body: &str) -> String {
    let text = String::from_utf8(post(headers, body)).unwrap();
    text.replacen("/ticket ", "/check ", 1)
}

async fn tickets(client: &mut Client, query: &str) -> Value {
    client
        .ask(ask(&format!("/tickets{query}"), &[]))
        .await
        .json()
}

fn numbers(list: &Value) -> Vec<i64> {
    let tickets = list["tickets"].as_array().unwrap().iter();
    tickets
        .map(|ticket| ticket["number"].as_i64().unwrap())
        .collect()
}

/// A ticket's state says whether it is stored, dead or both, and so does the command, by key as well:
/// posts a valid one, an invalid one, two texts of one key, and one that the table refuses.
#[tokio::test]
async fn a_state_tells_what_became_of_a_ticket() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let mut client = ticketd.client().await;
    let invalid = namespace
        .accepted(&mut client, &[], "Order: 1\nVAT: x\n")
        .await;
    namespace.row(invalid).await;
    let state = client.ask(get(&format!("/ticket/{invalid}"))).await.json();
    assert_eq!(
        (&state["state"], &state["line"]),
        (&json!("stored"), &json!(2))
    );
    assert!(
        state["detail"].as_str().unwrap().contains("`VAT:`"),
        "{state}"
    );
    assert_eq!(state["set_aside"], json!([]));

    let key = ["idempotency-key: till-1/7"];
    let id = namespace.accepted(&mut client, &key, EXAMPLE).await;
    namespace.row(id).await;
    namespace
        .accepted(&mut client, &key, &ticket("another"))
        .await;
    namespace.filled("dead_tickets", 1).await;
    let state = client.ask(get(&format!("/ticket/{id}"))).await.json();
    assert_eq!(
        (&state["state"], &state["valid"]),
        (&json!("stored"), &json!(true))
    );
    assert_eq!(state["set_aside"].as_array().unwrap().len(), 1, "{state}");

    let refuse = "alter table tickets add constraint refused check (order_id <> '444')";
    namespace.database.batch_execute(refuse).await.unwrap();
    let refused = namespace.accepted(&mut client, &[], &ticket("444")).await;
    namespace.filled("dead_tickets", 2).await;
    let state = client.ask(get(&format!("/ticket/{refused}"))).await.json();
    assert_eq!(
        (&state["state"], &state["id"]),
        (&json!("dead"), &json!(refused.to_string()))
    );
    assert!(
        state["reason"].as_str().unwrap().contains("refused"),
        "{state}"
    );

    the_command_tells_the_same(&namespace, [id, invalid, refused]).await;
}

async fn the_command_tells_the_same(namespace: &Namespace, [id, invalid, refused]: [Uuid; 3]) {
    let status = async |args: &[&str]| {
        let args: Vec<_> = ["status"].iter().chain(args).copied().collect();
        namespace.run(&args, &[]).await
    };
    let told = status(&["--key=till-1/7"]).await;
    assert_eq!(told.code(), Some(0), "{}", told.log);
    assert!(
        told.text().starts_with(&format!("{id}: stored, valid\n")),
        "{}",
        told.text()
    );
    assert!(
        told.text()
            .contains("another text of this id was set aside"),
        "{}",
        told.text()
    );
    let told = status(&[&invalid.to_string(), "--format=json"]).await;
    let told: Value = serde_json::from_str(told.text()).unwrap();
    assert_eq!(told["invalid_reason"], "bad_vat:2");
    let told = status(&[&refused.to_string()]).await;
    assert!(
        told.text().starts_with(&format!("{refused}: dead\n")),
        "{}",
        told.text()
    );
    let told = status(&["--key=till-1/7", "--source=shop-1"]).await;
    assert_eq!(
        told.code(),
        Some(1),
        "the key of another source: {}",
        told.text()
    );
    for wrong in [&["--key=a b"][..], &[], &["x"], &["--source=shop-1"]] {
        assert_eq!(status(wrong).await.code(), Some(2), "{wrong:?}");
    }
}

/// The newest tickets come first, filtered and in portions that leave none out: posts some and reads
/// them in several ways.
#[tokio::test]
async fn the_newest_tickets_are_listed() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let mut client = ticketd.client().await;
    assert_eq!(
        tickets(&mut client, "").await,
        json!({ "tickets": [], "next": null })
    );
    let markup = "Order: <img onerror=alert(1)>\nVAT: \"'&\n";
    for n in 0..5 {
        namespace
            .accepted(&mut client, &[], &ticket(&n.to_string()))
            .await;
        namespace.accepted(&mut client, &[], markup).await;
    }
    namespace.stored(10).await;
    let newest = wait_for("a list that is no older than the rows", async || {
        let list = tickets(&mut client, "?limit=3").await;
        (list["tickets"].as_array().unwrap().len() == 3).then_some(list)
    })
    .await;
    let mut seen = numbers(&newest);
    let mut next = newest["next"].as_i64();
    while let Some(before) = next {
        let list = tickets(&mut client, &format!("?limit=3&before={before}")).await;
        seen.extend(numbers(&list));
        next = list["next"].as_i64();
    }
    assert!(seen.is_sorted_by(|a, b| a > b), "{seen:?}");
    assert_eq!(seen.len(), 10);
    let invalid = tickets(&mut client, "?invalid=true&text=true").await;
    assert_eq!(numbers(&invalid).len(), 5);
    let first = &invalid["tickets"][0];
    assert_eq!(
        (&first["text"], &first["invalid_reason"]),
        (&json!(markup), &json!("bad_vat:2"))
    );
    let valid = tickets(&mut client, "?invalid=false").await;
    assert_eq!(numbers(&valid).len(), 5);
    assert_eq!(valid["tickets"][0].get("text"), None);
    assert_eq!(
        numbers(&tickets(&mut client, "?source=shop-1").await).len(),
        0
    );
    for wrong in ["?limit=0", "?order=1", "?before=x"] {
        client
            .ask(ask(&format!("/tickets{wrong}"), &[]))
            .await
            .problem(400);
    }
}

/// Lists are for who may see them: a source sees its own, an operator all, and nobody is asked by a
/// name that may be anybody's.
#[tokio::test]
async fn tickets_are_listed_to_who_may_see_them() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[("CREDENTIALS", LINES)]).await;
    let mut client = ticketd.client().await;
    for shop in [SHOP_1, SHOP_2, SHOP_2] {
        namespace.accepted(&mut client, &[shop], EXAMPLE).await;
    }
    namespace.stored(3).await;
    let operator = "authorization: Bearer Xq7ZvJ9wKr2Y-token-of-an-operator-000001";
    for (header, query, count) in [
        (SHOP_1, "", 1),
        (SHOP_1, "?source=shop-2", 1),
        (SHOP_2, "?limit=7", 2),
        (operator, "", 3),
        (operator, "?source=shop-2", 2),
    ] {
        let list = client
            .ask(ask(&format!("/tickets{query}"), &[header]))
            .await
            .json();
        assert_eq!(numbers(&list).len(), count, "{header} {query}");
    }
    assert_eq!(client.ask(ask("/tickets", &[])).await.status, 401);
    let renamed = ask("/tickets", &[operator]).replace("127.0.0.1", "evil.example");
    client.ask(renamed.clone()).await.problem(403);
    assert_eq!(client.ask(check(&[SHOP_1], EXAMPLE)).await.status, 200);
    assert_eq!(client.ask(check(&[], EXAMPLE)).await.status, 401);

    let settings = [
        ("ADMIN_LISTEN", "127.0.0.1:0"),
        ("PAGE_HOSTS", "evil.example,other"),
    ];
    let mut ticketd = namespace.ready("serve", &settings).await;
    let mut client = ticketd.client().await;
    client.ask(ask("/tickets", &[])).await.problem(404);
    let mut admin = Client::connect(ticketd.address("ADMIN_LISTEN").await)
        .await
        .unwrap();
    for request in [ask("/tickets", &[]), renamed] {
        assert_eq!(numbers(&admin.ask(request).await.json()).len(), 3);
    }
    let exposed = [("LISTEN", "0.0.0.0:0")];
    let mut ticketd = namespace.ready("serve", &exposed).await;
    let mut client = ticketd.client().await;
    client.ask(ask("/tickets", &[])).await.problem(404);
}

/// A checked ticket is judged as a stored one and not taken: checks each sample both ways.
#[tokio::test]
async fn a_checked_ticket_is_not_taken() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let mut client = ticketd.client().await;
    for kind in ["valid", "invalid"] {
        for file in std::fs::read_dir(sample(kind)).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            let verdict = client.ask(check(&[], &text)).await.json();
            assert_eq!(verdict["valid"], kind == "valid", "{text}");
            let id = namespace.accepted(&mut client, &[], &text).await;
            let row = namespace.row(id).await;
            let reason = verdict.get("invalid_reason").and_then(Value::as_str);
            assert_eq!(row.invalid_reason.as_deref(), reason);
        }
    }
    let stored = namespace.count("tickets").await;
    let message = client
        .ask(check(&["accept: text/plain"], "Order: 1\nVAT: x\n"))
        .await;
    assert_eq!(
        message.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert!(
        message.text().starts_with("error[bad_vat]: "),
        "{}",
        message.text()
    );
    assert!(message.text().ends_with("^\n"), "{}", message.text());
    let valid = client.ask(check(&["accept: text/plain"], EXAMPLE)).await;
    assert_eq!(valid.text(), "valid\n");
    client.ask(check(&[], "")).await.problem(400);
    client.ask(check(&[], "a\0b")).await.problem(400);
    client
        .ask(check(&["content-encoding: br"], EXAMPLE))
        .await
        .problem(415);
    let mut client = ticketd.client().await;
    let pieces = "POST /check HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n\
        5\r\nOrder\r\n2\r\n: \r\n0\r\n\r\n";
    assert_eq!(client.ask(pieces).await.json()["reason"], "missing_order");
    let large = "x".repeat(65_537);
    client.ask(check(&[], &large)).await.problem(413);
    let mut client = ticketd.client().await;
    assert_eq!(client.ask(get("/check")).await.status, 405);
    assert_eq!(namespace.count("tickets").await, stored);
    assert_eq!(namespace.depth(namespace.queue()).await, 0);
    let unknown = client.ask(get(&format!("/ticket/{}", Uuid::nil()))).await;
    assert_eq!(unknown.problem(404), "no such ticket is known, or not yet");
}
