//! A body in pieces, out of its form.

use super::Coding;
use super::charset::Charset;
use super::inflate::{ContentCoding, InflateError, Inflated, Inflater};

/// What a step reads at most, in bytes: what they may cost besides output is bounded by this.
const READ_MAX: usize = 4096;

/// What a step inflates to at most, in bytes, before it is brought into UTF-8.
const PIECE_MAX: usize = 16 * 1024;

/// Brings a body into UTF-8 piece by piece, whichever pieces it comes in. Pure: whoever calls it takes
/// a break between steps.
///
/// It holds about 200 KiB, and for zstd the frame's window, up to 8 MiB, of which is used what is
/// inflated.
pub(crate) struct Decoder {
    coding: Option<(ContentCoding, Inflater)>,
    charset: Charset,
    /// What may still come out.
    bytes_left: usize,
    piece: Vec<u8>,
}

/// What one step has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decoded {
    /// Bytes of the input that are done with.
    pub read: usize,
    /// Whether there may be more output without more input.
    pub has_more: bool,
}

/// Why a body cannot be brought into UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DecodeError {
    /// It would become larger than allowed.
    TooLarge,
    /// It is not what it says.
    Broken(BrokenBody),
}

/// What is wrong with a body in a coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BrokenBody(pub ContentCoding, pub InflateError);

impl Decoder {
    /// Begins a body of this form, which becomes at most `bytes_max` bytes.
    pub(crate) fn new(coding: Coding, bytes_max: usize) -> Self {
        let content = coding.content;
        Self {
            coding: content.map(|content| (content, Inflater::new(content))),
            charset: coding.charset,
            bytes_left: bytes_max,
            piece: Vec::new(),
        }
    }

    /// Reads some of `input`, and appends to `out` what comes of it: 48 KiB at most, in less than a
    /// millisecond. Call it with the rest of the input until all of that is read and no more comes
    /// without further input. After an error the decoder, and what came out of it, are of no use.
    pub(crate) fn push(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Decoded, DecodeError> {
        let input = input.get(..READ_MAX).unwrap_or(input);
        let before = out.len();
        let decoded = match &mut self.coding {
            None => plain(self.charset, input, out),
            Some((content, inflater)) => {
                self.piece.resize(PIECE_MAX, 0);
                let inflated = inflater.inflate(input, &mut self.piece);
                let inflated = inflated.map_err(|error| broken(*content, error))?;
                let piece = self.piece.get(..inflated.written).unwrap_or_default();
                self.charset.append(piece, out);
                inflated.into()
            }
        };
        let left = self.bytes_left.checked_sub(out.len() - before);
        self.bytes_left = left.ok_or(DecodeError::TooLarge)?;
        Ok(decoded)
    }

    /// Checks that the body may end here.
    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        let Some((content, inflater)) = self.coding else {
            return Ok(());
        };
        let finished = inflater.finish();
        finished.map_err(|error| broken(content, error))
    }
}

fn plain(charset: Charset, input: &[u8], out: &mut Vec<u8>) -> Decoded {
    charset.append(input, out);
    Decoded {
        read: input.len(),
        has_more: false,
    }
}

impl From<Inflated> for Decoded {
    fn from(Inflated { read, has_more, .. }: Inflated) -> Self {
        Self { read, has_more }
    }
}

fn broken(content: ContentCoding, error: InflateError) -> DecodeError {
    DecodeError::Broken(BrokenBody(content, error))
}

impl BrokenBody {
    /// What its sender is told.
    pub(crate) fn detail(self) -> &'static str {
        use ContentCoding::{Gzip, Zstd};
        match (self.0, self.1) {
            (Gzip, InflateError::Incomplete) => "the gzip body ends early",
            (Zstd, InflateError::Incomplete) => "the zstd body ends early",
            (Gzip, InflateError::Trailing) => "something follows the gzip body",
            (Zstd, InflateError::Trailing) => "something follows the zstd body",
            (Gzip, InflateError::Corrupt) => "the body is not valid gzip",
            (Zstd, InflateError::Corrupt) => "the body is not valid zstd",
            (_, InflateError::Window) => "the zstd body asks for a window of more than 8 MiB",
        }
    }
}
