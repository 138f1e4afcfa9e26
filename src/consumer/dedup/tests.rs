use super::*;
use lapin::BasicProperties;
use lapin::message::Delivery;

const FIRST: &str = "018f0000-0000-7000-8000-000000000001";
const SECOND: &str = "018f0000-0000-7000-8000-000000000002";
const OF_A_KEY: &str = "018f0000-0000-5000-8000-000000000003";

fn message(id: &str, body: &str, redelivered: bool) -> DeliveredMessage {
    let data = body.as_bytes().to_vec();
    let mut delivery = Delivery::mock(1, "".into(), "".into(), redelivered, data);
    delivery.properties = BasicProperties::default().with_message_id(id.into());
    DeliveredMessage::new(delivery, 0)
}

fn id(text: &str) -> Uuid {
    text.parse().expect("an id")
}

fn plan(messages: &[DeliveredMessage]) -> Plan<'_> {
    Plan::new(messages, Duration::ZERO)
}

/// How many rows `tickets` gets, and the ids that go to `dead_tickets`.
fn stored_and_dead(plan: &Plan<'_>) -> (u64, Vec<Uuid>) {
    let mut known = KnownProducts::new(Duration::ZERO);
    let (rows, _) = plan.encode(plan.all(), &mut known, Instant::now());
    let dead = rows.dead.iter().map(|dead| dead.ticket_id).collect();
    (rows.valid + rows.invalid, dead)
}

#[test]
fn tickets_are_in_the_order_of_their_ids() {
    let messages = [message(SECOND, "b", false), message(FIRST, "a", false)];
    let plan = plan(&messages);
    assert_eq!(plan.ids(plan.all()), [(id(FIRST), 1), (id(SECOND), 1)]);
    assert_eq!(stored_and_dead(&plan), (2, vec![]));
}

#[test]
fn redelivered_tickets_and_ids_made_from_keys_are_looked_up_first() {
    let messages = [
        message(FIRST, "a", false),
        message(SECOND, "b", true),
        message(OF_A_KEY, "c", false),
    ];
    assert_eq!(
        plan(&messages).possible_duplicates,
        [(id(SECOND), 1), (id(OF_A_KEY), 1)]
    );
}

#[test]
fn what_is_stored_already_is_not_stored_again_and_another_text_is_dead() {
    let messages = [message(FIRST, "a", true), message(SECOND, "b", true)];
    let mut plan = plan(&messages);
    assert!(!plan.resolve(plan.all(), &HashMap::new()));
    let stored = HashMap::from([(id(FIRST), "a".into()), (id(SECOND), "other".into())]);
    assert!(plan.resolve(plan.all(), &stored));
    assert_eq!(stored_and_dead(&plan), (0, vec![id(SECOND)]));
    assert!(!plan.resolve(plan.all(), &stored), "nothing is left");
}

#[test]
fn what_a_lost_server_had_is_looked_up_on_the_next_one() {
    let texts = [(FIRST, "a"), (SECOND, "b"), (SECOND, "b")];
    let messages = texts.map(|(id, text)| message(id, text, true));
    let mut plan = plan(&messages);
    let stored = HashMap::from([(id(FIRST), "a".into()), (id(SECOND), "other".into())]);
    assert!(plan.resolve(plan.all(), &stored));
    plan.possible_duplicates.clear();
    plan.reopen();
    let again = [(id(FIRST), 1), (id(SECOND), 1), (id(SECOND), 1)];
    assert_eq!(plan.possible_duplicates, again);
    plan.resolve(plan.all(), &HashMap::new());
    assert_eq!(stored_and_dead(&plan), (2, vec![]));
}

#[test]
fn of_one_id_the_first_text_in_a_batch_is_stored() {
    let texts = ["a", "a", "other"];
    let messages = texts.map(|text| message(OF_A_KEY, text, false));
    let mut plan = plan(&messages);
    assert!(plan.resolve(plan.all(), &HashMap::new()));
    assert_eq!(stored_and_dead(&plan), (1, vec![id(OF_A_KEY)]));
}

#[test]
fn the_first_of_a_batch_gives_way_to_what_was_stored_meanwhile() {
    let messages = ["a", "other", "a"].map(|text| message(OF_A_KEY, text, false));
    let mut plan = plan(&messages);
    assert!(plan.resolve(plan.all(), &HashMap::new()));
    assert_eq!(stored_and_dead(&plan), (1, vec![id(OF_A_KEY)]));
    let stored = HashMap::from([(id(OF_A_KEY), "other".into())]);
    assert!(plan.resolve(plan.all(), &stored));
    let mut known = KnownProducts::new(Duration::ZERO);
    let (rows, _) = plan.encode(plan.all(), &mut known, Instant::now());
    let dead: Vec<_> = rows.dead.iter().map(|dead| dead.body).collect();
    assert_eq!(
        (rows.valid + rows.invalid, dead),
        (0, vec![b"a".as_slice()])
    );
}

#[test]
fn an_id_is_resolved_as_a_whole() {
    let messages = [
        message(FIRST, "a", false),
        message(OF_A_KEY, "b", false),
        message(OF_A_KEY, "c", false),
        message(SECOND, "d", false),
    ];
    let plan = plan(&messages);
    let key = id(OF_A_KEY);
    assert_eq!(
        plan.ids(0..4),
        [key, key, id(FIRST), id(SECOND)].map(|id| (id, 1))
    );
    assert_eq!(plan.ids_len(), 3);
    for (ids, tickets) in [(0..1, 0..2), (1..2, 2..3), (1..3, 2..4), (0..3, 0..4)] {
        assert_eq!(plan.tickets_of(&ids), tickets);
    }
    assert_eq!(Plan::new(&[], Duration::ZERO).tickets_of(&(0..0)), 0..0);
}

#[test]
fn another_text_takes_the_place_of_one_that_is_dead_lettered() {
    let messages = ["a", "other", "a", "other", "third"].map(|text| message(OF_A_KEY, text, false));
    let mut plan = plan(&messages);
    assert_eq!(plan.candidate(0..5), Some((0, Kind::Invalid)));
    plan.dead_letter(0, 0..5, "too wide");
    assert_eq!(plan.candidate(0..5), Some((1, Kind::Invalid)));
    let mut known = KnownProducts::new(Duration::ZERO);
    let (rows, _) = plan.encode(plan.all(), &mut known, Instant::now());
    let dead: Vec<_> = rows.dead.iter().map(|dead| dead.body).collect();
    assert_eq!(rows.valid + rows.invalid, 1);
    assert_eq!(dead, [b"a".as_slice(), b"third"]);
    plan.dead_letter(1, 0..5, "too wide");
    plan.dead_letter(4, 0..5, "too wide");
    assert_eq!(plan.candidate(0..5), None);
}

#[test]
fn a_dead_lettered_ticket_is_not_stored_and_tells_nothing_more() {
    let messages = [
        message(FIRST, "a", false),
        message(SECOND, "\0", false),
        message(OF_A_KEY, "c", false),
    ];
    let mut plan = plan(&messages);
    let at = |id: &str| {
        plan.ids(plan.all())
            .iter()
            .position(|(known, _)| known.to_string() == id)
    };
    let (first, second, third) = (
        at(FIRST).unwrap(),
        at(SECOND).unwrap(),
        at(OF_A_KEY).unwrap(),
    );
    assert_eq!(plan.kind(second), None);
    assert!(!plan.is_alone(first));
    plan.dead_letter(third, third..third + 1, "too wide");
    assert!(plan.is_alone(first));
    assert_eq!(
        (plan.kind(first), plan.kind(third)),
        (Some(Kind::Invalid), None)
    );
    assert_eq!(stored_and_dead(&plan).0, 1);
    let again = [message(FIRST, "a", true)];
    assert!(!Plan::new(&again, Duration::ZERO).is_alone(0));
}

#[test]
fn a_time_before_all_calendars_is_dead_without_trying() {
    for (received_at_us, stored) in [(RECEIVED_AT_MIN_US, 1), (RECEIVED_AT_MIN_US - 1, 0)] {
        let mut data = Vec::new();
        let record = Record {
            id: id(FIRST),
            received_at_us,
            origin: crate::source::Origin::default(),
            body: b"a",
        };
        crate::message::append(crate::message::GroupVersion::V1, &mut data, record);
        let mut delivery = Delivery::mock(1, "".into(), "".into(), false, data);
        delivery.properties =
            BasicProperties::default().with_content_type(crate::message::GROUP.into());
        assert_eq!(
            stored_and_dead(&plan(&[DeliveredMessage::new(delivery, 0)])).0,
            stored
        );
    }
}
