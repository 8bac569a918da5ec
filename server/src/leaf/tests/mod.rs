//! The engine against a naive evaluator, over random tables in every encoding.

mod behaviour;
mod differential;
mod generate;
mod memory;
pub(super) mod naive;
mod star_tree;
mod stored;
mod text;
