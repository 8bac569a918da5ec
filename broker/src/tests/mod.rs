//! The broker over leaves in memory, held against plain DataFusion over the rows that must be visible.

mod differential;
mod fixture;
mod reference_leaf;
mod statements;
