//! One server of Strandline: the leaf engine, the segments and tails it holds, its front ends, and the
//! `strandline` command line.

mod allocator;
pub mod cli;
pub mod engine;
pub mod front;
pub mod host;
pub mod leaf;
