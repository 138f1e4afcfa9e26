//! Groups, from any bytes and back to them.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| ticketd_testing::properties::group(input));
