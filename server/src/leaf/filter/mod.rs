//! Filters: from a [`LeafFilter`](strandline_proto::leaf::LeafFilter) to the documents of a chunk that pass.
//!
//! A filter is planned once a query: operands become values of the column's own type (`operand`). It is compiled once a
//! segment: values become dictionary ids (`ids`), and each predicate gets its cheapest access path (`access`). A compiled node
//! *narrows* the documents that are left in a chunk (`node`), so that AND works on ever fewer of them; where an index names few
//! documents, they are a list instead (`few`).

mod access;
mod compile;
mod coverage;
mod few;
mod ids;
mod node;
mod operand;
mod text;
mod words;

pub(super) use compile::{Compiler, PlannedFilter, describe_filter};
pub(super) use coverage::{Cut, PlannedCoverage};
pub(super) use node::{Node, Scratch};
