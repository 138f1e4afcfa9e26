use super::*;
use crate::publisher::replies::{WorkerReplies, reply_channels};
use futures_util::FutureExt;
use uuid::Uuid;

use crate::message::RECORD_HEAD_BYTES;
use crate::source::Origin;

const BODY: [u8; 1000] = [b'x'; 1000];

/// With one publisher, and the replies to its worker.
fn queue_and_replies(group: usize, inflight: usize) -> (PublishQueue, WorkerReplies) {
    queue_of_version(GroupVersion::V2, group, inflight)
}

fn queue_of_version(
    version: GroupVersion,
    group: usize,
    inflight: usize,
) -> (PublishQueue, WorkerReplies) {
    let limits = PublishLimits {
        group,
        version,
        inflight,
        inflight_bytes: 1 << 20,
        confirm_timeout: Duration::from_secs(5),
    };
    let (router, mut workers) = reply_channels(1);
    let queue = PublishQueue::new(limits, router, 1);
    queue.set_link(LinkState::Up);
    (queue, workers.remove(0))
}

fn queue(group: usize, inflight: usize) -> PublishQueue {
    queue_and_replies(group, inflight).0
}

fn submit(queue: &PublishQueue) -> Result<oneshot::Receiver<PublishResult>, PublishError> {
    submit_body(queue, &BODY)
}

fn submit_body(
    queue: &PublishQueue,
    body: &[u8],
) -> Result<oneshot::Receiver<PublishResult>, PublishError> {
    queue.submit(record(None, body), None, Instant::now(), 0)
}

fn record<'a>(issued_at_us: Option<i64>, body: &'a [u8]) -> Record<'a> {
    let origin = Origin {
        source: None,
        issued_at_us,
    };
    Record {
        id: Uuid::nil(),
        received_at_us: 0,
        origin,
        body,
    }
}

fn singles(singles: usize) -> UnconfirmedMessages {
    UnconfirmedMessages { singles, bulk: 0 }
}

/// A whole group of so many tickets.
fn whole(tickets: usize) -> Group {
    let mut group = Group::default();
    (0..tickets).for_each(|_| group.add(record(None, &BODY)));
    group
}

/// The tickets of each group that is ready, while none waits for its confirm.
fn groups(queue: &PublishQueue) -> Vec<usize> {
    let groups = std::iter::from_fn(|| queue.next(singles(0)));
    groups.map(|group| group.tickets()).collect()
}

#[test]
fn a_ticket_that_the_written_version_cannot_hold_is_a_message_of_its_own() {
    for (version, expected) in [
        (GroupVersion::V1, vec![2, 1, 1, 1]),
        (GroupVersion::V2, vec![5]),
    ] {
        let (queue, _replies) = queue_of_version(version, 100, 100);
        let mut waiting = Vec::new();
        for issued_at_us in [None, None, Some(1), Some(2), None] {
            let record = record(issued_at_us, b"x");
            waiting.push(
                queue
                    .submit(record, None, Instant::now(), 0)
                    .expect("taken"),
            );
        }
        assert_eq!(groups(&queue), expected, "{version:?}");
    }
}

#[test]
fn a_group_that_grows_with_its_version_keeps_to_its_size_and_is_settled_whole() {
    let (queue, _replies) = queue_and_replies(100_000, 100_000);
    let mut waiting = Vec::new();
    // As many as fit, were they not to become larger.
    let each = RECORD_HEAD_BYTES + 1;
    for _ in 0..(GROUP_BYTES_MAX / each) {
        let submitted = queue.submit(record(None, b"x"), None, Instant::now(), 0);
        waiting.push(submitted.expect("taken"));
    }
    let submitted = queue.submit(record(Some(1), b"x"), None, Instant::now(), 0);
    waiting.push(submitted.expect("taken"));
    let submitted = queue.submit(record(None, b"x"), None, Instant::now(), 0);
    waiting.push(submitted.expect("taken"));
    let groups: Vec<_> = std::iter::from_fn(|| queue.next(singles(0))).collect();
    assert_eq!(groups.len(), 2);
    assert!(groups.iter().all(|group| group.bytes() <= GROUP_BYTES_MAX));
    groups
        .into_iter()
        .for_each(|group| queue.settle(group, Ok(())));
    let mut few = Vec::new();
    for issued_at_us in [None, None, Some(1)] {
        let submitted = queue.submit(record(issued_at_us, b"x"), None, Instant::now(), 0);
        few.push(submitted.expect("taken"));
    }
    let upgraded = queue.next(singles(0)).expect("a group");
    queue.settle(upgraded, Ok(()));
    let state = queue.state();
    assert_eq!((state.tickets, state.bytes), (0, 0));
}

#[test]
fn a_full_group_is_published_and_a_partial_one_waits_for_the_one_before() {
    let queue = queue(2, 100);
    let _waiting: Vec<_> = (0..3).map(|_| submit(&queue).expect("taken")).collect();
    assert_eq!(queue.next(singles(9)).map(|group| group.tickets()), Some(2));
    assert!(queue.next(singles(1)).is_none());
    assert_eq!(queue.next(singles(0)).map(|group| group.tickets()), Some(1));
    assert!(queue.next(singles(0)).is_none());
}

#[test]
fn a_partial_group_follows_a_single_other_once_it_holds_half_of_the_tickets() {
    let queue = queue(100, 100);
    let mut waiting: Vec<_> = (0..2).map(|_| submit(&queue).expect("taken")).collect();
    let _published = queue.next(singles(0)).expect("a group");
    waiting.push(submit(&queue).expect("taken"));
    assert!(queue.next(singles(1)).is_none());
    waiting.push(submit(&queue).expect("taken"));
    assert!(queue.next(singles(2)).is_none());
    assert_eq!(queue.next(singles(1)).map(|group| group.tickets()), Some(2));
}

#[test]
fn a_lone_ticket_is_published_immediately() {
    let queue = queue(100, 100);
    let mut waiting = vec![submit(&queue).expect("taken")];
    assert!(!queue.should_linger(singles(0)));
    waiting.push(submit(&queue).expect("taken"));
    assert!(queue.should_linger(singles(0)));
    assert!(!queue.should_linger(singles(2)));
}

#[test]
fn the_publisher_is_woken_once_and_only_for_what_it_may_publish() {
    let queue = queue(2, 100);
    let woken = || queue.arrived().now_or_never().is_some();
    let mut waiting = vec![submit(&queue).expect("taken")];
    assert!(woken(), "no other waits for its confirm");
    let _published = queue.next(singles(0)).expect("a group");
    assert!(queue.next(singles(2)).is_none());
    waiting.push(submit(&queue).expect("taken"));
    assert!(!woken(), "two others wait for their confirms");
    waiting.push(submit(&queue).expect("taken"));
    assert!(woken(), "a full group");
    waiting.push(submit(&queue).expect("taken"));
    assert!(!woken(), "it has not looked since");
}

#[test]
fn nothing_more_can_come_once_every_publisher_is_gone() {
    let limits = queue(1, 1).limits;
    let queue = PublishQueue::new(limits, reply_channels(2).0, 2);
    queue.close();
    assert!(!queue.is_finished());
    queue.close();
    assert!(queue.is_finished());
}

#[test]
fn a_group_is_bounded_in_bytes() {
    let rest = GROUP_BYTES_MAX - 2 * RECORD_HEAD_BYTES - BODY.len();
    for (more, groups) in [(0, [2, 0]), (1, [1, 1])] {
        let queue = queue(10_000, 10_000);
        let _first = submit(&queue).expect("taken");
        let _second = submit_body(&queue, &vec![b'x'; rest + more]).expect("taken");
        let next = || queue.next(singles(0)).map_or(0, |group| group.tickets());
        assert_eq!([next(), next()], groups, "{more} more");
    }
}

#[test]
fn a_ticket_larger_than_a_group_is_one_of_its_own() {
    let queue = queue(10_000, 10_000);
    let _first = submit(&queue).expect("taken");
    let _large = submit_body(&queue, &vec![b'x'; 2 * GROUP_BYTES_MAX]).expect("taken");
    let _last = submit(&queue).expect("taken");
    let groups = std::iter::from_fn(|| queue.next(singles(0)));
    assert_eq!(
        groups.map(|group| group.tickets()).collect::<Vec<_>>(),
        [1; 3]
    );
}

#[test]
fn what_is_not_settled_is_bounded_in_bytes_too() {
    let (queue, _replies) = queue_and_replies(10_000, 10_000);
    let most = queue.limits.inflight_bytes;
    let _first = submit_body(&queue, &vec![b'x'; most - RECORD_HEAD_BYTES - 1]).expect("taken");
    let _reaches_it = submit(&queue).expect("there was a byte left");
    assert_eq!(submit(&queue).err(), Some(PublishError::Overloaded));
    queue.settle(queue.next(singles(0)).expect("the first"), Ok(()));
    assert!(submit(&queue).is_ok());

    let queue = queue_and_replies(10_000, 10_000).0;
    let _reaches_it = submit_body(&queue, &vec![b'x'; most - RECORD_HEAD_BYTES]).expect("taken");
    assert_eq!(submit(&queue).err(), Some(PublishError::Overloaded));
}

#[test]
fn few_buffers_are_kept() {
    let queue = queue(1, 100);
    let _waiting: Vec<_> = (0..20).map(|_| submit(&queue).expect("taken")).collect();
    while let Some(group) = queue.next(singles(0)) {
        queue.settle(group, Ok(()));
    }
    assert_eq!(queue.state().spare.len(), SPARE_MAX);
}

#[tokio::test]
async fn what_is_not_settled_is_bounded_and_settling_makes_room() {
    let (queue, replies) = queue_and_replies(10, 2);
    let mut waiting: Vec<_> = (0..2).map(|_| submit(&queue).expect("taken")).collect();
    assert_eq!(submit(&queue).err(), Some(PublishError::Overloaded));
    queue.settle(queue.next(singles(0)).expect("a group"), Ok(()));
    assert!(submit(&queue).is_ok());
    assert_eq!(queue.tickets(), 1);
    drop(queue);
    replies.forward().await;
    assert_eq!(waiting.remove(0).try_recv(), Ok(Ok(())));
}

#[test]
fn without_a_link_nothing_is_taken() {
    let queue = queue(10, 10);
    for (link, error) in [
        (LinkState::Down, PublishError::Unavailable),
        (LinkState::Blocked, PublishError::Blocked),
    ] {
        queue.set_link(link);
        assert_eq!(submit(&queue).err(), Some(error));
    }
    assert_eq!(queue.tickets(), 0);
}

#[tokio::test]
async fn overdue_tickets_get_a_result_and_their_group_is_dropped() {
    let (queue, replies) = queue_and_replies(10, 10);
    let mut result = submit(&queue).expect("taken");
    queue.expire(Err(PublishError::Timeout), Instant::now());
    assert!(result.try_recv().is_err(), "in time");
    queue.expire(
        Err(PublishError::Timeout),
        Instant::now() + Duration::from_secs(6),
    );
    assert!(queue.next(singles(0)).is_none());
    assert_eq!((queue.tickets(), queue.state().bytes), (0, 0));
    drop(queue);
    replies.forward().await;
    assert_eq!(result.try_recv(), Ok(Err(PublishError::Timeout)));
}

#[test]
fn requeued_groups_are_published_first_and_in_their_order() {
    let queue = queue(1, 10);
    let _waiting: Vec<_> = (0..3).map(|_| submit(&queue).expect("taken")).collect();
    let mut taken: Vec<_> = (0..2).filter_map(|_| queue.next(singles(9))).collect();
    let first = taken[0].message().properties.clone();
    queue.requeue(taken.drain(..).rev());
    let again = queue.next(singles(9)).expect("a group").message();
    assert_eq!(again.properties, first);
}

#[tokio::test]
async fn whole_groups_come_after_all_others_and_few_at_a_time() {
    let queue = queue(2, 100);
    let mut waiting = Vec::new();
    for _ in 0..BULK_UNCONFIRMED_MAX + 1 {
        waiting.push(queue.submit_group(whole(3), 0).await.expect("accepted"));
    }
    let _single = submit(&queue).expect("accepted");
    queue.state().single_at = None;
    let mut unconfirmed = singles(0);
    let mut groups = Vec::new();
    while let Some(group) = queue.next(unconfirmed) {
        unconfirmed.bulk += usize::from(group.is_bulk());
        unconfirmed.singles += usize::from(!group.is_bulk());
        groups.push(group);
    }
    let tickets: Vec<_> = groups.iter().map(Group::tickets).collect();
    assert_eq!(tickets, [1, 3, 3, 3, 3]);
    // However many whole groups wait for their confirms, a lone ticket does not.
    unconfirmed.singles = 0;
    let _single = submit(&queue).expect("accepted");
    assert_eq!(
        queue.next(unconfirmed).map(|group| group.tickets()),
        Some(1)
    );
    unconfirmed.bulk = BULK_UNCONFIRMED_BESIDE_SINGLES;
    assert!(queue.next(unconfirmed).is_none(), "single tickets come");
    unconfirmed.bulk = BULK_UNCONFIRMED_MAX;
    queue.state().single_at = Instant::now().checked_sub(SINGLES_LAST);
    assert!(queue.next(unconfirmed).is_none());
    unconfirmed.bulk -= 1;
    assert_eq!(
        queue.next(unconfirmed).map(|group| group.tickets()),
        Some(3)
    );
}

#[tokio::test]
async fn whole_groups_are_small_while_single_tickets_come() {
    let queue = queue(1024, 100);
    assert_eq!(queue.empty_group().1, 1024);
    let _single = submit(&queue).expect("accepted");
    assert_eq!(queue.empty_group().1, BULK_GROUP_BESIDE_SINGLES);
    queue.state().single_at = Instant::now().checked_sub(SINGLES_LAST);
    assert_eq!(queue.empty_group().1, 1024);
}

#[tokio::test]
async fn a_whole_group_has_one_result_and_takes_no_room_of_single_tickets() {
    let (queue, replies) = queue_and_replies(2, 1);
    let mut first = queue.submit_group(whole(5), 0).await.expect("accepted");
    let mut other = queue.submit_group(whole(5), 0).await.expect("accepted");
    let single = submit(&queue).expect("accepted");
    assert_eq!(queue.tickets(), 11);
    let group = queue.next(singles(2)).expect("a group");
    queue.settle(group, Ok(()));
    let late = Instant::now() + queue.confirm_timeout();
    queue.expire(Err(PublishError::Timeout), late);
    assert_eq!(queue.tickets(), 0);
    queue.close();
    assert!(queue.is_finished());
    drop((queue, single));
    replies.forward().await;
    assert_eq!(first.try_recv(), Ok(Ok(())));
    assert_eq!(other.try_recv(), Ok(Err(PublishError::Timeout)));
}

#[tokio::test]
async fn a_whole_group_that_is_published_again_stays_behind_single_tickets() {
    let queue = queue(2, 100);
    let _result = queue.submit_group(whole(3), 0).await.expect("accepted");
    let bulk = queue.next(singles(0)).expect("a group");
    let _single = submit(&queue).expect("accepted");
    queue.requeue([bulk].into_iter());
    assert_eq!(groups(&queue), [1, 3]);
    queue.set_link(LinkState::Down);
    let refused = queue.submit_group(whole(1), 0).await.err();
    assert_eq!(refused, Some(PublishError::Unavailable));
}
