//! Walking the whole function list: one table says how each function is called, and the tests derive everything from it.
#![allow(dead_code, unused_imports, reason = "each test file uses a part of it")]

mod call;
mod function;
mod table;
mod world;

pub(crate) use call::Call;
pub(crate) use function::{Argument, Effect, Function, Login, Template, Thing, WORDS, When};
pub(crate) use table::{TABLE, VERIFY_SIGNATURE, function, working};
pub(crate) use world::{World, open};
