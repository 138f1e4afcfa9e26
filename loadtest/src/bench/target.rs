//! What is measured, and what the table says of it.

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Target {
    /// A server that answers 202 and does nothing.
    Bare,
    /// ticketd's accept role, with no consumer.
    Accept,
    /// Both roles in one process.
    EndToEnd,
    /// The same with one message for each ticket.
    Ungrouped,
    /// Both roles as two processes, to tell their memory apart.
    Split,
    /// One message and one transaction for each ticket.
    Baseline,
    /// Both roles in one process, and an Idempotency-Key with each ticket.
    Keyed,
    /// The same with a bearer token, and no keys.
    Bearer,
    /// The same with a signature, which brings a key.
    Signed,
    /// The same over TLS, without credentials or keys.
    Https,
    /// End to end, while people watch.
    Watched,
    /// End to end, with many tickets in a request.
    Bulk,
}

impl Target {
    /// In the order of the tables.
    pub(super) const ALL: [Self; 6] = [
        Self::Bare,
        Self::Accept,
        Self::EndToEnd,
        Self::Split,
        Self::Ungrouped,
        Self::Baseline,
    ];

    /// Those of which much hangs on a ratio at the largest number of connections: measured twice there in each round.
    pub(super) const TWICE: [Self; 3] = [Self::Bare, Self::Accept, Self::EndToEnd];

    /// Those that are measured in pairs with end to end, and nowhere else.
    pub(super) const GUARDED: [Self; 6] = [
        Self::Bearer,
        Self::Keyed,
        Self::Signed,
        Self::Https,
        Self::Watched,
        Self::Bulk,
    ];

    /// What the table calls it.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Bare => "bare hyper server",
            Self::Accept => "ticketd accept alone",
            Self::EndToEnd => "ticketd end to end",
            Self::Split => "ticketd accept + consume",
            Self::Ungrouped => "ticketd, PUBLISH_GROUP_MAX=1",
            Self::Baseline => "baseline pipeline",
            Self::Keyed => "an Idempotency-Key",
            Self::Bearer => "a bearer token",
            Self::Signed => "a Standard Webhooks signature",
            Self::Https => "HTTPS, kept alive",
            Self::Watched => "20 pages open",
            Self::Bulk => "1,000 tickets a request, 8 connections",
        }
    }

    /// The numbers of connections at which it is measured.
    pub(super) fn connections(self) -> &'static [u32] {
        match self {
            Self::Bare | Self::Accept => &[1, 64, 128, 256, 1000],
            Self::Split
            | Self::Keyed
            | Self::Bearer
            | Self::Signed
            | Self::Https
            | Self::Watched => &[1000],
            Self::Bulk => &[8],
            Self::EndToEnd | Self::Ungrouped | Self::Baseline => &[1, 64, 256, 1000],
        }
    }

    /// The table that its tickets end in.
    pub(super) fn table(self) -> Option<&'static str> {
        match self {
            Self::Bare | Self::Accept => None,
            Self::Baseline => Some("baseline_tickets"),
            _ => Some("tickets"),
        }
    }
}
