//! What an answer says of a file.

use uuid::Uuid;

use crate::client::HttpAnswer;

/// Details of ticketd's 400 that are not about the ticket: the way there broke off, and it leads to a
/// listener that speaks HTTPS.
const BROKEN_OFF: &str = "the body is incomplete";
const HTTPS_ONLY: &str = "this port speaks HTTPS";

/// What an answer says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is a ticket from here on, of this id.
    Accepted(Uuid),
    /// It will never be one.
    Rejected,
    /// It may be sent again.
    Unavailable,
    /// It is not about this file: the URL or the credential is wrong, or something in between is. A
    /// hundred thousand good files must not be set aside for that.
    Misdirected,
}

impl Verdict {
    /// Only ticketd itself says that a ticket is accepted or rejected, in its own form.
    pub(super) fn of(answer: &HttpAnswer) -> Self {
        match answer.status {
            202 => id(&answer.body).map_or(Self::Misdirected, Self::Accepted),
            408 | 425 | 429 | 500..=599 => Self::Unavailable,
            400 | 413 | 422 if answer.is_problem => Self::of_problem(&answer.detail()),
            _ => Self::Misdirected,
        }
    }

    fn of_problem(detail: &str) -> Self {
        if detail.contains(BROKEN_OFF) {
            return Self::Unavailable;
        }
        if detail.contains(HTTPS_ONLY) {
            return Self::Misdirected;
        }
        Self::Rejected
    }
}

fn id(body: &[u8]) -> Option<Uuid> {
    let accepted: serde_json::Value = serde_json::from_slice(body).ok()?;
    accepted.get("id")?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, is_problem: bool, body: &str) -> HttpAnswer {
        HttpAnswer {
            status,
            body: body.to_owned().into(),
            is_problem,
            retry_after: None,
        }
    }

    fn of_problem(status: u16, detail: &str) -> Verdict {
        let document = format!("{{\"detail\":\"{detail}\"}}");
        Verdict::of(&answer(status, true, &document))
    }

    #[test]
    fn only_ticketds_own_words_accept_a_file() {
        let id = Uuid::from_u128(7);
        let accepted = Verdict::of(&answer(202, false, &format!("{{\"id\":\"{id}\"}}")));
        assert_eq!(accepted, Verdict::Accepted(id));
        for body in ["", "queued", "{}", "{\"id\":7}", "{\"id\":\"7\"}"] {
            let verdict = Verdict::of(&answer(202, false, body));
            assert_eq!(verdict, Verdict::Misdirected, "{body}");
        }
        for status in [200, 201, 204, 301, 302, 307] {
            let verdict = Verdict::of(&answer(status, false, "{}"));
            assert_eq!(verdict, Verdict::Misdirected, "{status}");
        }
    }

    #[test]
    fn what_is_about_the_file_sets_it_aside() {
        for (status, detail) in [
            (400, "the ticket is empty"),
            (400, "the ticket is not valid UTF-8"),
            (413, "a ticket has at most 65536 bytes"),
            (422, "anything"),
        ] {
            assert_eq!(of_problem(status, detail), Verdict::Rejected, "{detail}");
            // A gateway says so, which has not looked at it.
            let verdict = Verdict::of(&answer(status, false, detail));
            assert_eq!(verdict, Verdict::Misdirected, "{detail}");
        }
    }

    #[test]
    fn what_passes_is_waited_for() {
        for status in [408, 425, 429, 500, 502, 503, 504] {
            for is_problem in [true, false] {
                let verdict = Verdict::of(&answer(status, is_problem, ""));
                assert_eq!(verdict, Verdict::Unavailable, "{status}");
            }
        }
        assert_eq!(of_problem(400, BROKEN_OFF), Verdict::Unavailable);
    }

    #[test]
    fn what_is_about_the_way_sets_nothing_aside() {
        for status in [401, 403, 404, 405, 407, 411, 415, 421, 426, 431, 451] {
            assert_eq!(of_problem(status, "x"), Verdict::Misdirected, "{status}");
        }
        let https = "this port speaks HTTPS (TLS_CERT is set), and was spoken to without TLS";
        assert_eq!(of_problem(400, https), Verdict::Misdirected);
    }
}
