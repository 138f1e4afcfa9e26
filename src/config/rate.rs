//! How fast a source may send.

/// The most tickets a second, and at once, that a limit may say.
const RATE_MAX: u32 = 1_000_000;

/// How many tickets a source may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Tickets a second, 1 to 1,000,000.
    pub per_second: u32,
    /// Tickets at once after a pause, 1 to 1,000,000.
    pub burst: u32,
}

/// Reads a limit: `100/s:200`, or `100/s` for as many at once as in a second.
pub(super) fn rate_limit(text: &str) -> Result<RateLimit, &'static str> {
    let number = |text: &str| {
        let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|_| is_digits);
        number.filter(|number| (1..=RATE_MAX).contains(number))
    };
    let (rate, burst) = text
        .split_once(':')
        .map_or((text, None), |(rate, burst)| (rate, Some(burst)));
    let per_second = rate.strip_suffix("/s").and_then(number);
    let burst = burst.map_or(per_second, number);
    match (per_second, burst) {
        (Some(per_second), Some(burst)) => Ok(RateLimit { per_second, burst }),
        _ => {
            Err("a rate is written like 100/s:200, tickets a second and at once, each 1 to 1000000")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_has_a_unit_and_bounds() {
        let limit = |per_second, burst| Ok(RateLimit { per_second, burst });
        assert_eq!(rate_limit("100/s:200"), limit(100, 200));
        assert_eq!(rate_limit("100/s"), limit(100, 100));
        assert_eq!(rate_limit("1/s:1000000"), limit(1, 1_000_000));
        for wrong in [
            "",
            "100",
            "100/m",
            "/s",
            "0/s",
            "1/s:0",
            "1/s:",
            "1000001/s",
            "1/s:1000001",
            "+1/s",
            "1/s:+1",
            "-1/s",
            "1.5/s",
            "1/s:1:1",
            " 1/s",
            "99999999999999999999/s",
        ] {
            assert!(rate_limit(wrong).is_err(), "{wrong:?}");
        }
    }
}
