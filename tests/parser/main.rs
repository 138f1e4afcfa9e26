//! The way from a body to its rows, without servers: cases by rule, the parser against its oracle on
//! generated tickets, and the properties that `make fuzz` attacks.

// With this clippy takes helpers for the tests that they are.
#![cfg(test)]

mod agreement;
mod cases;
mod properties;
