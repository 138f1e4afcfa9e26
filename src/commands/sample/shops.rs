//! Made-up shops, and the tickets that come from them one after the other: the same for the same seed.

use std::time::Duration;

use fastrand::Rng;

use super::catalogue::CATALOGUE;
use super::receipt::{Fault, Receipt};

/// One of so many tickets is invalid.
const INVALID_ONE_IN: u32 = 50;

/// One of so many was issued before, and is sent only now.
const LATE_ONE_IN: u32 = 40;

/// One of so many is sent once more, as a ticket of its own.
const DOUBLED_ONE_IN: u32 = 200;

/// Before one of so many, order ids are left out.
const GAP_ONE_IN: u32 = 200;

/// One of so many has a discount.
const DISCOUNT_ONE_IN: u32 = 20;

/// How long ago a shop's first late ticket was issued.
const LATE_MIN: Duration = Duration::from_secs(2 * 3600);

/// The oldest late ticket.
const LATE_MAX: Duration = Duration::from_secs(5 * 24 * 3600);

/// The most articles of a ticket.
const ARTICLES_MAX: usize = 9;

/// Shops whose tills send tickets without end.
pub(super) struct Shops {
    random: Rng,
    seed: u64,
    shops: Vec<Shop>,
}

struct Shop {
    name: String,
    /// The next ticket's number.
    order: u64,
    /// The number of the last late ticket, and how long ago that was issued: numbers rise with time,
    /// so those of earlier tickets fall.
    late: (u64, Duration),
    /// Is sent once more.
    doubled: Option<SampleTicket>,
}

/// A ticket of one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SampleTicket {
    /// Which shop's, from 0.
    pub shop: usize,
    /// Its key.
    pub key: String,
    /// How long ago it was issued.
    pub age: Duration,
    /// As the till writes it.
    pub text: String,
}

impl Shops {
    /// Shops of these names.
    pub(super) fn new(names: Vec<String>, seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let shops = names.into_iter().zip(1..).map(|(name, number)| {
            // Far apart, as all numbers are of one sender where there are no credentials.
            let order = number * 1_000_000 + random.u64(100_000..500_000);
            Shop {
                name,
                order,
                late: (order, LATE_MIN),
                doubled: None,
            }
        });
        Self {
            shops: shops.collect(),
            random,
            seed,
        }
    }

    /// What these shops are called where nobody has named them.
    pub(super) fn names(count: u16) -> Vec<String> {
        let name = |number: u16| format!("shop-{number:02}");
        (1..=count).map(name).collect()
    }

    /// The next ticket; none if there are no shops.
    pub(super) fn next(&mut self) -> Option<SampleTicket> {
        let Self {
            random,
            seed,
            shops,
        } = self;
        let at = random.choice(0..shops.len())?;
        let shop = shops.get_mut(at)?;
        if let Some(doubled) = shop.doubled.take() {
            return Some(doubled);
        }
        let (order, age) = shop.issue(random);
        let ticket = SampleTicket {
            shop: at,
            key: format!("sample-{seed:x}/{}/{order}", shop.name),
            age,
            text: receipt(order, random).text(),
        };
        if one_in(DOUBLED_ONE_IN, random) {
            shop.doubled = Some(SampleTicket {
                key: format!("{}/again", ticket.key),
                ..ticket.clone()
            });
        }
        Some(ticket)
    }
}

impl Shop {
    /// The number of a ticket, and how long ago it was issued.
    fn issue(&mut self, random: &mut Rng) -> (u64, Duration) {
        let (order, age) = self.late;
        if one_in(LATE_ONE_IN, random) && age < LATE_MAX {
            let before = Duration::from_secs(random.u64(30..1200));
            self.late = (order - 1, age + before);
            return self.late;
        }
        if one_in(GAP_ONE_IN, random) {
            self.order += random.u64(1..=3);
        }
        self.order += 1;
        (self.order, Duration::ZERO)
    }
}

fn receipt(order: u64, random: &mut Rng) -> Receipt {
    let count = random.usize(1..=ARTICLES_MAX);
    let articles = (0..count).filter_map(|_| random.choice(CATALOGUE));
    let articles: Vec<_> = articles.collect();
    let is_reduced = one_in(DISCOUNT_ONE_IN, random) && articles.len() > 3;
    let fault = one_in(INVALID_ONE_IN, random).then(|| random.choice(Fault::ALL));
    Receipt {
        order,
        articles,
        discount: if is_reduced { 150 } else { 0 },
        fault: fault.flatten(),
    }
}

fn one_in(tickets: u32, random: &mut Rng) -> bool {
    random.u32(0..tickets) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ticket::parse;
    use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

    fn tickets(seed: u64, count: usize) -> Vec<SampleTicket> {
        let mut shops = Shops::new(Shops::names(20), seed);
        (0..count).filter_map(|_| shops.next()).collect()
    }

    fn order(ticket: &SampleTicket) -> u64 {
        let (_, rest) = ticket.text.split_once("Order: ").expect("an order");
        let (order, _) = rest.split_once('\n').expect("a line");
        order.parse().expect("a number")
    }

    #[test]
    fn a_seed_gives_the_same_tickets() {
        assert_eq!(tickets(7, 1_000), tickets(7, 1_000));
        assert_ne!(tickets(7, 10), tickets(8, 10));
        let mut none = Shops::new(Vec::new(), 7);
        assert_eq!(none.next(), None);
    }

    #[test]
    fn two_of_a_hundred_are_invalid_for_several_reasons() {
        let tickets = tickets(1, 20_000);
        let mut reasons = BTreeMap::<_, usize>::new();
        for ticket in &tickets {
            if let Some(invalid) = parse(&ticket.text, &mut Vec::new()).invalid {
                *reasons.entry(invalid.reason.code()).or_default() += 1;
            }
        }
        let invalid: usize = reasons.values().sum();
        assert!((300..=500).contains(&invalid), "{reasons:?}");
        assert_eq!(reasons.len(), Fault::ALL.len(), "{reasons:?}");
        assert!(reasons.values().all(|count| *count > 20), "{reasons:?}");
    }

    #[test]
    fn each_ticket_has_a_key_and_some_are_sent_twice() {
        let tickets = tickets(2, 20_000);
        let keys: HashSet<_> = tickets.iter().map(|ticket| &ticket.key).collect();
        assert_eq!(keys.len(), tickets.len());
        let mut times = HashMap::<_, usize>::new();
        for ticket in &tickets {
            *times.entry((ticket.shop, &ticket.text)).or_default() += 1;
        }
        let doubled = times.values().filter(|count| **count == 2).count();
        assert!((50..=150).contains(&doubled), "{doubled}");
        assert!(times.values().all(|count| *count <= 2));
    }

    #[test]
    fn numbers_rise_with_time_and_leave_few_out() {
        let tickets = tickets(3, 20_000);
        let late = tickets.iter().filter(|ticket| !ticket.age.is_zero());
        let late = late.count();
        assert!((300..=700).contains(&late), "{late}");
        for shop in 0..20 {
            let own = tickets.iter().filter(|ticket| ticket.shop == shop);
            let own: Vec<_> = own.map(|ticket| (ticket.age, order(ticket))).collect();
            let mut earlier: Vec<_> = own.iter().filter(|(age, _)| !age.is_zero()).collect();
            earlier.sort_by_key(|(_, order)| *order);
            assert!(earlier.is_sorted_by(|one, next| one.0 >= next.0));
            assert!(
                earlier
                    .iter()
                    .all(|(age, _)| (LATE_MIN..LATE_MAX * 2).contains(age))
            );
            let orders: BTreeSet<_> = own.iter().map(|(_, order)| *order).collect();
            let (first, last) = (orders.first().expect("one"), orders.last().expect("one"));
            let missing = last - first + 1 - orders.len() as u64;
            assert!((1..=40).contains(&missing), "{missing}");
        }
    }
}
