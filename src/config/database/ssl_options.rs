//! libpq's TLS options in a URL or in pairs of key and value, which the driver does not know, or not all.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::config::secret::encoded;

/// TLS options, as they are written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SslOptions {
    /// sslmode
    pub mode: Option<String>,
    /// sslrootcert
    pub root_cert: Option<String>,
    /// sslcert
    pub cert: Option<String>,
    /// sslkey
    pub key: Option<String>,
}

impl SslOptions {
    /// Where an option's value is kept; none if it is another option. The last one counts.
    fn slot(&mut self, key: &str) -> Option<&mut Option<String>> {
        match key {
            "sslmode" => Some(&mut self.mode),
            "sslrootcert" => Some(&mut self.root_cert),
            "sslcert" => Some(&mut self.cert),
            "sslkey" => Some(&mut self.key),
            _ => None,
        }
    }

    /// Those that are set, as they stand in a URL.
    pub(crate) fn shown(&self) -> String {
        let options = [
            ("sslmode", &self.mode),
            ("sslrootcert", &self.root_cert),
            ("sslcert", &self.cert),
            ("sslkey", &self.key),
        ];
        let set = options
            .iter()
            .filter_map(|(name, value)| Some((name, value.as_ref()?)));
        let set: Vec<_> = set
            .map(|(name, value)| format!("{name}={}", encoded(value)))
            .collect();
        if set.is_empty() {
            String::new()
        } else {
            format!("?{}", set.join("&"))
        }
    }

    /// Takes them out of a URL; returns what is left. What is wrong with the rest is left for the
    /// driver to find, which splits URLs in the same way.
    pub(crate) fn take_from_url(&mut self, url: &str) -> Result<String, String> {
        // A password may hold a question mark.
        let host = url.find('@').unwrap_or_default();
        let Some(question) = url.get(host..).and_then(|rest| rest.find('?')) else {
            return Ok(url.to_owned());
        };
        let (start, query) = url.split_at(host + question + 1);
        let mut kept = Vec::new();
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match self.slot(&decoded(key)) {
                // As libpq does, for URLs that were made for others.
                None if pair == "ssl=true" => self.mode = Some("require".to_owned()),
                None => kept.push(pair),
                Some(slot) => *slot = Some(whole(key, value)?),
            }
        }
        Ok(format!("{start}{}", kept.join("&")))
    }

    /// Takes them out of pairs; returns what is left.
    pub(crate) fn take_from_pairs(&mut self, text: &str) -> String {
        let mut kept = String::new();
        let mut rest = text;
        while let Some((pair, after)) = Pair::split_off(rest) {
            match self.slot(pair.key) {
                None => kept.push_str(pair.raw),
                Some(slot) => *slot = Some(pair.value),
            }
            rest = after;
        }
        kept + rest
    }
}

fn decoded(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8_lossy()
}

fn whole(key: &str, value: &str) -> Result<String, String> {
    let decoded = percent_decode_str(value).decode_utf8();
    let decoded = decoded.map_err(|_| format!("invalid value for option `{key}`"))?;
    Ok(decoded.into_owned())
}

/// One of libpq's pairs.
struct Pair<'a> {
    key: &'a str,
    value: String,
    /// With the blanks before it.
    raw: &'a str,
}

impl<'a> Pair<'a> {
    /// The first pair, and what follows it; none where the text is at its end, or wrong.
    fn split_off(text: &'a str) -> Option<(Self, &'a str)> {
        let from_key = text.trim_start();
        let key_end = from_key.find(|c: char| c == '=' || c.is_whitespace())?;
        let (key, after_key) = from_key.split_at_checked(key_end)?;
        let from_value = after_key.trim_start().strip_prefix('=')?.trim_start();
        let (value, rest) = value(from_value)?;
        let raw = text.get(..text.len() - rest.len())?;
        Some((Self { key, value, raw }, rest))
    }
}

/// A value, in quotes or not, and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let quoted = text.strip_prefix('\'');
    let text = quoted.unwrap_or(text);
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            '\'' if quoted.is_some() => return Some((value, text.get(at + 1..)?)),
            c if quoted.is_none() && c.is_whitespace() => return Some((value, text.get(at..)?)),
            c => value.push(c),
        }
    }
    quoted.is_none().then_some((value, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_url(url: &str) -> (String, SslOptions) {
        let mut options = SslOptions::default();
        let rest = options.take_from_url(url).expect(url);
        (rest, options)
    }

    fn from_pairs(text: &str) -> (String, SslOptions) {
        let mut options = SslOptions::default();
        let rest = options.take_from_pairs(text);
        (rest, options)
    }

    #[test]
    fn options_are_taken_out_of_a_url_and_nothing_else_is() {
        let (rest, options) = from_url(
            "postgres://u:p?sslmode=x@h/d?a=1&sslmode=verify-full&sslrootcert=%2Fc%20a&b=2",
        );
        assert_eq!(rest, "postgres://u:p?sslmode=x@h/d?a=1&b=2");
        assert_eq!(options.mode.as_deref(), Some("verify-full"));
        assert_eq!(options.root_cert.as_deref(), Some("/c a"));
        for url in [
            "postgres://h/d",
            "postgres://u:a?b@h/d",
            "postgres://h/d?x",
            "postgres://h?",
        ] {
            assert_eq!(from_url(url), (url.to_owned(), SslOptions::default()));
        }
        assert_eq!(
            from_url("postgres://h/d?sslcert=c&sslkey=k").0,
            "postgres://h/d?"
        );
        let (rest, options) = from_url("postgres://h/d?ssl=true&a=1");
        assert_eq!(
            (rest.as_str(), options.mode.as_deref()),
            ("postgres://h/d?a=1", Some("require"))
        );
        let wrong = SslOptions::default().take_from_url("postgres://h/d?sslkey=%ff");
        assert_eq!(wrong, Err("invalid value for option `sslkey`".to_owned()));
    }

    #[test]
    fn options_are_taken_out_of_pairs_and_nothing_else_is() {
        let (rest, options) = from_pairs(
            r"host=h  sslmode = 'verify-\'ca' password='a sslmode=x \' b' sslrootcert=/c\ a user=u",
        );
        assert_eq!(rest, r"host=h password='a sslmode=x \' b' user=u");
        assert_eq!(options.mode.as_deref(), Some("verify-'ca"));
        assert_eq!(options.root_cert.as_deref(), Some("/c a"));
        for text in [
            "",
            "host=h",
            "host=h password='x",
            "host",
            "host=h x",
            " =a",
            "host=h 'x'=1 b=2",
        ] {
            assert_eq!(from_pairs(text), (text.to_owned(), SslOptions::default()));
        }
    }
}
