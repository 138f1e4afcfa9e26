//! The trace that a ticket's request belongs to (W3C Trace Context, level 1).

/// Version, trace id, parent id and flags, with hyphens between.
const LENGTH: usize = 55;

/// Where the parts that are no hyphens begin and end.
const PARTS: [(usize, usize); 4] = [(0, 2), (3, 35), (36, 52), (53, LENGTH)];

/// A well-formed `traceparent` of version 00.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traceparent([u8; LENGTH]);

impl Traceparent {
    /// Reads one; none if it is not well-formed. Boxed, as most tickets have none.
    pub fn parse(text: &[u8]) -> Option<Box<Self>> {
        let bytes: [u8; LENGTH] = text.try_into().ok()?;
        let part = |(start, end)| bytes.get(start..end).unwrap_or_default();
        let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_null = |part: &[u8]| part.iter().all(|byte| *byte == b'0');
        let [version, trace, parent, flags] = PARTS.map(part);
        let has_hyphens = [2, 35, 52].iter().all(|at| bytes.get(*at) == Some(&b'-'));
        let is_formed = version == b"00"
            && has_hyphens
            && [trace, parent, flags].concat().iter().all(is_hex)
            && !is_null(trace)
            && !is_null(parent);
        is_formed.then(|| Box::new(Self(bytes)))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_well_formed_is_kept() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let read = Traceparent::parse(good.as_bytes()).expect("well-formed");
        assert_eq!(read.as_str(), good);
        for wrong in [
            "",
            "00",
            good.trim_end_matches('1'),
            &format!("{good}0"),
            &format!("{good}-x"),
            &good.to_uppercase(),
            &good.replacen("00", "ff", 1),
            &good.replacen("00", "01", 1),
            &good.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &good.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &good.replace('-', "_"),
            &good.replace("-01", "-0g"),
        ] {
            assert_eq!(Traceparent::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
