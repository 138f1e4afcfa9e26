//! The requests of one worker, in the order of sending.
//!
//! A sender signs on a machine of its own; here that would take from the one that is measured. So the requests that are
//! expected are signed before the first is sent, which is possible as their numbers are known.

use crate::signing::{Signature, Signer};
use crate::tickets::Template;

/// The requests of a worker: its templates in turn, each time with the next number.
pub(crate) struct Requests {
    templates: Vec<Template>,
    next_template: usize,
    next_number: u64,
    /// The distance between two numbers.
    step: u64,
    signer: Option<Signer>,
    ahead: std::vec::IntoIter<Signature>,
}

#[expect(
    clippy::indexing_slicing,
    reason = "the next template's index is below their number"
)]
impl Requests {
    /// From this number on; signed, if there is a signer.
    pub(crate) fn new(
        templates: Vec<Template>,
        (first_number, step): (u64, u64),
        signer: Option<Signer>,
    ) -> Self {
        Self {
            next_template: first_number as usize % templates.len(),
            templates,
            next_number: first_number,
            step,
            signer,
            ahead: Vec::new().into_iter(),
        }
    }

    /// Makes the signatures of the first so many requests.
    pub(crate) fn sign_ahead(&mut self, count: usize) {
        let first = (self.next_number, self.next_template);
        let ahead: Vec<_> = (0..count).map_while(|_| self.sign_next()).collect();
        self.ahead = ahead.into_iter();
        (self.next_number, self.next_template) = first;
    }

    /// The next request, and its number.
    pub(crate) fn next(&mut self) -> (u64, &[u8]) {
        let (number, index) = self.advance();
        let ahead = self.ahead.next();
        let template = &mut self.templates[index];
        template.stamp(number);
        if let Some(signer) = &self.signer {
            template.sign(&ahead.unwrap_or_else(|| signer.sign(template)));
        }
        (number, template.bytes())
    }

    fn sign_next(&mut self) -> Option<Signature> {
        let (number, index) = self.advance();
        let template = &mut self.templates[index];
        template.stamp(number);
        Some(self.signer.as_ref()?.sign(template))
    }

    /// The next number and the index of its template.
    fn advance(&mut self) -> (u64, usize) {
        let next = (self.next_number, self.next_template);
        self.next_number += self.step;
        self.next_template = (self.next_template + 1) % self.templates.len();
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tickets::{Proof, templates_of_a_test};

    /// Signed ahead or when it is sent, a request is the same: compares more than are signed ahead.
    #[test]
    fn what_is_signed_ahead_is_what_would_be_signed() {
        let signer = Signer::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let proof = Proof::Signature(signer.timestamp().to_owned());
        let requests = || Requests::new(templates_of_a_test(&proof), (1, 2), Some(signer.clone()));
        let (mut ahead, mut late) = (requests(), requests());
        ahead.sign_ahead(300);
        for number in (1..801).step_by(2) {
            let (ahead, late) = (ahead.next(), late.next());
            assert_eq!((ahead.0, ahead), (number, late));
        }
    }

    #[test]
    fn what_is_not_signed_is_only_numbered() {
        let mut requests = Requests::new(templates_of_a_test(&Proof::None), (3, 4), None);
        requests.sign_ahead(10);
        for number in [3, 7, 11] {
            let (given, request) = requests.next();
            let order = format!("Order: run-{number:010}\n");
            let request = String::from_utf8(request.to_vec()).unwrap();
            assert!(given == number && request.contains(&order), "{request}");
        }
    }
}
