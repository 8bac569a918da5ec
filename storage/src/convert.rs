//! Conversion of loosely typed values, as files and messages hold them, to a schema's types.
//!
//! A source hands over one [`Cell`] per input field; [`row::RowBuilder`] fills absent columns (transforms,
//! defaults), converts each cell and appends it to a column buffer. A row is taken whole or not at all:
//! when a cell can't be converted, what the row had appended before is cut off again, and the error names
//! the column and the value.
//!
//! Conversions never lose anything in silence: a number must fit exactly (only FLOAT and DOUBLE round, as
//! they do for every decimal text), text must read as the type, a list needs a multi-value column.

pub(crate) mod avro;
pub mod cell;
pub(crate) mod column;
pub(crate) mod decimal;
pub mod flatten;
pub mod json;
pub(crate) mod json_row;
pub mod row;
pub(crate) mod scalar;
#[cfg(test)]
mod tests;

pub use cell::Cell;
pub use row::{RowBuilder, RowError, RowLayout};
