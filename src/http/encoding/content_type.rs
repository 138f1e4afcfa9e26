//! The charsets that a Content-Type names.

/// The values of `charset` in a Content-Type (RFC 9110 section 8.3.1); of texts only.
pub(super) fn charsets(content_type: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut parts = unquoted_parts(content_type);
    let is_text = parts.next().is_some_and(is_text);
    parts.filter(move |_| is_text).filter_map(charset_value)
}

fn is_text(media_type: &[u8]) -> bool {
    let media_type = media_type.trim_ascii_start();
    media_type
        .get(..5)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"text/"))
}

fn charset_value(parameter: &[u8]) -> Option<&[u8]> {
    let equals = parameter.iter().position(|byte| *byte == b'=')?;
    let (name, value) = parameter.split_at_checked(equals)?;
    if !name.trim_ascii().eq_ignore_ascii_case(b"charset") {
        return None;
    }
    let value = value.get(1..)?.trim_ascii();
    let quoted = value
        .strip_prefix(b"\"")
        .and_then(|value| value.strip_suffix(b"\""));
    Some(quoted.unwrap_or(value))
}

/// What semicolons divide that are in no quoted string (RFC 9110 section 5.6.4).
fn unquoted_parts(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    list.split(move |byte| {
        if std::mem::take(&mut is_escaped) {
            return false;
        }
        match byte {
            b'\\' => is_escaped = is_quoted,
            b'"' => is_quoted = !is_quoted,
            _ => {}
        }
        *byte == b';' && !is_quoted
    })
}
