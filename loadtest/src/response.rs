//! The little of HTTP/1.1 that an answer to a POST needs: status line, Content-Length, Connection.

use memchr::memchr;

/// What the bytes received so far amount to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// The answer has not arrived in full.
    Partial,
    /// One whole answer and nothing after it.
    Complete(Answer),
    /// Not an answer that this client understands.
    Malformed,
}

/// A whole answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The status code.
    pub(crate) status: u16,
    /// Whether the server closes the connection after it.
    pub(crate) close: bool,
}

/// Reads one answer. Bytes after it are malformed: no request is outstanding that they could answer.
#[expect(
    clippy::indexing_slicing,
    reason = "each place was found in the bytes that are cut there"
)]
pub(crate) fn parse(bytes: &[u8]) -> Parsed {
    let Some(line_end) = memchr(b'\n', bytes) else {
        return Parsed::Partial;
    };
    let Some(status) = status_code(&bytes[..line_end]) else {
        return Parsed::Malformed;
    };
    let mut position = line_end + 1;
    let mut body_bytes = None;
    let mut close = false;
    loop {
        let rest = &bytes[position..];
        let Some(length) = memchr(b'\n', rest) else {
            return Parsed::Partial;
        };
        position += length + 1;
        let line = rest[..length].trim_ascii_end();
        if line.is_empty() {
            break;
        }
        // Most headers are told apart by their first letter alone.
        if !matches!(line[0], b'c' | b'C' | b't' | b'T') {
            continue;
        }
        let Some(colon) = memchr(b':', line) else {
            return Parsed::Malformed;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let Some(length) = decimal(value) else {
                return Parsed::Malformed;
            };
            body_bytes = Some(length);
        } else if name.eq_ignore_ascii_case(b"connection") {
            close |= value.eq_ignore_ascii_case(b"close");
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            return Parsed::Malformed;
        }
    }
    match bytes
        .len()
        .cmp(&position.saturating_add(body_bytes.unwrap_or(0)))
    {
        std::cmp::Ordering::Less => Parsed::Partial,
        std::cmp::Ordering::Equal => Parsed::Complete(Answer { status, close }),
        std::cmp::Ordering::Greater => Parsed::Malformed,
    }
}

/// The code of `HTTP/1.1 202 Accepted`.
fn status_code(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.1 ")?;
    let code = decimal(rest.get(..3)?)?;
    u16::try_from(code)
        .ok()
        .filter(|code| (200..600).contains(code))
}

fn decimal(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCEPTED: &[u8] =
        b"HTTP/1.1 202 Accepted\r\nContent-Type: text/plain\r\ncontent-length: 4\r\n\r\nabcd";

    #[test]
    fn a_whole_answer_is_complete_and_every_cut_of_it_partial() {
        let complete = Parsed::Complete(Answer {
            status: 202,
            close: false,
        });
        assert_eq!(parse(ACCEPTED), complete);
        for cut in 0..ACCEPTED.len() {
            assert_eq!(parse(&ACCEPTED[..cut]), Parsed::Partial, "cut at {cut}");
        }
    }

    #[test]
    fn the_end_of_the_connection_is_seen_in_any_case() {
        let bytes =
            b"HTTP/1.1 503 Service Unavailable\r\nCONNECTION: Close\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(
            parse(bytes),
            Parsed::Complete(Answer {
                status: 503,
                close: true
            })
        );
    }

    #[test]
    fn what_this_client_cannot_read_is_malformed() {
        let longer = [ACCEPTED, b"x"].concat();
        let cases: [&[u8]; 5] = [
            &longer,
            b"HTTP/1.0 200 OK\r\n\r\n",
            b"HTTP/1.1 2x2 Accepted\r\n\r\n",
            b"HTTP/1.1 202 Accepted\r\ncontent-length: -1\r\n\r\n",
            b"HTTP/1.1 202 Accepted\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ];
        for bytes in cases {
            assert_eq!(
                parse(bytes),
                Parsed::Malformed,
                "{}",
                String::from_utf8_lossy(bytes)
            );
        }
    }
}
