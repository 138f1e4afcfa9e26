//! Why a body of many tickets is not answered 202.

use super::super::post_ticket::{PostTicket, Rejection};
use crate::bulk::{EntryError, EntryProblem};
use crate::http::problem;
use crate::http::response::FullResponse;
use crate::metrics::Rejected;
use crate::publisher::PublishError;

/// Why a body of many tickets is not answered 202.
#[derive(Clone, Copy)]
pub(super) enum Halt {
    /// As POST /ticket would not be.
    Rejection(Rejection),
    /// It is signed, which cannot be checked before all of it has come.
    Signed,
    /// Its Content-Type is not known.
    NoType,
    /// Its query is not.
    BadQuery,
    /// It is larger than `BULK_MAX`.
    TooLarge,
    /// There is no ticket in it.
    Empty,
    /// Something is wrong with one ticket.
    Entry(EntryError),
}

impl Halt {
    /// That RabbitMQ has not confirmed tickets.
    pub(super) fn not_published(error: PublishError) -> Self {
        Self::Rejection(Rejection::NotPublished(error))
    }

    /// The reason that it is counted by.
    pub(super) fn reason(&self) -> Rejected {
        match self {
            Self::Rejection(rejection) => rejection.reason(),
            Self::Signed => Rejected::Unauthorized,
            Self::NoType => Rejected::ContentType,
            Self::TooLarge => Rejected::TooLarge,
            Self::BadQuery | Self::Empty => Rejected::Malformed,
            Self::Entry(error) => match (rejection_of(error.problem), error.problem) {
                (Some(rejection), _) => rejection.reason(),
                (None, EntryProblem::TooLarge) => Rejected::TooLarge,
                (None, _) => Rejected::Malformed,
            },
        }
    }

    /// What its sender is told, given `BULK_MAX` and the handler of POST /ticket.
    pub(super) fn problem(&self, bytes_max: usize, ticket: &PostTicket) -> FullResponse {
        match self {
            Self::Rejection(rejection) => ticket.problem(*rejection),
            Self::Signed => problem::signed_many(),
            Self::NoType => problem::no_type_of_many(),
            Self::BadQuery => problem::bad_request("ids is all or none"),
            Self::TooLarge => problem::bulk_too_large(bytes_max),
            Self::Empty => problem::bad_request("there is no ticket in the body"),
            Self::Entry(error) => match error.problem {
                EntryProblem::TooLarge => problem::ticket_too_large(&error.to_string()),
                _ => problem::bad_request(&error.to_string()),
            },
        }
    }
}

impl From<Rejection> for Halt {
    fn from(rejection: Rejection) -> Self {
        Self::Rejection(rejection)
    }
}

impl From<EntryError> for Halt {
    fn from(error: EntryError) -> Self {
        Self::Entry(error)
    }
}

/// The same as of POST /ticket, where there is one.
fn rejection_of(problem: EntryProblem) -> Option<Rejection> {
    match problem {
        EntryProblem::NotText(error) => Some(Rejection::NotText(error)),
        EntryProblem::BadKey(error) => Some(Rejection::BadKey(error)),
        EntryProblem::BadIssuedAt(error) => Some(Rejection::BadIssuedAt(error)),
        EntryProblem::Malformed(_) | EntryProblem::TooLarge => None,
    }
}
