//! Segments as a whole: what goes in as rows comes out as arrays, from consuming and immutable segments alike.

mod arrays;
mod conformance;
mod consuming;
mod corruption;
mod golden;
mod random;
mod rows;
mod text;
