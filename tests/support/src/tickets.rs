//! Tickets to send.

use std::path::PathBuf;

/// The ticket that the documentation shows.
pub const EXAMPLE: &str = include_str!("../../tickets/valid/example.txt");

/// A valid ticket of that order with one product of its own; tickets of different orders differ.
pub fn ticket(order: &str) -> String {
    format!(
        "Order: {order}\nVAT: 0.10\nTotal: 1.20\n\nproduct,product_id,price\nTea {order},t-{order},1.20\n"
    )
}

/// Where one of the sample tickets lies, such as `valid/quotes.txt`.
pub fn sample(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../tickets")
        .join(name)
}

/// This machine's time in µs since the Unix epoch, as ticketd counts it.
pub fn now_us() -> i64 {
    let since_epoch = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    i64::try_from(since_epoch.as_micros()).unwrap()
}
