//! The table of products: what is written of it, when, and what that leaves behind.

use uuid::Uuid;

use ticketd_testing::*;

use crate::TICKETD;

/// A valid ticket that sells one product at this price.
fn sale(price: u32) -> String {
    format!(
        "Order: {}\nVAT: 0\nTotal: {price}\n\nproduct,product_id,price\nTea,T,{price}\n",
        Uuid::now_v7()
    )
}

/// The version of the one row of `products`, and the ticket it was written for.
async fn version(namespace: &Namespace) -> (String, Uuid) {
    let query = "select ctid::text || xmin::text, ticket_id from products";
    let row = namespace.database.query_one(query, &[]).await.unwrap();
    (row.get(0), row.get(1))
}

/// A product that is sold again as it was is not written again, so that an old snapshot finds no
/// pile of dead versions to keep: stores tickets one by one and looks at the row's version.
#[tokio::test]
async fn an_unchanged_product_is_not_written_again() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[]).await;
    let mut client = ticketd.client().await;
    let first = namespace.accepted(&mut client, &[], &sale(2)).await;
    namespace.row(first).await;
    let before = version(&namespace).await;
    assert_eq!(before.1, first);
    for _ in 0..20 {
        let id = namespace.accepted(&mut client, &[], &sale(2)).await;
        namespace.row(id).await;
        assert_eq!(version(&namespace).await, before);
    }
    let dearer = namespace.accepted(&mut client, &[], &sale(3)).await;
    namespace.row(dearer).await;
    assert_eq!(version(&namespace).await.1, dearer);
    let expected = owned(&[("T", "Tea", "3")]);
    assert_eq!(namespace.products().await, expected);
}

/// PRODUCT_REFRESH bounds how long a row goes without a write; 0 writes it with every batch.
#[tokio::test]
async fn a_row_is_written_again_after_its_refresh_time() {
    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[("PRODUCT_REFRESH", "1s")]).await;
    let mut client = ticketd.client().await;
    let first = namespace.accepted(&mut client, &[], &sale(2)).await;
    namespace.row(first).await;
    let next = namespace.accepted(&mut client, &[], &sale(2)).await;
    namespace.row(next).await;
    wait_until("a later ticket in the row", async || {
        let id = namespace.accepted(&mut client, &[], &sale(2)).await;
        namespace.row(id).await;
        version(&namespace).await.1 == id
    })
    .await;

    let namespace = Namespace::new(TICKETD).await;
    let mut ticketd = namespace.ready("serve", &[("PRODUCT_REFRESH", "0s")]).await;
    let mut client = ticketd.client().await;
    for _ in 0..3 {
        let id = namespace.accepted(&mut client, &[], &sale(2)).await;
        namespace.row(id).await;
        assert_eq!(version(&namespace).await.1, id);
    }
}

/// A ticket that arrives late never replaces a newer one, though that one did not write the row, and
/// though the connection that it was known on is gone.
#[tokio::test]
async fn a_late_ticket_replaces_nothing() {
    let namespace = Namespace::new(TICKETD).await;
    let url = format!(
        "{}&application_name={}",
        namespace.database_url(),
        namespace.schema()
    );
    let _ticketd = namespace.ready("consume", &[("DATABASE_URL", &url)]).await;
    let start_us = now_us() - 60_000_000;
    let publish = async |second: i64, price| {
        let id = Uuid::now_v7();
        let properties = ticket_properties(id, start_us + second * 1_000_000);
        namespace.publish(properties, sale(price).as_bytes()).await;
        namespace.row(id).await;
        id
    };
    let tea_costs = async |price: &str| {
        assert_eq!(namespace.products().await, owned(&[("T", "Tea", price)]));
    };
    let first = publish(0, 2).await;
    publish(30, 2).await;
    assert_eq!(version(&namespace).await.1, first, "it has not changed");
    publish(20, 3).await;
    tea_costs("2").await;

    let terminate = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
        where application_name = $1";
    let ended = namespace
        .database
        .query_one(terminate, &[&namespace.schema()])
        .await;
    assert!(ended.unwrap().get::<_, i64>(0) > 0);
    publish(21, 3).await;
    tea_costs("2").await;
    let last = publish(31, 3).await;
    assert_eq!(version(&namespace).await.1, last);
    tea_costs("3").await;
}

/// Nothing that ticketd keeps open holds back the age of the database, which autovacuum must be able
/// to bring down or PostgreSQL stops all writes in the end: lets it store in a database of its own,
/// uses transaction numbers up, and vacuums while it goes on storing.
#[tokio::test]
async fn the_age_of_the_database_can_fall_while_ticketd_stores() {
    const TRANSACTIONS: i32 = 5_000;
    let namespace = Namespace::new(TICKETD).await;
    let (url, database) = namespace.own_database("").await;
    let mut ticketd = namespace.ready("serve", &[("DATABASE_URL", &url)]).await;
    let mut client = ticketd.client().await;
    let mut store = async || {
        let id = namespace.accepted(&mut client, &[], EXAMPLE).await;
        let query = "select count(*) from tickets where ticket_id = $1";
        wait_until("the ticket is stored", async || {
            database
                .query_one(query, &[&id])
                .await
                .unwrap()
                .get::<_, i64>(0)
                == 1
        })
        .await;
    };
    store().await;
    let use_up = format!(
        "do $$ begin for i in 1..{TRANSACTIONS} loop perform txid_current(); commit; end loop; end $$"
    );
    database.batch_execute(&use_up).await.unwrap();
    store().await;
    // Snapshots of other tests hold back what all databases share, but none of them lasts.
    wait_until("the age has fallen", async || {
        database.batch_execute("vacuum (freeze)").await.unwrap();
        let query = "select age(datfrozenxid) from pg_database where datname = current_database()";
        let age: i32 = database.query_one(query, &[]).await.unwrap().get(0);
        age < TRANSACTIONS
    })
    .await;
    store().await;
}
