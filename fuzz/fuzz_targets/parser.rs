//! The parser against the oracle, on any bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| ticketd_testing::properties::parser(input));
