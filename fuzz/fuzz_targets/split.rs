//! Texts of many tickets, in pieces.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| ticketd_testing::properties::split(input));
