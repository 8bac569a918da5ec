//! The server: leaf engine, segment host, consumers, front ends.

pub mod leaf;
