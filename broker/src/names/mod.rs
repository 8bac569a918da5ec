//! Names in statements: tables and columns match exactly, else uniquely without regard to case; result columns are
//! called as the user wrote them; what isn't found is reported with its place and the nearest names.
//!
//! A first pass over the syntax tree matches each name against all that are in play in the statement. Names that
//! another scope's names make ambiguous are settled by [`repair`], when planning fails to find them.

mod definitions;
mod nearest;
mod repair;
mod repeated;
mod resolve;
mod rewrite;
#[cfg(test)]
mod tests;
mod wildcard;

pub(crate) use nearest::nearest;
pub(crate) use repair::repair;
pub(crate) use repeated::{shown, shown_text};
pub(crate) use resolve::{Resolved, resolve};
