//! How old an answer may be.

use std::time::Duration;

use hyper::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue};

use super::response::{FullResponse, with};

/// The oldest answer that is given to anyone, whatever age they are content with.
pub(crate) const AGE_MAX: Duration = Duration::from_secs(10);

/// [Server-Timing](https://www.w3.org/TR/server-timing/), which has milliseconds, as `Age` has not.
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// The age that the client is content with: that of `Cache-Control: max-age=N`, N in seconds
/// (RFC 9111 section 5.2.1.1), up to [`AGE_MAX`]. 0 where it says nothing, or nothing readable.
pub(super) fn acceptable_age(headers: &HeaderMap) -> Duration {
    let values = headers.get_all(CACHE_CONTROL);
    let mut directives = values
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|directive| directive.trim().split_once('='));
    let age = directives
        .find(|(name, _)| name.eq_ignore_ascii_case("max-age"))
        .and_then(|(_, seconds)| seconds.parse().ok())
        .map_or(Duration::ZERO, Duration::from_secs);
    age.min(AGE_MAX)
}

/// The response with how old its content is.
pub(super) fn aged(response: FullResponse, age: Duration) -> FullResponse {
    let timing = format!("age;dur={}", age.as_millis());
    match HeaderValue::from_str(&timing) {
        Ok(timing) => with(response, (SERVER_TIMING, timing)),
        Err(_) => response,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_read_from_cache_control() {
        for (values, seconds) in [
            (&[][..], 0),
            (&["max-age=1"], 1),
            (&["no-transform, Max-Age=3"], 3),
            (&["no-transform", "max-age=2,max-age=9"], 2),
            (&["max-age=3600"], 10),
            (&["max-age=0"], 0),
            (&["no-cache"], 0),
            (&["max-age"], 0),
            (&["max-age=-1"], 0),
            (&["max-age=99999999999999999999"], 0),
            (&["s-maxage=5"], 0),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CACHE_CONTROL, HeaderValue::from_static(value));
            }
            let age = acceptable_age(&headers);
            assert_eq!(age, Duration::from_secs(seconds), "{values:?}");
        }
    }
}
