//! The named steps of a commit, and the seam by which a fault can be put before or after each.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use strandline_proto::{Error, Result};

/// A step of a realtime commit, in order. Each is idempotent; a process killed anywhere resumes from the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The consuming segment takes no more rows; a new one takes its place.
    Seal,
    /// Where messages are archived, these go to the deep store.
    Archive,
    /// Its rows become an immutable file in the staging folder.
    Build,
    /// The file goes to the deep store, and is opened from there.
    Upload,
    /// One metastore transaction names the segment and moves the offset.
    Commit,
    /// Queries are given the immutable segment in place of the consuming one.
    Swap,
    /// Where rows have keys, these go to disk.
    Keys,
}

/// Which side of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Nothing of the step has happened.
    Before,
    /// All of it has.
    After,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Seal => "seal",
            Self::Archive => "archive",
            Self::Build => "build",
            Self::Upload => "upload",
            Self::Commit => "commit",
            Self::Swap => "swap",
            Self::Keys => "keys",
        })
    }
}

/// Where the process must abort, for tests of recovery: `commit.before:3` is before the third commit.
#[derive(Debug)]
pub struct KillPoint {
    step: Step,
    side: Side,
    left: AtomicU32,
}

impl FromStr for KillPoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = || {
            Error::invalid(format!(
                "kill point {text:?}: expected step.side:count with a step of seal, archive, build, upload, commit, swap, keys and a side of before, after"
            ))
        };
        let (place, count) = text.split_once(':').unwrap_or((text, "1"));
        let (step, side) = place.split_once('.').ok_or_else(refuse)?;
        let step = [
            Step::Seal,
            Step::Archive,
            Step::Build,
            Step::Upload,
            Step::Commit,
            Step::Swap,
            Step::Keys,
        ]
        .into_iter()
        .find(|s| s.to_string() == step)
        .ok_or_else(refuse)?;
        let side = match side {
            "before" => Side::Before,
            "after" => Side::After,
            _ => return Err(refuse()),
        };
        let left = AtomicU32::new(count.parse().ok().filter(|&n| n > 0).ok_or_else(refuse)?);
        Ok(Self { step, side, left })
    }
}

/// Told of every step as it happens.
#[derive(Debug, Default)]
pub struct Steps {
    kill: Option<KillPoint>,
}

impl Steps {
    /// Steps that abort the process at `kill`, when there is one.
    pub fn new(kill: Option<KillPoint>) -> Self {
        Self { kill }
    }

    /// Says that one side of a step is reached.
    pub fn reach(&self, step: Step, side: Side) {
        tracing::trace!(%step, ?side, "commit step");
        if let Some(kill) = &self.kill
            && kill.step == step
            && kill.side == side
            && kill.left.fetch_sub(1, Ordering::SeqCst) == 1
        {
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_point_names_its_step_side_and_count() {
        let point: KillPoint = "commit.after:3".parse().unwrap();
        assert_eq!(
            (point.step, point.side, point.left.into_inner()),
            (Step::Commit, Side::After, 3)
        );
        for wrong in [
            "commit",
            "commit.during",
            "fly.before",
            "seal.before:0",
            "seal.before:x",
        ] {
            assert!(wrong.parse::<KillPoint>().is_err(), "{wrong}");
        }
    }
}
