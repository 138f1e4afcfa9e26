//! Stored invalid tickets judged again.

use ticketd_testing::*;

use crate::TICKETD;

/// What an older rule refused is valid by today's, with its fields and products; what is invalid
/// stays so, for the reason of today: gives stored tickets the verdicts of other rules, and judges
/// them again.
#[tokio::test]
async fn tickets_are_judged_by_the_rules_as_they_are() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let mut client = ticketd.client().await;
    for body in [
        EXAMPLE,
        &ticket("7"),
        "Order: 8\nVAT: x\nTotal: 1\n",
        "Order: 9\n",
    ] {
        namespace.accepted(&mut client, &[], body).await;
    }
    namespace.stored(4).await;
    ticketd.drained().await;
    let before = namespace.rows().await;
    let products =
        "select product_id, name, price::text, ticket_received_at::text from products order by 1";
    let known = namespace.database.query(products, &[]).await.unwrap().len();
    let other_rules = "update tickets set valid = false, invalid_reason = 'bad_total:3', \
            order_id = null, vat = null, total = null where valid; \
        update tickets set invalid_reason = 'bad_order:1' where order_id = '9'; \
        delete from products; \
        insert into tickets (valid, invalid_reason, ticket_text) values (false, null, null)";
    namespace.database.batch_execute(other_rules).await.unwrap();

    let reparse = async |args: &[&str]| {
        let args: Vec<_> = ["reparse"].iter().chain(args).copied().collect();
        let ended = namespace.run(&args, &[]).await;
        assert_eq!(ended.code(), Some(0), "{}", ended.log);
        ended.text().to_owned()
    };
    assert_eq!(reparse(&["--dry-run"]).await, "4\t2\t1\n");
    for (filter, expected) in [
        ("--reason=bad_total", "2\t2\t0\n"),
        ("--reason=bad", "0\t0\t0\n"),
        ("--since=1h", "4\t2\t1\n"),
        ("--since=2999-01-01 00:00:00", "0\t0\t0\n"),
        ("--after=9223372036854775807", "0\t0\t0\n"),
    ] {
        assert_eq!(reparse(&["--dry-run", filter]).await, expected, "{filter}");
    }
    assert_eq!(namespace.count("products").await, 0);
    assert_eq!(reparse(&[]).await, "4\t2\t1\n");
    let mut after = namespace.rows().await;
    after.retain(|row| row.ticket_text.is_some());
    assert_eq!(after, before);
    let restored = namespace.database.query(products, &[]).await.unwrap();
    assert_eq!(restored.len(), known);
    assert_eq!(reparse(&[]).await, "2\t0\t0\n");
}
