//! gzip (RFC 1952) and zstd (RFC 8878), inflated piece by piece.
//!
//! Both may be several streams one after the other, which are one body; nothing else may follow.

use flate2::{Decompress, FlushDecompress, Status};
use zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode;
use zstd::zstd_safe::{DCtx, DParameter, ErrorCode, InBuffer, OutBuffer};

/// The largest window of a zstd frame, as a power of two: the 8 MiB that every sender of this coding has
/// to do with (RFC 9659). Of this memory is used what is inflated.
const WINDOW_LOG_MAX: u32 = 23;

/// The largest window of a gzip member, as a power of two: all that the format has.
const GZIP_WINDOW_LOG: u8 = 15;

/// A coding that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContentCoding {
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

/// What is wrong with a body that is said to be compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InflateError {
    /// It is none of its coding, or a sum in it is wrong.
    Corrupt,
    /// Something follows it.
    Trailing,
    /// It ends early.
    Incomplete,
    /// It asks for too large a window.
    Window,
}

/// What one step has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Inflated {
    /// Bytes of the input that were used.
    pub read: usize,
    /// Bytes of the output that were filled.
    pub written: usize,
    /// Whether there may be more output without more input.
    pub has_more: bool,
}

/// The state of one body.
pub(super) struct Inflater {
    stream: Stream,
    /// Whether no stream is being read.
    is_between: bool,
    /// Whether a stream has ended.
    has_ended: bool,
    /// Whether the stream that is being read has given something.
    has_output: bool,
}

/// What reads one stream; none before the first.
enum Stream {
    Gzip(Option<Decompress>),
    Zstd(Option<DCtx<'static>>),
}

/// What one step has done, and whether it was the last one of its stream.
type Stepped = (usize, usize, bool);

impl ContentCoding {
    /// The coding of this name (RFC 9110 section 8.4.1).
    pub(crate) fn named(name: &[u8]) -> Option<Self> {
        if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") {
            Some(Self::Gzip)
        } else if name.eq_ignore_ascii_case(b"zstd") {
            Some(Self::Zstd)
        } else {
            None
        }
    }
}

impl Inflater {
    /// Begins a body.
    pub(super) fn new(coding: ContentCoding) -> Self {
        let stream = match coding {
            ContentCoding::Gzip => Stream::Gzip(None),
            ContentCoding::Zstd => Stream::Zstd(None),
        };
        Self {
            stream,
            is_between: true,
            has_ended: false,
            has_output: false,
        }
    }

    /// Inflates some of the input: until it or the output is used up, or one stream has ended.
    pub(super) fn inflate(
        &mut self,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<Inflated, InflateError> {
        if self.is_between {
            let Some(first) = input.first() else {
                return Ok(Inflated::default());
            };
            self.has_output = false;
            if !self.stream.begins_with(*first) {
                return Err(self.placed(InflateError::Corrupt));
            }
            self.stream.begin()?;
            self.is_between = false;
        }
        let stepped = self.stream.step(input, output);
        let (read, written, is_end) = stepped.map_err(|error| self.placed(error))?;
        if read == 0 && written == 0 && !is_end && !input.is_empty() {
            return Err(InflateError::Corrupt);
        }
        self.has_output |= written > 0;
        self.is_between = is_end;
        self.has_ended |= is_end;
        Ok(Inflated {
            read,
            written,
            has_more: !is_end && written == output.len(),
        })
    }

    /// Checks that the body may end here.
    pub(super) fn finish(&self) -> Result<(), InflateError> {
        if self.is_between && self.has_ended {
            Ok(())
        } else {
            Err(InflateError::Incomplete)
        }
    }

    /// What does not even begin like a stream, after one, only follows it.
    fn placed(&self, error: InflateError) -> InflateError {
        match error {
            InflateError::Corrupt if self.has_ended && !self.has_output => InflateError::Trailing,
            error => error,
        }
    }
}

impl Stream {
    /// Whether a stream may begin with this byte: a single line end is not the beginning of another.
    fn begins_with(&self, first: u8) -> bool {
        match self {
            Self::Gzip(_) => first == 0x1f,
            // A frame, or one that is to be skipped.
            Self::Zstd(_) => matches!(first, 0x28 | 0x50..=0x5f),
        }
    }

    fn begin(&mut self) -> Result<(), InflateError> {
        match self {
            Self::Gzip(member) => *member = Some(Decompress::new_gzip(GZIP_WINDOW_LOG)),
            // It begins the next frame by itself.
            Self::Zstd(Some(_)) => {}
            Self::Zstd(frames) => {
                let mut context = DCtx::create();
                let window = DParameter::WindowLogMax(WINDOW_LOG_MAX);
                context.set_parameter(window).map_err(zstd_error)?;
                *frames = Some(context);
            }
        }
        Ok(())
    }

    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Stepped, InflateError> {
        match self {
            Self::Gzip(Some(member)) => gzip_step(member, input, output),
            Self::Zstd(Some(frames)) => zstd_step(frames, input, output),
            Self::Gzip(None) | Self::Zstd(None) => Err(InflateError::Incomplete),
        }
    }
}

fn gzip_step(
    member: &mut Decompress,
    input: &[u8],
    output: &mut [u8],
) -> Result<Stepped, InflateError> {
    let before = (member.total_in(), member.total_out());
    let status = member.decompress(input, output, FlushDecompress::None);
    let status = status.map_err(|_corrupt| InflateError::Corrupt)?;
    let grown = |after: u64, before: u64| usize::try_from(after - before).unwrap_or(usize::MAX);
    let read = grown(member.total_in(), before.0);
    let written = grown(member.total_out(), before.1);
    Ok((read, written, status == Status::StreamEnd))
}

fn zstd_step(
    frames: &mut DCtx<'static>,
    input: &[u8],
    output: &mut [u8],
) -> Result<Stepped, InflateError> {
    let mut input = InBuffer::around(input);
    let mut output = OutBuffer::around(output);
    let hint = frames.decompress_stream(&mut output, &mut input);
    let hint = hint.map_err(zstd_error)?;
    Ok((input.pos(), output.pos(), hint == 0))
}

/// zstd's codes are the negative values of its errors.
fn zstd_error(code: ErrorCode) -> InflateError {
    let window = ZSTD_ErrorCode::ZSTD_error_frameParameter_windowTooLarge;
    if code.wrapping_neg() == window as usize {
        InflateError::Window
    } else {
        InflateError::Corrupt
    }
}
