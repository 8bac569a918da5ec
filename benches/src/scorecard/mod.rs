//! A page of a carrier's scorecard: nine statements at once over milestones that stream in meanwhile.

pub mod events;
pub mod page;
pub mod run;
