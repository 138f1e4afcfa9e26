//! Reads binary COPY data as PostgreSQL documents it, sharing nothing with what writes it.

/// A row: the bytes of each column, or null.
pub(super) type Row<'a> = Vec<Option<&'a [u8]>>;

const HEADER: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// All rows; panics if anything is not as documented, or stands before or after them.
pub(super) fn rows(data: &[u8]) -> Vec<Row<'_>> {
    let mut rest = data.strip_prefix(HEADER).expect("a header");
    let mut rows = Vec::new();
    loop {
        let columns = i16::from_be_bytes(take(&mut rest));
        if columns == -1 {
            assert_eq!(rest, b"", "after the trailer");
            return rows;
        }
        rows.push((0..columns).map(|_| column(&mut rest)).collect());
    }
}

fn column<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = i32::from_be_bytes(take(rest));
    if length == -1 {
        return None;
    }
    let length = usize::try_from(length).expect("a length");
    Some(rest.split_off(..length).expect("a whole column"))
}

fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (taken, after) = rest.split_first_chunk().expect("a whole number");
    *rest = after;
    *taken
}

/// A number as text, with the digits after the point that it was given.
///
/// On the wire: how many groups of four digits, how many of them stand before the point less one,
/// the sign, the digits to show after the point, and the groups.
pub(super) fn numeric(bytes: &[u8]) -> String {
    let words: Vec<i16> = bytes
        .chunks(2)
        .map(|word| i16::from_be_bytes(word.try_into().expect("whole words")))
        .collect();
    let [count, weight, sign, scale, groups @ ..] = words.as_slice() else {
        panic!("{bytes:?}");
    };
    let (weight, scale) = (i32::from(*weight), usize::try_from(*scale).unwrap());
    assert_eq!(groups.len(), usize::try_from(*count).unwrap());
    assert!(
        groups.iter().all(|group| (0..10_000).contains(group)),
        "{groups:?}"
    );
    let digits = |places: std::ops::Range<i32>| -> String {
        let group = |place| usize::try_from(place).ok().and_then(|at| groups.get(at));
        let padded = |place| format!("{:04}", group(place).unwrap_or(&0));
        places.map(padded).collect()
    };
    let whole = digits(0..weight + 1);
    let end = weight + 1 + i32::try_from(scale.div_ceil(4)).unwrap();
    let fraction = digits(weight + 1..end.max(groups.len() as i32));
    let (shown, hidden) = fraction.split_at(scale);
    assert_eq!(hidden.trim_matches('0'), "", "digits beyond the scale");
    let sign = match sign {
        0 => "",
        0x4000 => "-",
        _ => panic!("sign {sign}"),
    };
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        whole => whole,
    };
    let point = if shown.is_empty() { "" } else { "." };
    format!("{sign}{whole}{point}{shown}")
}
