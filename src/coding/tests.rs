use super::inflate::InflateError;
use super::*;

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use proptest::collection::vec;
use proptest::prelude::*;

/// A zstd frame may have a window of this many bytes.
const WINDOW_MAX: u64 = 8 << 20;

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(text).expect("memory");
    gzip.finish().expect("memory")
}

fn zstd(text: &[u8]) -> Vec<u8> {
    zstd::encode_all(text, 3).expect("memory")
}

fn compressed(content: ContentCoding, text: &[u8]) -> Vec<u8> {
    match content {
        ContentCoding::Gzip => gzip(text),
        ContentCoding::Zstd => zstd(text),
    }
}

fn of(content: ContentCoding) -> Coding {
    Coding {
        content: Some(content),
        charset: Charset::Utf8,
    }
}

const BOTH: [ContentCoding; 2] = [ContentCoding::Gzip, ContentCoding::Zstd];

/// Decodes a body that comes in pieces of so many bytes.
fn decoded(
    coding: Coding,
    body: &[u8],
    piece: usize,
    bytes_max: usize,
) -> Result<Vec<u8>, DecodeError> {
    let mut decoder = Decoder::new(coding, bytes_max);
    let mut out = Vec::new();
    for mut piece in body.chunks(piece) {
        loop {
            let before = out.len();
            let step = decoder.push(piece, &mut out)?;
            assert!(out.len() - before <= 48 * 1024);
            piece = &piece[step.read..];
            if piece.is_empty() && !step.has_more {
                break;
            }
        }
    }
    decoder.finish()?;
    Ok(out)
}

/// The library's own way, in one go.
fn at_once(content: ContentCoding, body: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match content {
        ContentCoding::Gzip => MultiGzDecoder::new(body).read_to_end(&mut out).ok()?,
        ContentCoding::Zstd => zstd::Decoder::new(body).ok()?.read_to_end(&mut out).ok()?,
    };
    Some(out)
}

/// Text that is neither incompressible nor all the same.
fn text(length: usize) -> Vec<u8> {
    let line = |number: usize| format!("7,Product {},{}.50\n", number % 97, number * 31 % 400);
    let mut text: Vec<u8> = (0..length / 10 + 1)
        .flat_map(|number| line(number).into_bytes())
        .collect();
    text.truncate(length);
    text
}

#[test]
fn pieces_of_any_length_are_the_same_body() {
    let text = text(100_000);
    for content in BOTH {
        let body = compressed(content, &text);
        for piece in [1, 2, 7, 4096, 4097, body.len()] {
            let decoded = decoded(of(content), &body, piece, text.len());
            assert_eq!(decoded.as_deref(), Ok(&text[..]), "{content:?} {piece}");
        }
    }
}

#[test]
fn a_body_that_ends_early_is_incomplete_wherever_it_does() {
    let text = text(1000);
    for content in BOTH {
        let body = compressed(content, &text);
        for end in 0..body.len() {
            let decoded = decoded(of(content), &body[..end], 50, text.len());
            let incomplete = DecodeError::Broken(BrokenBody(content, InflateError::Incomplete));
            assert_eq!(decoded, Err(incomplete), "{content:?} {end}");
        }
    }
}

#[test]
fn streams_one_after_the_other_are_one_body() {
    for content in BOTH {
        let parts = ["one ", "", "two"].map(|part| compressed(content, part.as_bytes()));
        for piece in [1, 1000] {
            let decoded = decoded(of(content), &parts.concat(), piece, 7);
            assert_eq!(decoded.as_deref(), Ok(b"one two".as_slice()));
        }
    }
    let skipped = [b"\x50\x2a\x4d\x18\x02\x00\x00\x00xx", &zstd(b"three")[..]].concat();
    let decoded = decoded(of(ContentCoding::Zstd), &skipped, 3, 5);
    assert_eq!(decoded.as_deref(), Ok(b"three".as_slice()));
}

#[test]
fn what_follows_a_body_is_refused() {
    for content in BOTH {
        for tail in [b"garbage".as_slice(), &[0; 512], b"Order: 1\n", b"\n", &[0]] {
            let body = [&compressed(content, b"text"), tail].concat();
            for piece in [1, 1000] {
                let decoded = decoded(of(content), &body, piece, 1000);
                let trailing = DecodeError::Broken(BrokenBody(content, InflateError::Trailing));
                assert_eq!(decoded, Err(trailing), "{content:?} {tail:?} {piece}");
            }
        }
    }
}

#[test]
fn the_wrong_bytes_are_corrupt() {
    for content in BOTH {
        let corrupt = Err(DecodeError::Broken(BrokenBody(
            content,
            InflateError::Corrupt,
        )));
        assert_eq!(
            decoded(of(content), b"Order: 1\nVAT: 1\n", 1000, 1000),
            corrupt
        );
        let other = if content == ContentCoding::Gzip {
            ContentCoding::Zstd
        } else {
            ContentCoding::Gzip
        };
        assert_eq!(
            decoded(of(content), &compressed(other, b"text"), 1000, 1000),
            corrupt
        );
    }
    // The sums at the end of a member count.
    let mut body = gzip(b"text");
    let sum = body.len() - 8;
    body[sum] ^= 1;
    let corrupt = DecodeError::Broken(BrokenBody(ContentCoding::Gzip, InflateError::Corrupt));
    assert_eq!(
        decoded(of(ContentCoding::Gzip), &body, 1000, 1000),
        Err(corrupt)
    );
}

#[test]
fn the_largest_body_is_exact() {
    let text = text(70_000);
    for content in BOTH {
        let body = compressed(content, &text);
        for (bytes_max, is_read) in [(70_000, true), (69_999, false), (0, false)] {
            let decoded = decoded(of(content), &body, 100, bytes_max);
            assert_eq!(decoded.is_ok(), is_read, "{content:?} {bytes_max}");
            assert!(is_read || decoded == Err(DecodeError::TooLarge));
        }
    }
}

/// The size of a charset's text counts as it is stored.
#[test]
fn a_charset_grows_within_the_maximum() {
    let coding = Coding {
        content: None,
        charset: Charset::Windows1252,
    };
    let euros = [0x80; 10_000];
    let decoded_to = |bytes_max| decoded(coding, &euros, 10_000, bytes_max);
    assert_eq!(decoded_to(30_000), Ok("€".repeat(10_000).into_bytes()));
    assert_eq!(decoded_to(29_999), Err(DecodeError::TooLarge));
}

#[test]
fn charset_and_coding_go_together() {
    for content in BOTH {
        let coding = Coding {
            content: Some(content),
            charset: Charset::Windows1252,
        };
        let body = compressed(content, b"Caf\xe9 \x80 \xa4 \x81");
        let decoded = decoded(coding, &body, 1, 100);
        assert_eq!(decoded.as_deref(), Ok("Café € ¤ \u{81}".as_bytes()));
    }
}

/// Each byte of windows-1252 is one character, and none is replaced.
#[test]
fn every_byte_of_a_charset_has_a_character() {
    let all: Vec<u8> = (0..=255).collect();
    let mut out = Vec::new();
    Charset::Windows1252.append(&all, &mut out);
    let out = String::from_utf8(out).expect("UTF-8");
    assert_eq!(out.chars().count(), 256);
    assert!(!out.contains(char::REPLACEMENT_CHARACTER));
    assert!(out.chars().all(|character| character.len_utf8() <= 3));
    for (byte, character) in out.chars().enumerate() {
        assert!((0x80..0xa0).contains(&byte) || character as usize == byte);
    }
}

#[test]
fn a_large_window_is_refused_by_the_frame_s_head() {
    for (window_log, is_read) in [(10, true), (23, true), (24, false), (27, false)] {
        let mut zstd = zstd::Encoder::new(Vec::new(), 1).expect("memory");
        zstd.window_log(window_log).expect("a window");
        zstd.write_all(b"small").expect("memory");
        zstd.flush().expect("memory");
        let body = zstd.finish().expect("memory");
        let decoded = decoded(of(ContentCoding::Zstd), &body, 1000, 100);
        let window = DecodeError::Broken(BrokenBody(ContentCoding::Zstd, InflateError::Window));
        let expected = if is_read {
            Ok(b"small".to_vec())
        } else {
            Err(window)
        };
        assert_eq!(decoded, expected, "{window_log}");
    }
    assert_eq!(WINDOW_MAX, 1 << 23);
}

/// One block of zstd that repeats a byte 128 KiB times, in 4 bytes.
const REPEATED: [u8; 4] = [0x02, 0x00, 0x10, b'x'];

/// A frame of so many of them, with a window of 8 MiB and without an end.
fn zstd_bomb(blocks: usize) -> Vec<u8> {
    let mut bomb = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 13 << 3];
    bomb.extend((0..blocks).flat_map(|_| REPEATED));
    bomb
}

/// Gigabytes out of a few kilobytes are given up once they are too many.
#[test]
fn a_bomb_is_given_up_once_it_is_too_large() {
    let zstd = zstd_bomb(32_768);
    assert!(zstd.len() < 132_000, "4 GiB");
    let gzip = gzip(&vec![b'x'; 16 << 20]);
    assert!(gzip.len() < 17_000);
    for (content, bomb) in [(ContentCoding::Zstd, zstd), (ContentCoding::Gzip, gzip)] {
        let mut decoder = Decoder::new(of(content), 65_536);
        let mut out = Vec::new();
        let mut rest = &bomb[..];
        let error = loop {
            match decoder.push(rest, &mut out) {
                Ok(step) => rest = &rest[step.read..],
                Err(error) => break error,
            }
        };
        assert_eq!(error, DecodeError::TooLarge, "{content:?}");
        assert!(out.capacity() <= 256 * 1024, "{}", out.capacity());
        assert!(bomb.len() - rest.len() <= 8192, "the rest is not read");
    }
}

fn any_content() -> impl Strategy<Value = ContentCoding> {
    prop_oneof![Just(ContentCoding::Gzip), Just(ContentCoding::Zstd)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is compressed comes out again, in whichever pieces it comes.
    #[test]
    fn what_goes_in_comes_out(
        content in any_content(),
        parts in vec(vec(any::<u8>(), 0..3000), 1..4),
        piece in 1usize..5000,
    ) {
        let body: Vec<u8> = parts.iter().flat_map(|part| compressed(content, part)).collect();
        let whole = parts.concat();
        prop_assert_eq!(decoded(of(content), &body, piece, whole.len()), Ok(whole.clone()));
        prop_assert_eq!(at_once(content, &body), Some(whole));
    }

    /// Of a body in which some bytes are changed, cut off or added, what the library reads in one go is
    /// read in pieces as well, and nothing else; what follows a body, which the library for gzip passes
    /// over or not, is never read.
    #[test]
    fn a_damaged_body_is_read_as_the_library_reads_it(
        content in any_content(),
        length in 0usize..5000,
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        end in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
        piece in 1usize..5000,
    ) {
        let mut body = compressed(content, &text(length));
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if is_cut {
            body.truncate(end.index(body.len()));
        }
        let decoded = decoded(of(content), &body, piece, 1 << 20).ok();
        // The library takes nothing at all for an empty body.
        let expected = at_once(content, &body).filter(|_| !body.is_empty());
        prop_assert_eq!(decoded, expected);
    }

    /// No bytes are more than an error.
    #[test]
    fn any_bytes_are_read_or_refused(
        content in any_content(),
        body in vec(any::<u8>(), 0..500),
        piece in 1usize..100,
    ) {
        let magic: &[u8] = match content {
            ContentCoding::Gzip => b"\x1f\x8b\x08",
            ContentCoding::Zstd => b"\x28\xb5\x2f\xfd",
        };
        let read = decoded(of(content), &[magic, &body].concat(), piece, 10_000);
        prop_assert!(read.is_err() || read.is_ok_and(|read| read.len() <= 10_000));
    }
}
