//! Which deliveries of a channel may be acknowledged. Pure.

use std::collections::VecDeque;

/// The delivery tags of one channel: 1, 2, 3 and so on (AMQP 0-9-1, section
/// 3.1.8, delivery-tag).
///
/// An acknowledgement with `multiple` covers every lower tag too, so a tag is
/// handed out only once it and all before it are stored, in whatever order
/// batches finish.
#[derive(Debug)]
pub struct Window {
    first_open: u64,
    stored: VecDeque<bool>,
}

impl Window {
    /// For a channel on which nothing was delivered yet.
    pub fn new() -> Self {
        Self {
            first_open: 1,
            stored: VecDeque::new(),
        }
    }

    /// Takes note that these tags are stored. Returns the tag up to which all
    /// are, if it has moved.
    pub fn store(&mut self, tags: &[u64]) -> Option<u64> {
        for tag in tags {
            let Some(at) = tag
                .checked_sub(self.first_open)
                .and_then(|at| usize::try_from(at).ok())
            else {
                continue;
            };
            if at >= self.stored.len() {
                self.stored.resize(at + 1, false);
            }
            if let Some(stored) = self.stored.get_mut(at) {
                *stored = true;
            }
        }
        let before = self.first_open;
        while self.stored.front() == Some(&true) {
            self.stored.pop_front();
            self.first_open += 1;
        }
        (self.first_open > before).then(|| self.first_open - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_gap_holds_back_what_comes_after_it() {
        let mut window = Window::new();
        assert_eq!(window.store(&[2, 3]), None);
        assert_eq!(window.store(&[5]), None);
        assert_eq!(window.store(&[1]), Some(3));
        assert_eq!(window.store(&[4]), Some(5));
        assert_eq!(window.store(&[]), None);
    }

    #[test]
    fn a_tag_seen_twice_or_never_delivered_changes_nothing() {
        let mut window = Window::new();
        assert_eq!(window.store(&[1, 1, 0]), Some(1));
        assert_eq!(window.store(&[1]), None);
        assert_eq!(window.store(&[2]), Some(2));
    }

    proptest! {
        #[test]
        fn what_is_acknowledged_is_stored(order in Just((1..=60_u64).collect::<Vec<_>>()).prop_shuffle(), size in 1..9_usize) {
            let mut window = Window::new();
            let mut stored = std::collections::BTreeSet::<u64>::new();
            let mut acknowledged = 0;
            for batch in order.chunks(size) {
                stored.extend(batch);
                if let Some(tag) = window.store(batch) {
                    prop_assert!(tag > acknowledged);
                    acknowledged = tag;
                    prop_assert!((1..=tag).all(|tag| stored.contains(&tag)));
                    prop_assert!(!stored.contains(&(tag + 1)));
                }
            }
            prop_assert_eq!(acknowledged, 60);
        }
    }
}
