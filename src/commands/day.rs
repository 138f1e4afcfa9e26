//! `ticketd day`: what each source sent on a day of business, and what may be missing or wrong there.

use std::io::Write;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::config::{DayFormat, DaySettings};
use crate::store::{DayError, TicketDays};

/// Tells of a day, source by source. It finds what to look at, and decides nothing.
pub async fn day(settings: &DaySettings, out: &mut impl Write) -> anyhow::Result<()> {
    let database = settings.database.config().map_err(anyhow::Error::msg);
    let days = TicketDays::connect(&database.context("DATABASE_URL")?).await;
    let days = days.context("DATABASE_URL")?;
    let day = &settings.day;
    let found = days.day(day, settings.source.as_ref(), &settings.vat_max);
    let found = match found.await {
        Ok(found) => found,
        Err(DayError::UnknownZone) => {
            bail!(
                "BUSINESS_TZ: PostgreSQL knows no time zone {:?}",
                day.zone.zone
            )
        }
        Err(DayError::Store(error)) => return Err(error).context("DATABASE_URL"),
    };
    let name = format!("{} ({})", day.date, day.zone.zone);
    if found.is_empty() && settings.format == DayFormat::Text {
        writeln!(out, "{name}: no tickets")?;
    }
    for mut source in found {
        if settings.format == DayFormat::Text {
            write_text(&name, &source, out)?;
        } else if let Some(object) = source.as_object_mut() {
            object.insert("day".into(), day.date.clone().into());
            object.insert("time_zone".into(), day.zone.zone.clone().into());
            writeln!(out, "{source}")?;
        }
    }
    Ok(())
}

fn write_text(day: &str, of: &Value, out: &mut impl Write) -> anyhow::Result<()> {
    let at = |pointer: &str| text(of, pointer);
    let (source, tickets) = (at("/source"), at("/tickets"));
    let (valid, invalid) = (at("/valid"), at("/invalid"));
    writeln!(
        out,
        "{day}, {source}: {tickets} tickets, {valid} valid, {invalid} invalid"
    )?;
    writeln!(out, "  total {}, VAT {}", at("/total"), at("/vat"))?;
    for end in ["first", "last"] {
        let order = at(&format!("/{end}/order_id"));
        writeln!(
            out,
            "  {end} order {order} at {}",
            at(&format!("/{end}/at"))
        )?;
    }
    writeln!(out, "  missing order ids: {}", missing(of))?;
    let late = match number(of, "/late/count") {
        0 => "0".to_owned(),
        count => format!("{count}, by up to {}", ago(of, "/late/by_seconds")),
    };
    writeln!(out, "  late: {late}")?;
    let doubles = list(of, "/doubles", number(of, "/doubles/orders"), double);
    writeln!(
        out,
        "  suspected doubles: {}{doubles}",
        at("/doubles/count")
    )?;
    let count = number(of, "/implausible_vat/count");
    let vat = list(of, "/implausible_vat", count, implausible);
    writeln!(out, "  implausible VAT: {count}{vat}")?;
    Ok(())
}

fn missing(of: &Value) -> String {
    if number(of, "/numbered") == 0 {
        return "not known, as none is a number".to_owned();
    }
    let (count, ranges) = (number(of, "/missing/count"), number(of, "/missing/ranges"));
    let told = list(of, "/missing", ranges, |range| {
        let (from, to) = (text(range, "/from"), text(range, "/to"));
        if from == to {
            from
        } else {
            format!("{from}-{to}")
        }
    });
    format!("{count}{told}")
}

fn double(of: &Value) -> String {
    let (order, times) = (text(of, "/order_id"), text(of, "/times"));
    format!("{order} ({times} times {})", text(of, "/total"))
}

fn implausible(of: &Value) -> String {
    let (vat, total) = (text(of, "/vat"), text(of, "/total"));
    format!("{} ({vat} of {total})", text(of, "/order_id"))
}

/// The first of a list, behind a colon, and whether there are more of them.
fn list(of: &Value, name: &str, entries: u64, told: impl Fn(&Value) -> String) -> String {
    let first = of
        .pointer(&format!("{name}/first"))
        .and_then(Value::as_array);
    let told: Vec<_> = first.into_iter().flatten().map(told).collect();
    let more = if entries > told.len() as u64 {
        ", …"
    } else {
        ""
    };
    if told.is_empty() {
        return String::new();
    }
    format!(": {}{more}", told.join(", "))
}

fn number(of: &Value, pointer: &str) -> u64 {
    of.pointer(pointer)
        .and_then(Value::as_u64)
        .unwrap_or_default()
}

/// A value for people: `-` where there is none, and nothing that a terminal would obey.
pub(super) fn text(of: &Value, pointer: &str) -> String {
    match of.pointer(pointer) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.replace(char::is_control, "\u{fffd}"),
        Some(value) => value.to_string(),
    }
}

/// A number of seconds for people, in its two largest units.
pub(super) fn ago(of: &Value, pointer: &str) -> String {
    let seconds = number(of, pointer);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, ..) => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn seconds_are_told_in_two_units() {
        for (seconds, told) in [
            (0, "0s"),
            (59, "59s"),
            (61, "1m 1s"),
            (3599, "59m 59s"),
            (7260, "2h 1m"),
            (90_000, "1d 1h"),
        ] {
            assert_eq!(ago(&json!({ "s": seconds }), "/s"), told);
        }
    }

    #[test]
    fn a_list_says_that_there_are_more() {
        let two = json!({"x": {"first": ["a", "b\u{1b}"]}});
        let told = |value: &Value| text(value, "");
        assert_eq!(list(&two, "/x", 2, told), ": a, b\u{fffd}");
        assert_eq!(list(&two, "/x", 3, told), ": a, b\u{fffd}, …");
        assert_eq!(list(&json!({"x": {"first": []}}), "/x", 0, told), "");
    }
}
