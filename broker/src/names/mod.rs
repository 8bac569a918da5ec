//! Names in statements: tables and columns match exactly, else uniquely without regard to case; result columns are
//! called as the user wrote them; what isn't found is reported with its place and the nearest names.
//!
//! A first pass over the syntax tree matches each name against all that are in play in the statement. Names that
//! another scope's names make ambiguous are settled by [`repair`], when planning fails to find them.

mod nearest;
mod resolve;
#[cfg(test)]
mod tests;

pub(crate) use nearest::nearest;
pub(crate) use resolve::{Resolved, repair, resolve};

/// Stands between a result column's name and the number that tells it from another of the same name.
const REPEAT_MARK: char = '\u{1f}';

/// A result column's name as the user sees it.
pub(crate) fn shown(name: &str) -> &str {
    name.split(REPEAT_MARK).next().unwrap_or(name)
}

/// A text that may hold result columns' names, as the user sees it.
pub(crate) fn shown_text(text: &str) -> String {
    text.chars().filter(|c| *c != REPEAT_MARK).collect()
}
