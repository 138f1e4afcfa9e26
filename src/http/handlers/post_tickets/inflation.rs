//! A body of many tickets out of its form, step by step.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::super::post_ticket::Rejection;
use super::halt::Halt;
use crate::coding::{Coding, ContentCoding, DecodeError, Decoder};
use crate::http::body::BodyError;
use crate::publisher::PublishError;

/// What a decoder holds, and with a window of zstd, in bytes.
const DECODER_BYTES: u32 = 256 * 1024;
const ZSTD_BYTES: u32 = DECODER_BYTES + 8 * 1024 * 1024;

/// Brings the pieces of a body into UTF-8; those of a plain one are it already.
pub(super) struct Inflation(Option<Inflating>);

struct Inflating {
    decoder: Decoder,
    out: Vec<u8>,
    _charge: OwnedSemaphorePermit,
}

/// What one step gives.
pub(super) struct Step<'a> {
    /// What came out.
    pub out: &'a [u8],
    /// How much of the piece is done with.
    pub read: usize,
    /// There may be more without a further piece.
    pub has_more: bool,
}

impl Inflation {
    /// Of a body of this form, which becomes at most so many bytes.
    pub(super) fn of(
        coding: Coding,
        bytes_max: usize,
        budget: &Arc<Semaphore>,
    ) -> Result<Self, Halt> {
        if coding.is_plain() {
            return Ok(Self(None));
        }
        let bytes = match coding.content {
            Some(ContentCoding::Zstd) => ZSTD_BYTES,
            Some(ContentCoding::Gzip) | None => DECODER_BYTES,
        };
        let charge = budget.clone().try_acquire_many_owned(bytes);
        let charge = charge.map_err(|_full| Halt::not_published(PublishError::Overloaded))?;
        Ok(Self(Some(Inflating {
            decoder: Decoder::new(coding, bytes_max),
            out: Vec::new(),
            _charge: charge,
        })))
    }

    /// Takes some of a piece.
    pub(super) fn step<'a>(&'a mut self, piece: &'a [u8]) -> Result<Step<'a>, Halt> {
        let Some(Inflating { decoder, out, .. }) = &mut self.0 else {
            return Ok(Step {
                out: piece,
                read: piece.len(),
                has_more: false,
            });
        };
        out.clear();
        let decoded = decoder.push(piece, out).map_err(halt)?;
        Ok(Step {
            out,
            read: decoded.read,
            has_more: decoded.has_more,
        })
    }

    /// Checks that the body may end here.
    pub(super) fn finish(&mut self) -> Result<(), Halt> {
        match self.0.take() {
            Some(inflating) => inflating.decoder.finish().map_err(halt),
            None => Ok(()),
        }
    }
}

fn halt(error: DecodeError) -> Halt {
    match error {
        DecodeError::TooLarge => Halt::TooLarge,
        DecodeError::Broken(broken) => Rejection::Body(BodyError::Broken(broken)).into(),
    }
}
