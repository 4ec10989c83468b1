//! The table of functions that the tests walk through, and what it is made of.
#![allow(dead_code, reason = "the tests ask more of it")]

#[path = "../../../../conformance-tests/tests/walk/function.rs"]
pub(crate) mod function;
#[path = "../../../../conformance-tests/tests/walk/table.rs"]
pub(crate) mod table;
