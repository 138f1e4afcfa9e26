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
}

impl Target {
    /// In the order of the table.
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

    /// What the table calls it.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Bare => "bare hyper server",
            Self::Accept => "ticketd accept alone",
            Self::EndToEnd => "ticketd end to end",
            Self::Split => "ticketd accept + consume",
            Self::Ungrouped => "ticketd, PUBLISH_GROUP_MAX=1",
            Self::Baseline => "baseline pipeline",
        }
    }

    /// The numbers of connections at which it is measured.
    pub(super) fn connections(self) -> &'static [u32] {
        match self {
            Self::Bare | Self::Accept => &[1, 64, 128, 256, 1000],
            Self::Split => &[1000],
            Self::EndToEnd | Self::Ungrouped | Self::Baseline => &[1, 64, 256, 1000],
        }
    }

    /// The table that its tickets end in.
    pub(super) fn table(self) -> Option<&'static str> {
        match self {
            Self::Bare | Self::Accept => None,
            Self::EndToEnd | Self::Split | Self::Ungrouped => Some("tickets"),
            Self::Baseline => Some("baseline_tickets"),
        }
    }
}
