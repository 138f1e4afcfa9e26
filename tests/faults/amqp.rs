//! As much of AMQP 0-9-1's framing as a fake broker needs.

use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::mpsc;

pub(crate) const METHOD: u8 = 1;
pub(crate) const HEADER: u8 = 2;
pub(crate) const BODY: u8 = 3;

/// A frame is type, channel, size, payload, and 0xce (AMQP 0-9-1, section 2.3.5).
pub(crate) fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap();
    [
        &[kind],
        &channel.to_be_bytes()[..],
        &size.to_be_bytes(),
        payload,
        &[0xce],
    ]
    .concat()
}

pub(crate) fn method(channel: u16, class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
    frame(
        METHOD,
        channel,
        &[&class.to_be_bytes(), &method.to_be_bytes(), arguments].concat(),
    )
}

pub(crate) fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

pub(crate) fn long(text: &[u8]) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes(), text].concat()
}

/// A frame as it came: type, channel, payload.
pub(crate) type Frame = (u8, u16, Vec<u8>);

/// Reads frames until the publisher is gone. In a task of its own, since half a frame must not be
/// dropped when it is time to settle.
pub(crate) async fn read_frames(
    mut stream: OwnedReadHalf,
    frames: mpsc::Sender<Frame>,
) -> std::io::Result<()> {
    stream.read_exact(&mut [0; 8]).await?;
    loop {
        let mut head = [0; 7];
        stream.read_exact(&mut head).await?;
        let channel = u16::from_be_bytes([head[1], head[2]]);
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
        let mut payload = vec![0; size as usize + 1];
        stream.read_exact(&mut payload).await?;
        payload.pop();
        if frames.send((head[0], channel, payload)).await.is_err() {
            return Ok(());
        }
    }
}

/// Reads the property out of a content header (AMQP 0-9-1, section 4.2.6.1): before it come content
/// type, content encoding and headers, each if its flag is set.
pub(crate) fn delivery_mode(header: &[u8]) -> Option<u8> {
    let flags = u16::from_be_bytes([header[12], header[13]]);
    let mut at = 14;
    for flag in [15, 14] {
        if flags >> flag & 1 == 1 {
            at += 1 + usize::from(header[at]);
        }
    }
    if flags >> 13 & 1 == 1 {
        at += 4 + u32::from_be_bytes(header[at..at + 4].try_into().unwrap()) as usize;
    }
    (flags >> 12 & 1 == 1).then(|| header[at])
}
