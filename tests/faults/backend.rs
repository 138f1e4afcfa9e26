//! What is done to PostgreSQL's backends, and to what they may write.

use std::time::Duration;

use tokio::time::timeout;

use crate::rig::Rig;
use crate::ticketd::Role;
use ticketd_testing::{signal, wait_until, wait_within};

/// Maximum wait for what a fault needs to happen under load.
const INJECT_DEADLINE: Duration = Duration::from_secs(20);

/// Maximum wait for the first ticket that is stored when the tables accept tickets again: a few
/// times the maximum backoff.
const RESUME: Duration = Duration::from_secs(10);

/// The process that serves ticketd's writer.
pub(crate) async fn storing_backend(rig: &Rig) -> u32 {
    let sql = rig.stack.sql().await;
    let query = "select pid from pg_stat_activity where application_name = $1";
    wait_within("a backend that stores", INJECT_DEADLINE, async || {
        let row = sql.query_opt(query, &[&rig.name]).await.unwrap();
        row.map(|row| u32::try_from(row.get::<_, i32>(0)).unwrap())
    })
    .await
}

/// PostgreSQL takes every other backend with it, ours too.
pub(crate) async fn kill_backend(rig: &Rig) {
    let session = rig.stack.sql().await;
    signal("KILL", &[storing_backend(rig).await]);
    wait_within("the end of all backends", INJECT_DEADLINE, async || {
        session.is_closed().then_some(())
    })
    .await;
}

/// Cancels for as long as it takes for some statements to have been hit.
pub(crate) async fn cancel_statements(rig: &mut Rig) {
    let sql = rig.stack.sql().await;
    let query = "select count(pg_cancel_backend(pid)) from pg_stat_activity \
        where application_name = $1 and state = 'active'";
    let mut hits = 0;
    wait_within(
        "statements that are cancelled",
        INJECT_DEADLINE,
        async || {
            let row = sql.query_one(query, &[&rig.name]).await.unwrap();
            hits += row.get::<_, i64>(0);
            (hits >= 30).then_some(())
        },
    )
    .await;
}

pub(crate) async fn lock_table(rig: &mut Rig) {
    let sql = rig.stack.session(&rig.name).await;
    sql.batch_execute("begin; lock table tickets in access exclusive mode")
        .await
        .unwrap();
    // Counting rows would wait for the lock, so this session does it, too.
    rig.held.push(sql);
}

/// Lets the table take no row more.
pub(crate) async fn refuse_all(rig: &Rig) {
    let sql = rig.stack.session(&rig.name).await;
    let refuse =
        "alter table tickets add constraint nothing_fits check (ticket_text is null) not valid";
    sql.batch_execute(refuse).await.unwrap();
}

/// Lets it take them again. Tickets that came alone may have been dead-lettered, but two of them at
/// most; they are replayed. A ticket that was refused before may still be on its way there: the one
/// writer finishes that before it stores another.
pub(crate) async fn refuse_nothing(rig: &mut Rig) {
    let sql = rig.stack.session(&rig.name).await;
    let stored = async || -> i64 {
        let stored = sql.query_one("select count(*) from tickets", &[]).await;
        stored.unwrap().get(0)
    };
    let before = stored().await;
    let take = "alter table tickets drop constraint nothing_fits";
    sql.batch_execute(take).await.unwrap();
    let resumed = wait_until("held tickets are stored", async || stored().await > before);
    // With other faults beside this one, there may be none.
    let _none_held = timeout(RESUME, resumed).await;
    let dead = "select id::text from dead_tickets where reason like '%nothing_fits%'";
    let dead = sql.query(dead, &[]).await.unwrap();
    assert!(dead.len() <= 2, "{} tickets were dead-lettered", dead.len());
    for row in dead {
        let replay = ["dead", "replay", row.get(0)];
        let replayed = rig.process(Role::Consume).run(&replay).await;
        assert!(replayed.status.success(), "{}", replayed.log);
    }
}
