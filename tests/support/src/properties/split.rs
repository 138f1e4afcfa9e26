//! A text of many tickets: what the oracle says, wherever it is cut into pieces, and no more held
//! than has to be.

use ticketd::ticket::{SplitError, TicketSplitter};

use crate::oracle;

/// The longest line before the first ticket, and the largest ticket: few, so that some are larger.
const BYTES_MAX: usize = 64;

/// Both cut any text alike, in one piece, byte by byte, and in pieces whose lengths are its bytes.
pub fn split(input: &[u8]) {
    for bytes_max in [BYTES_MAX, usize::MAX] {
        let expected = expected(input, bytes_max);
        let lengths: Vec<_> = input.iter().map(|&byte| usize::from(byte % 16)).collect();
        assert_eq!(found(input, &lengths, bytes_max), expected);
        assert_eq!(found(input, &[1], bytes_max), expected);
        assert_eq!(found(input, &[usize::MAX], bytes_max), expected);
    }
}

type Tickets = Vec<(u64, Vec<u8>)>;

fn expected(text: &[u8], bytes_max: usize) -> (Tickets, Option<SplitError>) {
    let (mut tickets, wrong) = oracle::split(text);
    let first = tickets.first().map_or(u64::MAX, |(line, _)| *line);
    let mut before = (1..first).zip(text.split(|&byte| byte == b'\n'));
    let endless = before.find(|(_, line)| line.len() > bytes_max);
    let line = wrong.into_iter().chain(endless.map(|(line, _)| line)).min();
    if let Some(line) = line {
        return (Vec::new(), Some(SplitError::NoOrder { line }));
    }
    let mut error = None;
    if let Some(at) = tickets.iter().position(|(_, body)| body.len() > bytes_max) {
        let (number, line) = (at as u64 + 1, tickets[at].0);
        tickets.truncate(at);
        error = Some(SplitError::TooLarge { number, line });
    }
    (tickets, error)
}

/// What the splitter makes of a text in pieces of these lengths, over and over.
fn found(mut text: &[u8], lengths: &[usize], bytes_max: usize) -> (Tickets, Option<SplitError>) {
    let mut splitter = TicketSplitter::new(bytes_max);
    let mut tickets = Vec::new();
    for &length in lengths.iter().cycle() {
        if text.is_empty() {
            break;
        }
        // An input of zeros must come to its end too.
        let (piece, rest) = text.split_at(length.clamp(1, text.len()));
        text = rest;
        splitter.push(piece);
        if let Err(error) = take(&mut splitter, &mut tickets) {
            return (tickets, Some(error));
        }
    }
    splitter.end();
    let error = take(&mut splitter, &mut tickets).err();
    (tickets, error)
}

fn take(splitter: &mut TicketSplitter, tickets: &mut Tickets) -> Result<(), SplitError> {
    while let Some(ticket) = splitter.next_ticket()? {
        assert_eq!(ticket.number, tickets.len() as u64 + 1);
        tickets.push((ticket.line, ticket.body.to_vec()));
    }
    Ok(())
}
