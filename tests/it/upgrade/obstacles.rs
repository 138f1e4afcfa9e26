//! What must be put right by hand before the tables can be upgraded: it is named, and nothing is
//! changed.

use ticketd_testing::*;

use super::online::{LARGE, definitions, ended_in_time, make_large, migrated, start_migrate};
use super::{SHAPES, make};
use crate::TICKETD;

/// Product ids that are there more than once are named before anything is changed: upgrades tables
/// with some.
#[tokio::test]
async fn duplicates_are_named_and_nothing_is_changed() {
    let namespace = Namespace::new(TICKETD).await;
    let rows = "alter table products drop constraint once; \
        insert into products (name, product_id) select 'a', 'twice' || n % 12 from generate_series(1, 24) n; \
        insert into products (name, product_id) values ('b', 'thrice'), ('c', 'thrice'), ('d', 'thrice'), (null, null), (null, null)";
    make(&namespace, &SHAPES[3], rows).await;
    let before = definitions(&namespace).await;
    let ended = namespace.run(&["migrate"], &[]).await;
    assert_eq!(ended.code(), Some(1));
    for text in [
        "products.product_id",
        "13 of its",
        "\"thrice\" (3 times)",
        "\"twice6\" (2 times)",
    ] {
        assert!(ended.log.contains(text), "{text}: {}", ended.log);
    }
    assert_eq!(definitions(&namespace).await, before);
    let repair = "delete from products where product_id like 't%' and id not in \
        (select min(id) from products group by product_id)";
    namespace.database.batch_execute(repair).await.unwrap();
    migrated(&namespace).await;
    assert_eq!(namespace.count("products").await, 15);
}

/// What depends on a column whose type must be changed is named before anything is changed:
/// upgrades a large table with such things.
#[tokio::test]
async fn dependents_are_named_and_nothing_is_changed() {
    let namespace = Namespace::new(TICKETD).await;
    make_large(&namespace, &SHAPES[2], LARGE, 9).await;
    let own = "create view sums as select sum(total) as total from tickets; \
        alter table tickets add constraint not_negative check (vat >= 0); \
        create index cents on tickets ((total * 100))";
    namespace.database.batch_execute(own).await.unwrap();
    let before = definitions(&namespace).await;
    let ended = ended_in_time(start_migrate(&namespace)).await;
    assert_eq!(ended.code(), Some(1));
    for text in [
        "tickets.total",
        "view sums",
        "constraint not_negative",
        "index cents",
    ] {
        assert!(ended.log.contains(text), "{text}: {}", ended.log);
    }
    assert_eq!(definitions(&namespace).await, before);
    let repair =
        "drop view sums; alter table tickets drop constraint not_negative; drop index cents";
    namespace.database.batch_execute(repair).await.unwrap();
    migrated(&namespace).await;
}
