//! Bodies all the way to their rows.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| ticketd_testing::properties::row(input));
