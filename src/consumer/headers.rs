//! The headers of a single ticket's message, as far as its producer has kept to their form.

use lapin::BasicProperties;
use lapin::types::{AMQPType, AMQPValue};

use crate::source::{Source, SourceRef};

/// A header that is not what it should be, and so was of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Misread {
    /// Its name.
    pub header: &'static str,
    /// The type that it has.
    pub kind: AMQPType,
}

/// A header that is a whole number, of whichever type.
pub(super) fn whole_number(
    properties: &BasicProperties,
    header: &'static str,
) -> Result<Option<i64>, Misread> {
    read(properties, header, |value| match *value {
        AMQPValue::LongLongInt(us) => Some(us),
        AMQPValue::LongInt(us) => Some(us.into()),
        AMQPValue::LongUInt(us) => Some(us.into()),
        AMQPValue::ShortInt(us) => Some(us.into()),
        AMQPValue::ShortUInt(us) => Some(us.into()),
        AMQPValue::ShortShortInt(us) => Some(us.into()),
        AMQPValue::ShortShortUInt(us) => Some(us.into()),
        _ => None,
    })
}

/// A header that names a source.
pub(super) fn source(
    properties: &BasicProperties,
    header: &'static str,
) -> Result<Option<Source>, Misread> {
    read(properties, header, |value| match value {
        AMQPValue::LongString(name) => SourceRef::parse(name.as_bytes()).ok().map(Source::from),
        AMQPValue::ShortString(name) => Source::parse(name.as_str()).ok(),
        _ => None,
    })
}

fn read<T>(
    properties: &BasicProperties,
    header: &'static str,
    read: impl FnOnce(&AMQPValue) -> Option<T>,
) -> Result<Option<T>, Misread> {
    let headers = properties.headers().as_ref();
    let Some(value) = headers.and_then(|headers| headers.inner().get(header)) else {
        return Ok(None);
    };
    let kind = value.get_type();
    read(value).map(Some).ok_or(Misread { header, kind })
}
