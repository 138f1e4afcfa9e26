//! When the tickets of a message were received, as far as its producer can be believed.

use std::time::{Duration, Instant};

use lapin::BasicProperties;
use tracing::warn;

use super::headers::{Misread, whole_number};
use crate::message::{self, GroupVersion, RECEIVED_AT};

/// Clocks that differ by less count as equal.
const TOLERATED_US: i64 = 1_000_000;

/// A producer that is wrong is so with every message: it is logged no more often.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// What is wrong with the times of receipt of a message, and with other headers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Anomaly {
    /// How many tickets were received in the future, by more than clocks may differ.
    pub ahead: u64,
    /// By how much at most, in µs.
    pub ahead_us: i64,
    /// A header that was of no use.
    pub misread: Option<Misread>,
}

impl Anomaly {
    /// Adds the time of one ticket.
    fn add(&mut self, received_at_us: i64, now_us: i64) {
        let ahead_us = received_at_us.saturating_sub(now_us);
        if ahead_us > TOLERATED_US {
            self.ahead += 1;
            self.ahead_us = self.ahead_us.max(ahead_us);
        }
    }

    /// What a header says; adds it if it could not be read.
    pub(super) fn header<T>(&mut self, read: Result<Option<T>, Misread>) -> Option<T> {
        read.unwrap_or_else(|misread| {
            self.misread = Some(misread);
            None
        })
    }
}

/// When the ticket of a message was received, but not later than now: what came later would never
/// count as newer.
pub(super) fn of_ticket(properties: &BasicProperties, now_us: i64) -> (i64, Anomaly) {
    let mut anomaly = Anomaly::default();
    let claimed = anomaly.header(whole_number(properties, RECEIVED_AT));
    let claimed = claimed.or_else(|| {
        let seconds = i64::try_from((*properties.timestamp())?).unwrap_or(i64::MAX);
        Some(seconds.saturating_mul(1_000_000))
    });
    let received_at_us = claimed.unwrap_or(now_us);
    anomaly.add(received_at_us, now_us);
    (received_at_us.min(now_us), anomaly)
}

/// When the first ticket of a group was received, but not later than now, and what is wrong with the
/// times of all.
pub(super) fn of_group(version: GroupVersion, group: &[u8], now_us: i64) -> (i64, Anomaly) {
    let (mut oldest_us, mut anomaly) = (now_us, Anomaly::default());
    for record in message::records(version, group) {
        oldest_us = oldest_us.min(record.received_at_us);
        anomaly.add(record.received_at_us, now_us);
    }
    (oldest_us, anomaly)
}

/// What was wrong with the times of many messages, logged in a line or two for all of them.
#[derive(Debug, Default)]
pub(super) struct AnomalyLog {
    sum: Anomaly,
    misread: u64,
    logged: Option<Instant>,
}

impl AnomalyLog {
    /// Adds a message's.
    pub(super) fn add(&mut self, anomaly: Anomaly) {
        self.sum.ahead += anomaly.ahead;
        self.sum.ahead_us = self.sum.ahead_us.max(anomaly.ahead_us);
        self.sum.misread = self.sum.misread.or(anomaly.misread);
        self.misread += u64::from(anomaly.misread.is_some());
    }

    /// Logs what there is, unless it did so just before.
    pub(super) fn log(&mut self, now: Instant) {
        let waits = |logged: Instant| now.saturating_duration_since(logged) < LOG_EVERY;
        if self.sum != Anomaly::default() && !self.logged.is_some_and(waits) {
            self.flush();
            self.logged = Some(now);
        }
    }

    /// Logs what there is.
    pub(super) fn flush(&mut self) {
        let Anomaly {
            ahead,
            ahead_us,
            misread,
        } = std::mem::take(&mut self.sum);
        if ahead > 0 {
            let maximum = Duration::from_secs(ahead_us.unsigned_abs() / 1_000_000);
            warn!(
                tickets = ahead,
                ahead = ?maximum,
                "tickets were received in the future and count as received now: \
                 a producer's clock is wrong, or this one"
            );
        }
        let messages = std::mem::take(&mut self.misread);
        if let Some(Misread { header, kind }) = misread {
            warn!(
                messages,
                header,
                r#type = ?kind,
                "a header is not of its documented form, and was not used"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::types::{AMQPType, AMQPValue, FieldTable};

    const NOW_US: i64 = 1_700_000_000_000_000;

    fn with_header(value: AMQPValue) -> BasicProperties {
        let mut headers = FieldTable::default();
        headers.insert(RECEIVED_AT.into(), value);
        BasicProperties::default()
            .with_headers(headers)
            .with_timestamp(3)
    }

    fn time(properties: &BasicProperties) -> i64 {
        of_ticket(properties, NOW_US).0
    }

    #[test]
    fn the_header_counts_before_the_timestamp_and_that_before_now() {
        let header = with_header(AMQPValue::LongLongInt(42));
        assert_eq!(of_ticket(&header, NOW_US), (42, Anomaly::default()));
        let seconds = BasicProperties::default().with_timestamp(3);
        assert_eq!(of_ticket(&seconds, NOW_US), (3_000_000, Anomaly::default()));
        let bare = BasicProperties::default();
        assert_eq!(of_ticket(&bare, NOW_US), (NOW_US, Anomaly::default()));
    }

    #[test]
    fn no_ticket_is_received_later_than_now() {
        let mut cases = vec![(i64::MAX, 1), (NOW_US + TOLERATED_US + 1, 1)];
        cases.extend([(NOW_US + TOLERATED_US, 0), (NOW_US + 1, 0)]);
        for (claimed_us, ahead) in cases {
            let header = with_header(AMQPValue::LongLongInt(claimed_us));
            let (received_at_us, anomaly) = of_ticket(&header, NOW_US);
            assert_eq!(
                (received_at_us, anomaly.ahead),
                (NOW_US, ahead),
                "{claimed_us}"
            );
            let maximum_us = if ahead > 0 { claimed_us - NOW_US } else { 0 };
            assert_eq!(anomaly.ahead_us, maximum_us);
        }
        let far = BasicProperties::default().with_timestamp(u64::MAX);
        assert_eq!(time(&far), NOW_US);
    }

    #[test]
    fn any_time_that_has_passed_is_kept() {
        for claimed_us in [i64::MIN, i64::MIN + 1, -1, 0, NOW_US - 1, NOW_US] {
            let header = with_header(AMQPValue::LongLongInt(claimed_us));
            assert_eq!(of_ticket(&header, NOW_US), (claimed_us, Anomaly::default()));
        }
    }

    #[test]
    fn whole_numbers_of_any_type_are_taken_and_other_types_reported() {
        let numbers = [
            (AMQPValue::LongInt(-7), -7),
            (AMQPValue::LongUInt(u32::MAX), 4_294_967_295),
            (AMQPValue::ShortInt(-7), -7),
            (AMQPValue::ShortUInt(7), 7),
            (AMQPValue::ShortShortInt(-7), -7),
            (AMQPValue::ShortShortUInt(7), 7),
        ];
        for (value, us) in numbers {
            assert_eq!(
                of_ticket(&with_header(value), NOW_US),
                (us, Anomaly::default())
            );
        }
        for value in [
            AMQPValue::LongString("42".into()),
            AMQPValue::Timestamp(42),
            AMQPValue::Double(42.0),
            AMQPValue::Boolean(true),
            AMQPValue::Void,
        ] {
            let anomaly = Anomaly {
                misread: Some(Misread {
                    header: RECEIVED_AT,
                    kind: value.get_type(),
                }),
                ..Anomaly::default()
            };
            assert_eq!(of_ticket(&with_header(value), NOW_US), (3_000_000, anomaly));
        }
    }

    #[test]
    fn anomalies_are_added_up_and_logged_now_and_then() {
        let now = Instant::now();
        let mut anomalies = AnomalyLog::default();
        let anomaly = Anomaly {
            ahead: 2,
            ahead_us: 5_000_000,
            misread: Some(Misread {
                header: RECEIVED_AT,
                kind: AMQPType::Void,
            }),
        };
        anomalies.add(anomaly);
        anomalies.add(Anomaly::default());
        assert_eq!((anomalies.sum, anomalies.misread), (anomaly, 1));
        anomalies.log(now);
        assert_eq!((anomalies.sum, anomalies.misread), (Anomaly::default(), 0));
        anomalies.add(anomaly);
        anomalies.log(now + LOG_EVERY / 2);
        anomalies.add(anomaly);
        assert_eq!((anomalies.sum.ahead, anomalies.misread), (4, 2), "not yet");
        anomalies.log(now + LOG_EVERY);
        assert_eq!(anomalies.sum, Anomaly::default());
    }
}
