//! Finds the messages in a stream of bytes, for a proxy that cuts connections at one of them.

use crate::proxy::Way;

/// What is spoken on the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// AMQP 0-9-1.
    Amqp,
    /// PostgreSQL's, version 3.
    Postgres,
    /// TLS, in which no message can be told from another.
    Encrypted,
}

/// Cuts a stream of bytes into its protocol's messages.
pub(crate) struct Scanner {
    protocol: Protocol,
    /// The start of a message that is not whole yet, or of its head.
    rest: Vec<u8>,
    /// Bytes of a message that are still to come and need not be looked at.
    skip: usize,
    /// Before the first message there is something that is framed differently.
    greeted: bool,
}

/// Enough of a message to know it by.
const HEAD_BYTES: usize = 12;

impl Scanner {
    /// At the start of a connection.
    pub(crate) fn new(protocol: Protocol, way: Way) -> Self {
        Self {
            protocol,
            rest: Vec::new(),
            skip: 0,
            greeted: way == Way::Down,
        }
    }

    /// Shows each message that begins in this piece to `hit`, as soon as enough of it is there.
    /// Returns what `hit` said, with the offset in the piece up to which may be forwarded.
    pub(crate) fn find<T>(
        &mut self,
        piece: &[u8],
        mut hit: impl FnMut(&[u8]) -> Option<T>,
    ) -> Option<(T, usize)> {
        if self.protocol == Protocol::Encrypted {
            return None;
        }
        let mut at = 0;
        while at < piece.len() {
            if self.skip > 0 {
                let skipped = self.skip.min(piece.len() - at);
                self.skip -= skipped;
                at += skipped;
                continue;
            }
            self.rest.push(piece[at]);
            at += 1;
            let Some(length) = self.length() else {
                continue;
            };
            if self.rest.len() < length.min(HEAD_BYTES) {
                continue;
            }
            let mut head = std::mem::take(&mut self.rest);
            self.skip = length - head.len();
            // The length of the whole counts for the match, its content does not.
            head.resize(length, 0);
            let found = self.greeted.then(|| hit(&head)).flatten();
            self.greeted = true;
            if let Some(found) = found {
                return Some((found, at));
            }
        }
        None
    }

    /// The length of the message that `rest` begins, once that can be known.
    fn length(&self) -> Option<usize> {
        let number = |at: usize| -> Option<usize> {
            let bytes: [u8; 4] = self.rest.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_be_bytes(bytes) as usize)
        };
        match (self.protocol, self.greeted) {
            (Protocol::Amqp, false) => (self.rest.len() == 8).then_some(8),
            // Type, channel, size, that many bytes, and the end octet.
            (Protocol::Amqp, true) => Some(7 + number(3)? + 1),
            (Protocol::Postgres, false) => number(0),
            (Protocol::Postgres, true) => Some(1 + number(1)?),
            (Protocol::Encrypted, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::Cut;

    fn frame(class: u8, method: u8) -> Vec<u8> {
        let mut frame = vec![1, 0, 1, 0, 0, 0, 13, 0, class, 0, method];
        frame.resize(7 + 13, 0);
        frame.push(0xce);
        frame
    }

    /// A message is found wherever the stream is cut into pieces, and no other one is.
    #[test]
    fn the_acknowledgement_is_found_across_pieces() {
        let stream = [
            b"AMQP\0\0\x09\x01".as_slice(),
            &frame(60, 40),
            &frame(60, 80),
        ]
        .concat();
        for cut in 1..stream.len() {
            let mut scanner = Scanner::new(Protocol::Amqp, Way::Up);
            let mut found = 0;
            for piece in [&stream[..cut], &stream[cut..]] {
                let hit = scanner.find(piece, |frame| Cut::Ack.matches(frame).then_some(()));
                found += usize::from(hit.is_some());
            }
            assert_eq!(found, 1, "cut at {cut}");
        }
    }

    /// `commit` is told from other queries, behind a startup message.
    #[test]
    fn the_commit_is_found() {
        let stream = b"\0\0\0\x08\0\x03\0\0Q\0\0\0\x0abegin\0Q\0\0\0\x0bcommit\0";
        let mut scanner = Scanner::new(Protocol::Postgres, Way::Up);
        let hit = scanner.find(stream, |message| Cut::Commit.matches(message).then_some(()));
        assert!(hit.is_some());
    }
}
