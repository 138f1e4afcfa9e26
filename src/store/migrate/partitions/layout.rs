//! Which partitions `tickets` has, and which are to be made. Pure.
//!
//! Partitions cover all ids, so that none is missing for any: whoever sends a key chooses the time in
//! its id. From the smallest id on:
//!
//! - `tickets_before_2020`: ids of most keys, which are random, and of no time;
//! - `tickets_past`: from 2020 until the first of the next;
//! - `tickets_20261128` and so on: a span of time each, made ahead of it;
//! - `tickets_until_2030` and so on: what is left of each decade. From the first of these the next spans
//!   of time are cut off;
//! - `tickets_from_2100`: once more ids of keys.

use std::ops::Range;

use chrono::DateTime;
use uuid::Uuid;

/// 2020, in ms since the Unix epoch: no ticket has an id of an earlier time.
const FIRST_MS: u64 = 1_577_836_800_000;

/// The decades, by the year that they end with, and when that begins.
const DECADES: [(u16, u64); 8] = [
    (2030, 1_893_456_000_000),
    (2040, 2_208_988_800_000),
    (2050, 2_524_608_000_000),
    (2060, 2_840_140_800_000),
    (2070, 3_155_760_000_000),
    (2080, 3_471_292_800_000),
    (2090, 3_786_912_000_000),
    (2100, 4_102_444_800_000),
];

/// Maximum number of partitions of one span that are made at once.
pub(super) const MADE_MAX: usize = 500;

/// Spans begin on a Monday, where they are weeks: as many ms after the Unix epoch.
const MONDAY_MS: u64 = 4 * 86_400_000;

/// A partition, by its name and the times of its ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Partition {
    /// Its name.
    pub name: String,
    /// The first time, in ms since the Unix epoch; none without a bound.
    pub from_ms: Option<u64>,
    /// The time after its last, likewise.
    pub to_ms: Option<u64>,
    /// How many rows it has, as far as PostgreSQL knows.
    pub rows: i64,
    /// Its size with indexes.
    pub bytes: i64,
}

/// What a partition is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Ids of no time.
    Timeless,
    /// Times of before all spans.
    Past,
    /// A span of time.
    Span,
    /// What is left of a decade.
    Rest,
    /// It is not of ticketd's making.
    Other,
}

/// Spans of time that are to be cut off from what is left of a decade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cut {
    /// What they are cut off from.
    pub rest: Partition,
    /// The spans, one after the other. The first takes the table of the rest with it if it has begun
    /// already, as its tickets are there.
    pub spans: Vec<Range<u64>>,
    /// Whether it has begun.
    pub has_begun: bool,
}

impl Partition {
    fn new(name: String, from_ms: Option<u64>, to_ms: Option<u64>) -> Self {
        Self {
            name,
            from_ms,
            to_ms,
            rows: 0,
            bytes: 0,
        }
    }

    /// A span of time.
    pub(super) fn span(span: &Range<u64>) -> Self {
        let name = format!("tickets_{}", stamp(span.start));
        Self::new(name, Some(span.start), Some(span.end))
    }

    /// What it is for.
    pub(super) fn part(&self) -> Part {
        let name = self.name.strip_prefix("tickets_").unwrap_or_default();
        match (self.from_ms, self.to_ms) {
            (None, Some(_)) if name == "before_2020" => Part::Timeless,
            (Some(_), None) if name == "from_2100" => Part::Timeless,
            (Some(FIRST_MS), Some(_)) if name == "past" => Part::Past,
            (Some(_), Some(_)) if name.starts_with("until_") => Part::Rest,
            (Some(from), Some(_)) if name == stamp(from) => Part::Span,
            _ => Part::Other,
        }
    }

    /// `for values from … to …`.
    pub(super) fn bounds(&self) -> String {
        let bound = |ms: Option<u64>, open| match ms {
            Some(ms) => format!("'{}'", first_id(ms)),
            None => String::from(open),
        };
        let (from, to) = (
            bound(self.from_ms, "minvalue"),
            bound(self.to_ms, "maxvalue"),
        );
        format!("for values from ({from}) to ({to})")
    }
}

/// The smallest id of a time.
pub(super) fn first_id(ms: u64) -> Uuid {
    Uuid::from_u128(u128::from(ms) << 80)
}

/// The time of a bound; none if it lies between two times.
pub(super) fn time_of(id: Uuid) -> Option<u64> {
    let ms = u64::try_from(id.as_u128() >> 80).ok()?;
    (first_id(ms) == id).then_some(ms)
}

/// The time that a partition is named by: to the minute, unless it is a day.
fn stamp(ms: u64) -> String {
    let form = match ms % 86_400_000 {
        0 => "%Y%m%d",
        _ => "%Y%m%dt%H%M",
    };
    let time = i64::try_from(ms)
        .ok()
        .and_then(DateTime::from_timestamp_millis);
    time.map_or_else(|| ms.to_string(), |time| time.format(form).to_string())
}

/// The end of the span of that width that a time lies in.
fn end_of_span(ms: u64, width_ms: u64) -> u64 {
    let since = ms.saturating_sub(MONDAY_MS);
    MONDAY_MS + (since / width_ms + 1) * width_ms
}

/// All partitions of a table whose first id is of a time: spans of that width from there on until one
/// ends after `until_ms`. None: these are more than [`MADE_MAX`].
pub(super) fn all(first_ms: u64, until_ms: u64, width_ms: u64) -> Option<Vec<Partition>> {
    let first_ms = first_ms.clamp(FIRST_MS, until_ms);
    let begin = end_of_span(first_ms, width_ms)
        .saturating_sub(width_ms)
        .max(FIRST_MS + 1);
    let spans = spans(begin, until_ms, width_ms, u64::MAX);
    let horizon = spans.last().map_or(begin, |span| span.end);
    if spans.len() > MADE_MAX {
        return None;
    }
    let named = |name: &str, from, to| Partition::new(format!("tickets_{name}"), from, to);
    let mut all = vec![
        named("before_2020", None, Some(FIRST_MS)),
        named("past", Some(FIRST_MS), Some(begin)),
    ];
    all.extend(spans.iter().map(Partition::span));
    let mut from = horizon;
    for (year, end) in DECADES.into_iter().filter(|(_, end)| *end > horizon) {
        all.push(named(&format!("until_{year}"), Some(from), Some(end)));
        from = end;
    }
    all.push(named("from_2100", Some(from), None));
    Some(all)
}

/// Spans from a time on, until one ends after another, or with the end.
fn spans(begin: u64, until_ms: u64, width_ms: u64, end_ms: u64) -> Vec<Range<u64>> {
    let mut spans = Vec::new();
    let mut from = begin;
    while (spans.is_empty() || from < until_ms) && from < end_ms && spans.len() <= MADE_MAX {
        let end = end_of_span(from, width_ms).min(end_ms);
        spans.push(from..end);
        from = end;
    }
    spans
}

/// Until when there are spans of time; none where the partitions are not of ticketd's making.
pub(super) fn horizon(partitions: &[Partition]) -> Option<u64> {
    let mut rests = partitions.iter().filter(|of| of.part() == Part::Rest);
    rests.next().and_then(|rest| rest.from_ms)
}

/// What is to be cut off for there to be spans until a time; none if there are.
pub(super) fn cut(
    partitions: &[Partition],
    now_ms: u64,
    until_ms: u64,
    width_ms: u64,
) -> Option<Cut> {
    let mut rests = partitions.iter().filter(|of| of.part() == Part::Rest);
    let rest = rests.next()?;
    let (from, end_ms) = (rest.from_ms?, rest.to_ms?);
    let has_begun = from <= now_ms;
    let mut next = from;
    let mut cut = Vec::new();
    if has_begun {
        next = end_of_span(now_ms, width_ms).min(end_ms);
        cut.push(from..next);
    }
    if next < until_ms && next < end_ms {
        cut.extend(spans(next, until_ms, width_ms, end_ms));
    }
    (!cut.is_empty()).then(|| Cut {
        rest: rest.clone(),
        spans: cut,
        has_begun,
    })
}

impl Cut {
    /// The statements, of one transaction, in which nobody else uses the table.
    pub(super) fn statements(&self, schema: &str) -> String {
        let table = |name: &str| format!("{schema}.{name}");
        let (tickets, rest) = (table("tickets"), table(&self.rest.name));
        let spans: Vec<_> = self.spans.iter().map(Partition::span).collect();
        let left = self.left();
        let mut script = format!("alter table {tickets} detach partition {rest};\n");
        let begun = spans.first().filter(|_| self.has_begun);
        let source = begun.map_or_else(|| rest.clone(), |first| table(&first.name));
        if let Some(first) = begun {
            script += &format!("alter table {rest} rename to {};\n", first.name);
        }
        let made = spans.iter().skip(usize::from(self.has_begun));
        for partition in made.chain(left.as_ref().filter(|_| self.has_begun)) {
            let path = table(&partition.name);
            script += &make(&tickets, &path);
            script += &move_rows(&source, &path, partition);
        }
        for partition in spans.iter().chain(&left) {
            script += &attach(&tickets, &table(&partition.name), partition);
        }
        if left.is_none() && !self.has_begun {
            script += &format!("drop table {rest};\n");
        }
        script
    }

    /// What is left of the decade after them, if anything is.
    fn left(&self) -> Option<Partition> {
        let from_ms = self.spans.last().map(|span| span.end);
        (from_ms != self.rest.to_ms).then(|| Partition {
            from_ms,
            ..self.rest.clone()
        })
    }
}

/// Makes a table that can be a partition of another one.
pub(super) fn make(parent: &str, table: &str) -> String {
    let like = "including defaults including constraints including storage";
    format!("create table {table} (like {parent} {like});\n")
}

/// Moves what belongs to a partition.
fn move_rows(from: &str, to: &str, partition: &Partition) -> String {
    let bound = |ms: Option<u64>| first_id(ms.unwrap_or_default());
    let (begin, end) = (bound(partition.from_ms), bound(partition.to_ms));
    format!(
        "with moved as (delete from {from} where ticket_id >= '{begin}' and ticket_id < '{end}' returning *) \
         insert into {to} select * from moved;\n"
    )
}

/// Makes it a partition.
pub(super) fn attach(parent: &str, table: &str, partition: &Partition) -> String {
    let bounds = partition.bounds();
    format!("alter table {parent} attach partition {table} {bounds};\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: u64 = 86_400_000;

    /// Each begins where the one before ends, and nothing is left out.
    fn assert_complete(partitions: &[Partition]) {
        let bounds = |of: &Partition| (of.from_ms, of.to_ms);
        let mut end = None;
        for partition in partitions {
            assert_eq!(bounds(partition).0, end, "{partitions:#?}");
            end = bounds(partition).1;
        }
        assert_eq!(end, None);
        let names: std::collections::HashSet<_> = partitions.iter().map(|of| &of.name).collect();
        assert_eq!(names.len(), partitions.len());
        assert!(partitions.iter().all(|of| of.part() != Part::Other));
    }

    /// What is there after a cut, in order.
    fn after(partitions: &[Partition], cut: &Cut) -> Vec<Partition> {
        let others = partitions.iter().filter(|of| **of != cut.rest).cloned();
        let mut all: Vec<_> = others
            .chain(cut.spans.iter().map(Partition::span))
            .chain(cut.left())
            .collect();
        all.sort_by_key(|of| of.from_ms);
        all
    }

    #[test]
    fn a_week_begins_on_monday_and_a_name_says_when() {
        let now = 1_795_780_800_000;
        let all = all(now, now + 7 * DAY, 7 * DAY).expect("few");
        let names: Vec<_> = all.iter().map(|of| of.name.as_str()).collect();
        assert_eq!(
            names.get(..5),
            Some(
                [
                    "tickets_before_2020",
                    "tickets_past",
                    "tickets_20261123",
                    "tickets_20261130",
                    "tickets_until_2030"
                ]
                .as_slice()
            )
        );
        assert_eq!(names.len(), 13);
        assert_eq!(stamp(now + 90 * 60_000), "20261127t1330");
    }

    #[test]
    fn a_span_that_has_begun_keeps_its_table() {
        let day = |n: u64| (20_000 + n) * DAY;
        let rest = Partition {
            name: "tickets_until_2030".into(),
            from_ms: Some(day(1)),
            to_ms: Some(day(10)),
            rows: 0,
            bytes: 0,
        };
        let rest = std::slice::from_ref(&rest);
        let has_begun = cut(rest, day(2), day(2), DAY).expect("late");
        assert!(has_begun.has_begun);
        let span = has_begun.spans.first().cloned();
        assert_eq!((span, has_begun.spans.len()), (Some(day(1)..day(3)), 1));
        let script = has_begun.statements("s");
        let renamed = "alter table s.tickets_until_2030 rename to tickets_20241005;";
        assert!(script.contains(renamed), "{script}");
        let ahead = cut(rest, day(0), day(12), DAY).expect("wanted");
        assert_eq!(ahead.spans.len(), 9);
        let script = ahead.statements("s");
        assert!(script.ends_with("drop table s.tickets_until_2030;\n"));
    }

    proptest! {
        #[test]
        fn no_id_is_left_out_whatever_is_cut_off(
            first in 0..3_000_000_000_000_u64, days in 1..2_000_u64, width_days in 1..366_u64,
            nows in prop::collection::vec(0..4_000_u64, 1..9),
        ) {
            let (until, width) = (first + days * DAY, width_days * DAY);
            let until = until.clamp(FIRST_MS + DAY, 4_102_444_800_000 - 400 * DAY);
            let Some(mut partitions) = all(first, until, width) else { return Ok(()) };
            assert_complete(&partitions);
            let mut now = until;
            for later in nows {
                now = (now + later * DAY).min(4_102_444_800_000 - 400 * DAY);
                for _ in 0..12 {
                    let Some(cut) = cut(&partitions, now, now + 7 * DAY, width) else { break };
                    partitions = after(&partitions, &cut);
                    assert_complete(&partitions);
                }
                prop_assert!(horizon(&partitions) >= Some(now + 7 * DAY) || partitions.len() > MADE_MAX);
            }
        }
    }
}
