//! What came of a text in pieces and is not cut off yet.

/// Bytes that wait for the rest of what they belong to. Places are counted from the first of them.
#[derive(Debug, Default)]
pub(crate) struct PieceBuffer {
    bytes: Vec<u8>,
    /// Where those begin that wait.
    start: usize,
    /// How many of them need not be searched again.
    searched: usize,
    has_ended: bool,
}

impl PieceBuffer {
    /// With these bytes in front of the first piece.
    pub(crate) fn with(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.to_vec(),
            ..Self::default()
        }
    }

    /// Takes the next piece.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.extend_from_slice(piece);
    }

    /// There is no more.
    pub(crate) fn end(&mut self) {
        self.has_ended = true;
    }

    /// Whether there is no more.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// All that wait.
    pub(crate) fn waiting(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// How many of them were searched.
    pub(crate) fn searched(&self) -> usize {
        self.searched
    }

    /// The others.
    pub(crate) fn unsearched(&self) -> &[u8] {
        self.waiting().get(self.searched..).unwrap_or_default()
    }

    /// The search goes on here.
    pub(crate) fn search_from(&mut self, at: usize) {
        self.searched = at;
    }

    /// So many are cut off, and none of the others was searched.
    pub(crate) fn cut_off(&mut self, bytes: usize) {
        self.start = self.bytes.len().min(self.start + bytes);
        self.searched = 0;
    }

    /// So many that were cut off last, until the next piece comes.
    pub(crate) fn last(&self, bytes: usize) -> &[u8] {
        let from = self.start.saturating_sub(bytes);
        self.bytes.get(from..self.start).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_outlasts_the_next_piece() {
        let mut buffer = PieceBuffer::with(b"ab");
        buffer.push(b"cdef");
        buffer.cut_off(3);
        assert_eq!(
            (buffer.last(2), buffer.waiting()),
            (&b"bc"[..], &b"def"[..])
        );
        buffer.search_from(2);
        assert_eq!(buffer.unsearched(), b"f");
        buffer.push(b"g");
        assert_eq!((buffer.searched(), buffer.unsearched()), (2, &b"fg"[..]));
        assert_eq!((buffer.waiting(), buffer.last(1)), (&b"defg"[..], &b""[..]));
        buffer.cut_off(9);
        buffer.end();
        assert!(buffer.has_ended() && buffer.waiting().is_empty());
    }
}
