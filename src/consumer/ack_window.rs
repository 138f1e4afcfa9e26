//! Which deliveries of a channel may be acknowledged, and whether more can come. Pure.

use std::collections::VecDeque;

/// The delivery tags of one channel: 1, 2, 3 and so on (AMQP 0-9-1, section 3.1.8, delivery-tag).
///
/// An acknowledgement with `multiple` covers every lower tag too, so a tag is handed out only once
/// it and all before it are stored, in whatever order batches finish.
#[derive(Debug)]
pub(super) struct AckWindow {
    first_open: u64,
    deliveries: VecDeque<Delivery>,
    queues: Vec<Queue>,
}

/// What became of one delivery.
#[derive(Debug, Clone, Default)]
struct Delivery {
    /// Where it came from; none until it has come.
    queue: Option<usize>,
    /// When the first ticket in it was received.
    oldest_us: i64,
    stored: bool,
}

/// A queue that the channel is subscribed to.
#[derive(Debug)]
struct Queue {
    prefetch: usize,
    unacknowledged: usize,
}

impl AckWindow {
    /// For a channel on which nothing was delivered yet, subscribed to queues with these
    /// prefetches.
    pub(super) fn new(prefetches: &[u16]) -> Self {
        let queue = |&prefetch: &u16| Queue {
            prefetch: prefetch.into(),
            unacknowledged: 0,
        };
        Self {
            first_open: 1,
            deliveries: VecDeque::new(),
            queues: prefetches.iter().map(queue).collect(),
        }
    }

    /// Records a delivery from a queue, by its place among the prefetches, and when the first ticket
    /// in it was received.
    pub(super) fn deliver(&mut self, tag: u64, queue: usize, oldest_us: i64) {
        if let Some(delivery) = self.delivery(tag)
            && delivery.queue.replace(queue).is_none()
        {
            delivery.oldest_us = oldest_us;
            if let Some(queue) = self.queues.get_mut(queue) {
                queue.unacknowledged += 1;
            }
        }
    }

    /// When the oldest ticket was received that was delivered and is not stored; none while there is
    /// none.
    pub(super) fn oldest_us(&self) -> Option<i64> {
        let open = |delivery: &&Delivery| delivery.queue.is_some() && !delivery.stored;
        let times_us = self.deliveries.iter().filter(open);
        times_us.map(|delivery| delivery.oldest_us).min()
    }

    /// Whether one of the queues has delivered all that its prefetch allows, so that nothing more
    /// comes from it before something is acknowledged.
    pub(super) fn is_exhausted(&self) -> bool {
        self.queues
            .iter()
            .any(|queue| queue.unacknowledged >= queue.prefetch)
    }

    /// Records that these tags are stored. Returns the tag up to which all are, if it has moved.
    pub(super) fn store(&mut self, tags: &[u64]) -> Option<u64> {
        for tag in tags {
            if let Some(delivery) = self.delivery(*tag) {
                delivery.stored = true;
            }
        }
        let before = self.first_open;
        while let Some(delivery) = self.deliveries.front()
            && delivery.stored
        {
            if let Some(queue) = delivery.queue.and_then(|queue| self.queues.get_mut(queue)) {
                queue.unacknowledged -= 1;
            }
            self.deliveries.pop_front();
            self.first_open += 1;
        }
        (self.first_open > before).then(|| self.first_open - 1)
    }

    /// What is known of a tag; none once it may be acknowledged.
    fn delivery(&mut self, tag: u64) -> Option<&mut Delivery> {
        let at = usize::try_from(tag.checked_sub(self.first_open)?).ok()?;
        if at >= self.deliveries.len() {
            self.deliveries.resize(at + 1, Delivery::default());
        }
        self.deliveries.get_mut(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_gap_holds_back_what_comes_after_it() {
        let mut window = AckWindow::new(&[]);
        assert_eq!(window.store(&[2, 3]), None);
        assert_eq!(window.store(&[5]), None);
        assert_eq!(window.store(&[1]), Some(3));
        assert_eq!(window.store(&[4]), Some(5));
        assert_eq!(window.store(&[]), None);
    }

    #[test]
    fn a_tag_seen_twice_or_never_delivered_changes_nothing() {
        let mut window = AckWindow::new(&[]);
        assert_eq!(window.store(&[1, 1, 0]), Some(1));
        assert_eq!(window.store(&[1]), None);
        assert_eq!(window.store(&[2]), Some(2));
    }

    #[test]
    fn nothing_more_can_come_once_a_queue_has_delivered_its_prefetch() {
        let mut window = AckWindow::new(&[3, 2]);
        for (tag, queue) in [(1, 0), (2, 0), (4, 1), (4, 1)] {
            window.deliver(tag, queue, 0);
        }
        assert!(!window.is_exhausted(), "a tag counts once");
        window.deliver(3, 1, 0);
        assert!(window.is_exhausted(), "the second queue");
        assert_eq!(window.store(&[3]), None);
        assert!(window.is_exhausted(), "stored, but not acknowledged");
        assert_eq!(window.store(&[1, 2]), Some(3));
        assert!(!window.is_exhausted());
        for tag in 5..8 {
            window.deliver(tag, 0, 0);
        }
        assert!(window.is_exhausted(), "the first queue");
    }

    #[test]
    fn the_oldest_is_of_what_is_delivered_and_not_stored() {
        let mut window = AckWindow::new(&[9]);
        assert_eq!(window.oldest_us(), None);
        for (tag, oldest_us) in [(1, 50), (2, 30), (4, 40)] {
            window.deliver(tag, 0, oldest_us);
        }
        assert_eq!(window.oldest_us(), Some(30));
        assert_eq!(window.store(&[2]), None, "behind a gap");
        assert_eq!(window.oldest_us(), Some(40));
        assert_eq!(window.store(&[1]), Some(2));
        assert_eq!(window.oldest_us(), Some(40), "the third has not come");
        assert_eq!(window.store(&[4]), None);
        assert_eq!(window.oldest_us(), None);
    }

    proptest! {
        #[test]
        fn what_is_acknowledged_is_stored(order in Just((1..=60_u64).collect::<Vec<_>>()).prop_shuffle(), size in 1..9_usize) {
            let mut window = AckWindow::new(&[]);
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
