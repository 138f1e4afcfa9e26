//! Whose ticket it is, and its id: what the head tells, and then the body.

use std::sync::Arc;

use hyper::Request;
use tracing::debug;
use uuid::Uuid;

use super::rejection::Rejection;
use crate::http::auth::{Claim, Sender, Senders, SignedClaim, Unauthorized};
use crate::http::body::BodyError;
use crate::http::encoding::UnknownCoding;
use crate::http::idempotency::ticket_id;
use crate::source::{KeyError, id_of_key};
use crate::tls::ClientIdentity;

/// Whose ticket it is, and its id, as far as the head tells.
pub(super) enum TicketIdentity {
    /// All of it; there is no sender where anyone may send.
    Known(Result<Uuid, KeyError>, Option<Arc<Sender>>),
    /// The body will tell whether the signature is right, and its message's id is the key.
    Signed(Box<SignedClaim>),
    /// It is not accepted, whatever its body is.
    Rejected(Rejection, Option<Arc<Sender>>),
}

/// A ticket that is rejected, and whose, where that is known.
pub(super) struct Refused {
    /// Its sender.
    pub sender: Option<Arc<Sender>>,
    /// Why.
    pub rejection: Rejection,
}

impl TicketIdentity {
    /// Reads the head of a request to those senders.
    pub(super) fn of<B>(
        senders: &Senders,
        request: &Request<B>,
        client: &ClientIdentity,
        now_us: i64,
    ) -> Self {
        if let ClientIdentity::NoSource { why, .. } = client {
            return Self::Rejected(Rejection::NoSource(why), None);
        }
        let query = request.uri().query();
        match senders.claim(client, request.headers(), query, now_us) {
            Ok(Claim::Signed(claim)) => Self::Signed(claim),
            Ok(Claim::Sender(sender)) => match admit(&sender) {
                Ok(()) => Self::Known(
                    ticket_id(Some(&sender.source), request.headers()),
                    Some(sender),
                ),
                Err(rejection) => Self::Rejected(rejection, Some(sender)),
            },
            Err(why) => Self::Rejected(unauthorized(why), None),
        }
    }

    /// Rejects a body in a form that is not read, unless something else is wrong already.
    pub(super) fn reject_coding(&mut self, coding: UnknownCoding) {
        let sender = match self {
            Self::Known(_, sender) => sender.take(),
            Self::Signed(_) => None,
            Self::Rejected(..) => return,
        };
        *self = Self::Rejected(Rejection::UnknownCoding(coding), sender);
    }

    /// Whose ticket this body is, and its id or what is wrong with it.
    pub(super) fn resolve(self, body: &[u8]) -> (Option<Arc<Sender>>, Result<Uuid, Rejection>) {
        match self {
            Self::Known(id, sender) => (sender, id.map_err(Rejection::BadKey)),
            Self::Rejected(rejection, sender) => (sender, Err(rejection)),
            Self::Signed(claim) => match claim.verify(body) {
                Ok(sender) => {
                    let id =
                        admit(sender).map(|()| id_of_key(Some(&sender.source), claim.message_id()));
                    (Some(sender.clone()), id)
                }
                Err(why) => (None, Err(unauthorized(why))),
            },
        }
    }

    /// That the body did not come, and whose it would have been as far as the head tells.
    pub(super) fn without_body(self, error: BodyError) -> Refused {
        let sender = match self {
            Self::Known(_, sender) | Self::Rejected(_, sender) => sender,
            Self::Signed(_) => None,
        };
        let rejection = Rejection::Body(error);
        Refused { sender, rejection }
    }
}

fn unauthorized(Unauthorized(why): Unauthorized) -> Rejection {
    debug!(why, "a ticket without a valid credential");
    Rejection::Unauthorized
}

/// Counts a ticket against its sender's limit.
fn admit(sender: &Sender) -> Result<(), Rejection> {
    sender.admit().map_err(Rejection::RateLimited)
}
