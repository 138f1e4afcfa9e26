//! Long stretches: a full queue drained by one consumer, and a soak.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Confirmation, PublisherConfirm};
use ticketd_testing::metrics;
use ticketd_testing::servers::{connect, hang_up};
use tokio::time::{Instant, sleep};

use super::ceiling;
use super::outcome::Outcome;
use super::process;
use super::scenarios::{Job, Rig};
use super::scratch::Place;
use super::target::Target;
use crate::client::Endpoint;
use crate::proc::{self, Cost, Costs, Part};
use crate::tickets::{self, Template};

/// Tickets in one published group, as many as a busy accept role makes of them.
const GROUP_TICKETS: u64 = 128;

/// Groups that wait for their confirm while the next one is made.
const CONFIRMS_MAX: usize = 32;

/// How often the progress is looked at, and how long there may be none.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// What draining a backlog gave.
pub(super) struct Backlog {
    pub(super) tickets: u64,
    /// From the start of the consumer to the last commit.
    pub(super) per_second: f64,
    /// PostgreSQL's own COPY of the same rows, right after.
    pub(super) ceiling_per_second: f64,
    /// Peak resident memory of the consumer after a quarter of the tickets, and at the end.
    pub(super) quarter_memory_mib: f64,
    pub(super) end_memory_mib: f64,
    pub(super) costs: Vec<Cost>,
}

/// What a soak gave.
pub(super) struct Soak {
    pub(super) tickets: u64,
    pub(super) per_second: f64,
    pub(super) deciles: [Decile; 10],
    pub(super) outcome: Outcome,
}

/// A tenth of a soak.
#[derive(Clone, Copy, Default)]
pub(super) struct Decile {
    /// Stored tickets per second.
    pub(super) per_second: f64,
    /// CPU time that the load generator used for each of them. It does the same for every ticket, so this tells how
    /// fast the machine itself was meanwhile.
    pub(super) generator_us: f64,
}

/// Seconds since the start, and by then: tickets stored, the storing process's peak memory, and the load generator's
/// CPU seconds.
#[derive(Clone, Copy)]
struct Point {
    seconds: f64,
    stored: u64,
    memory_mib: f64,
    generator_seconds: f64,
}

/// Fills a queue, then times a consumer over it.
pub(super) async fn drain(rig: &Rig, tickets: u64) -> Result<Backlog> {
    rig.in_place(async |place| {
        // The accept role declares the queue.
        for server in rig.start(Target::Accept, place).await?.servers {
            server.end().await?;
        }
        fill(rig, place, tickets).await?;
        let mut drained = consume(rig, place, tickets).await?;
        check(place, tickets).await?;
        drained.ceiling_per_second = ceiling::copies_per_second(place)
            .await
            .context("the same rows could not be copied")?;
        Ok(drained)
    })
    .await
}

async fn consume(rig: &Rig, place: &Place, tickets: u64) -> Result<Backlog> {
    let unused = process::free_address()?;
    let (server, admin) = rig.spawn_ticketd(("consume", Target::Split), place, &unused)?;
    let pid = server.pid();
    let parts: Vec<_> = rig
        .parts(Target::Split, std::slice::from_ref(&server))
        .into_iter()
        .map(|(name, pid)| Part { name, pid })
        .collect();
    let mut costs = Costs::begin(&parts)?;
    let points = watch(&admin, pid, tickets, || {
        costs.sample();
        None
    })
    .await?;
    let costs = costs.end();
    server.end().await?;
    let end = points.last().context("nothing was seen")?;
    let quarter = points.iter().find(|point| point.stored >= tickets / 4);
    Ok(Backlog {
        tickets,
        per_second: tickets as f64 / end.seconds,
        ceiling_per_second: 0.0,
        quarter_memory_mib: quarter.unwrap_or(end).memory_mib,
        end_memory_mib: end.memory_mib,
        costs,
    })
}

/// Sends tickets without a pause, and tells how each decile went.
pub(super) async fn soak(rig: &Rig, job: &Job, tickets: u64) -> Result<Soak> {
    let (outcome, points) = rig
        .in_place(async |place| {
            let running = rig.start(Target::EndToEnd, place).await?;
            let pid = running.servers.first().map(process::Server::pid);
            let pid = pid.context("ticketd ended at once")?;
            let generator_seconds = || running.generator.get().and_then(proc::own_cpu_seconds);
            let measured = tokio::try_join!(
                rig.load(job, place, &running),
                watch(&running.store_admin, pid, tickets, generator_seconds)
            )?;
            for server in running.servers {
                server.end().await?;
            }
            Ok(measured)
        })
        .await?;
    outcome.check()?;
    ensure!(
        outcome.accepted == tickets,
        "only {} of {tickets} tickets were accepted",
        outcome.accepted
    );
    Ok(Soak {
        tickets,
        per_second: outcome.per_second,
        deciles: deciles(&points, tickets).context("too short")?,
        outcome,
    })
}

/// Publishes groups straight to the queue, in the form that the accept role gives them.
async fn fill(rig: &Rig, place: &Place, tickets: u64) -> Result<()> {
    let broker = rig.scratch.servers.broker().await?;
    let channel = broker.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    let properties = BasicProperties::default()
        .with_content_type("application/x-ticket-group".into())
        .with_delivery_mode(2);
    let mut templates = tickets::plain("backlog-");
    let mut unconfirmed = VecDeque::new();
    let mut payload = Vec::new();
    let mut next = 0;
    while next < tickets {
        let end = tickets.min(next + GROUP_TICKETS);
        payload.clear();
        group(&mut payload, &mut templates, next..end)?;
        next = end;
        let published = channel
            .basic_publish(
                "".into(),
                place.name.as_str().into(),
                BasicPublishOptions::default(),
                &payload,
                properties.clone(),
            )
            .await?;
        unconfirmed.push_back(published);
        if unconfirmed.len() >= CONFIRMS_MAX {
            confirmed(unconfirmed.pop_front()).await?;
        }
    }
    while !unconfirmed.is_empty() {
        confirmed(unconfirmed.pop_front()).await?;
    }
    let groups = tickets.div_ceil(GROUP_TICKETS);
    rig.scratch.expect_messages(&place.name, groups).await?;
    hang_up(&broker).await;
    Ok(())
}

async fn confirmed(confirm: Option<PublisherConfirm>) -> Result<()> {
    if let Some(confirm) = confirm {
        let answer = confirm.await?;
        ensure!(
            matches!(answer, Confirmation::Ack(None)),
            "the broker did not take a group: {answer:?}"
        );
    }
    Ok(())
}

/// Appends the records of these tickets: id, time of arrival in microseconds, length, body.
fn group(
    payload: &mut Vec<u8>,
    templates: &mut [Template],
    numbers: std::ops::Range<u64>,
) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let templates_len = templates.len();
    for number in numbers {
        let template = templates.get_mut(number as usize % templates_len);
        let body = template.context("no templates")?.stamped(number);
        payload.extend_from_slice(&ticket_id(now, number).to_be_bytes());
        payload.extend_from_slice(&(now.as_micros() as i64).to_be_bytes());
        payload.extend_from_slice(&(body.len() as u32).to_be_bytes());
        payload.extend_from_slice(body);
    }
    Ok(())
}

/// A UUIDv7 that, as those of the accept role, grows with time; the number takes the place of chance.
fn ticket_id(now: Duration, number: u64) -> u128 {
    const VERSION: u128 = 7 << 76;
    const VARIANT: u128 = 2 << 62;
    (now.as_millis() & ((1 << 48) - 1)) << 80 | VERSION | VARIANT | u128::from(number)
}

/// Looks at what a process has stored until it has stored so much. Each time it lets the caller look too, who tells the
/// load generator's CPU seconds, where there is one.
async fn watch(
    admin: &Endpoint,
    pid: u32,
    tickets: u64,
    mut look: impl FnMut() -> Option<f64>,
) -> Result<Vec<Point>> {
    let started = Instant::now();
    let mut points: Vec<Point> = Vec::new();
    let mut last_growth = started;
    loop {
        let before = points.last().copied();
        let stored_before = before.map_or(0, |point| point.stored);
        let generator_before = before.map_or(0.0, |point| point.generator_seconds);
        // Just after its start it does not answer yet.
        let stored = match process::get(admin, "/metrics").await {
            Ok(page) => metrics::counter(&page, "ticketd_stored_total"),
            Err(_) => stored_before,
        };
        if stored > stored_before {
            last_growth = Instant::now();
        }
        points.push(Point {
            seconds: started.elapsed().as_secs_f64(),
            stored,
            memory_mib: proc::memory_bytes(pid, "VmHWM").unwrap_or(0) as f64 / 1048576.0,
            generator_seconds: look().unwrap_or(generator_before),
        });
        if stored >= tickets {
            return Ok(points);
        }
        ensure!(
            last_growth.elapsed() < STALL_TIMEOUT,
            "only {stored} of {tickets} tickets were stored"
        );
        sleep(WATCH_INTERVAL).await;
    }
}

/// Every ticket of the backlog must be there once.
async fn check(place: &Place, tickets: u64) -> Result<()> {
    let client = connect(&place.database_url).await?;
    let row = client
        .query_one(
            "select (select count(*) from tickets), (select count(distinct order_id) from tickets),
                    (select count(*) from dead_tickets)",
            &[],
        )
        .await?;
    let (rows, distinct, dead): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    ensure!(
        rows == distinct && distinct + dead == tickets.cast_signed(),
        "of {tickets} tickets in the backlog {distinct} are stored, in {rows} rows, and {dead} are dead"
    );
    Ok(())
}

/// How each decile of so many tickets went.
fn deciles(points: &[Point], tickets: u64) -> Option<[Decile; 10]> {
    let mut deciles = [Decile::default(); 10];
    for (decile, number) in deciles.iter_mut().zip(0..) {
        *decile = stretch(points, tickets * number / 10, tickets * (number + 1) / 10)?;
    }
    Some(deciles)
}

/// What lies between two counts; none where they were not told apart in time.
fn stretch(points: &[Point], from: u64, to: u64) -> Option<Decile> {
    let (begin, end) = (at(points, from)?, at(points, to)?);
    let tickets = (to - from) as f64;
    let seconds = end.seconds - begin.seconds;
    (seconds > 0.0).then(|| Decile {
        per_second: tickets / seconds,
        generator_us: (end.generator_seconds - begin.generator_seconds) * 1e6 / tickets,
    })
}

/// How it stood when so many tickets were stored, between two points in proportion.
fn at(points: &[Point], stored: u64) -> Option<Point> {
    // What came before the first row is the start, not the rate.
    let first_row = points.iter().position(|point| point.stored > 0)?;
    let points = points.get(first_row.saturating_sub(1)..)?;
    points.windows(2).find_map(|pair| {
        let [before, after] = pair else { return None };
        let within =
            before.stored <= stored && stored <= after.stored && before.stored < after.stored;
        let share = (stored.saturating_sub(before.stored)) as f64
            / after.stored.saturating_sub(before.stored).max(1) as f64;
        let between = |from: f64, to: f64| from + share * (to - from);
        within.then(|| Point {
            seconds: between(before.seconds, after.seconds),
            stored,
            generator_seconds: between(before.generator_seconds, after.generator_seconds),
            ..*after
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One each second, in which the generator is busy for half of it.
    fn points(stored: &[u64]) -> Vec<Point> {
        let point = |(index, stored): (usize, &u64)| Point {
            seconds: index as f64,
            stored: *stored,
            memory_mib: 0.0,
            generator_seconds: index as f64 / 2.0,
        };
        stored.iter().enumerate().map(point).collect()
    }

    #[test]
    fn a_stretch_is_told_between_the_points() {
        let points = points(&[0, 0, 100, 300, 300, 400]);
        let told = |from, to| {
            let stretch = stretch(&points, from, to)?;
            Some((stretch.per_second, stretch.generator_us))
        };
        assert_eq!(told(0, 100), Some((100.0, 5000.0)));
        assert_eq!(told(100, 300), Some((200.0, 2500.0)));
        assert_eq!(told(200, 400), Some((200.0 / 2.5, 6250.0)));
        assert_eq!(told(300, 500), None);
        assert!(stretch(&[], 0, 1).is_none());
    }

    #[test]
    fn every_decile_has_its_rate() {
        let points = points(&[0, 50, 70, 80, 90, 100]);
        let rates = [50.0, 50.0, 50.0, 50.0, 50.0, 20.0, 20.0, 10.0, 10.0, 10.0];
        for (decile, expected) in deciles(&points, 100).unwrap().iter().zip(rates) {
            let rate = decile.per_second;
            assert!((rate - expected).abs() < 1e-6, "{rate} is not {expected}");
        }
        assert!(deciles(&points, 200).is_none());
    }

    #[test]
    fn a_record_has_the_documented_form() {
        let mut payload = Vec::new();
        group(&mut payload, &mut tickets::plain("b-"), 0..2).unwrap();
        let (head, rest) = payload.split_at(28);
        assert_eq!((head[6] >> 4, head[8] >> 6), (7, 2), "version and variant");
        let length = u32::from_be_bytes(head[24..].try_into().unwrap()) as usize;
        assert!(rest.starts_with(b"Order: b-0000000000\nVAT: "));
        assert_eq!(rest[length + 15], 1, "the second id ends in its number");
        assert!(rest[length + 28..].starts_with(b"Order: b-0000000001\n"));
    }

    #[test]
    fn ids_grow_with_time_and_number() {
        let at = Duration::from_millis;
        assert!(ticket_id(at(5), 9) < ticket_id(at(5), 10));
        assert!(ticket_id(at(5), 10) < ticket_id(at(6), 0));
    }
}
