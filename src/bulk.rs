//! Many tickets in one text: cut into tickets, each with what is said of it alone and where it is.
//! Pure: whoever reads the text gives it in pieces.

mod entry;
mod ndjson;
mod pieces;
mod text;

pub(crate) use entry::{Entry, EntryError, EntryProblem, Place};
pub(crate) use ndjson::NdjsonSplitter;
pub(crate) use pieces::PieceBuffer;
pub(crate) use text::next_of_text;
