//! Reads the metrics page of ticketd.

/// The value of one series, which is said by its name with its labels as written there.
pub fn metric(page: &str, series: &str) -> Option<f64> {
    page.lines().find_map(|line| {
        line.strip_prefix(series)?
            .strip_prefix(' ')?
            .trim()
            .parse()
            .ok()
    })
}

/// The sum of a counter over all its labels.
pub fn counter(page: &str, name: &str) -> u64 {
    samples(page, name).map(|(_, value)| value as u64).sum()
}

/// The upper bound of the histogram's bucket that holds this quantile; none when nothing was recorded.
pub fn quantile_bound(page: &str, name: &str, quantile: f64) -> Option<f64> {
    let (_, count) = samples(page, &format!("{name}_count")).next()?;
    let rank = (count * quantile).max(1.0);
    samples(page, &format!("{name}_bucket")).find_map(|(labels, below)| {
        let (_, bound) = labels.split_once("le=\"")?;
        let (bound, _) = bound.split_once('"')?;
        // "+Inf" is read as infinity.
        (below >= rank).then(|| bound.parse().ok())?
    })
}

/// Labels and value of each line of exactly this name.
fn samples<'a>(page: &'a str, name: &str) -> impl Iterator<Item = (&'a str, f64)> {
    page.lines().filter_map(move |line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = rest.rsplit_once(' ')?;
        let exact = labels.is_empty() || labels.starts_with('{');
        exact.then_some((labels, value.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# TYPE stored_total counter\n\
        stored_total{result=\"valid\"} 7\nstored_total{result=\"dead\"} 2\nstored_total_other 9\n\n\
        wait_seconds_bucket{le=\"0.005\"} 90\nwait_seconds_bucket{le=\"0.01\"} 99\n\
        wait_seconds_bucket{le=\"+Inf\"} 100\nwait_seconds_sum 1.5\nwait_seconds_count 100\n";

    #[test]
    fn a_counter_is_summed_over_its_labels() {
        assert_eq!(counter(PAGE, "stored_total"), 9);
        assert_eq!(counter(PAGE, "stored"), 0);
    }

    #[test]
    fn a_quantile_is_bounded_by_its_bucket() {
        let bound = |quantile| quantile_bound(PAGE, "wait_seconds", quantile);
        assert_eq!(bound(0.5), Some(0.005));
        assert_eq!(bound(0.99), Some(0.01));
        assert_eq!(bound(0.999), Some(f64::INFINITY));
        assert_eq!(quantile_bound(PAGE, "absent", 0.5), None);
    }
}
