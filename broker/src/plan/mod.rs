//! From SQL's expressions and operators to leaf work.

pub mod context;
pub mod display;
pub mod filter;
pub mod leaf_exec;
pub(crate) mod one_zero;
mod parameter;
pub mod provider;
pub mod pushdown;
pub mod to_leaf;
pub(crate) mod yielding;
