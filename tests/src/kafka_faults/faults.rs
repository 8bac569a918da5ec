//! What goes wrong with brokers, drawn from a seed.

use super::relay::Cut;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use std::fmt;
use std::time::Duration;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The leader of most partitions ends at once, and is started again.
    Killed,
    /// The leader of most partitions stops, and goes on.
    Frozen,
    /// The network to one broker or both is cut.
    Cut,
    /// All leaders move to the other broker, and back.
    Moved,
    /// Messages are deleted before they are read, while consumption is paused or the network is cut.
    Overtaken,
}

const KINDS: [Kind; 5] = [
    Kind::Killed,
    Kind::Frozen,
    Kind::Cut,
    Kind::Moved,
    Kind::Overtaken,
];

/// Which brokers a cut separates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The one that leads most partitions.
    Leading,
    /// The other one.
    Following,
    /// Both.
    Both,
}

/// One fault.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Its kind.
    pub kind: Kind,
    /// How long it lasts.
    pub lasts: Duration,
    /// How the network is cut, if it is.
    pub cut: Option<Cut>,
    /// The brokers to which it is cut.
    pub reach: Reach,
    /// Which part of the messages that are not read is deleted, of [`Kind::Overtaken`].
    pub deleted: f64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Killed => write!(f, "broker killed")?,
            Kind::Frozen => write!(f, "broker frozen")?,
            Kind::Moved => write!(f, "leaders moved")?,
            Kind::Cut => write!(f, "network cut")?,
            Kind::Overtaken => write!(f, "overtaken by retention")?,
        }
        match self.cut {
            Some(how) => write!(f, " ({how:?}, {:?})", self.reach)?,
            None if self.kind == Kind::Overtaken => write!(f, " (consumption paused)")?,
            None => {}
        }
        write!(f, ", {:.1} s", self.lasts.as_secs_f64())
    }
}

/// So many faults, of each kind in turn, each lasting a second to `lasts_max`. With several of a kind one is short, one is
/// long and the others lie between.
pub fn draw(seed: u64, faults: usize, lasts_max: Duration) -> Vec<Fault> {
    let mut random = StdRng::seed_from_u64(seed);
    let rounds = faults.div_ceil(KINDS.len());
    // Of each kind, the parts of the range of times, in the order in which they come.
    let mut parts: Vec<(Kind, Vec<usize>)> = Vec::new();
    for kind in KINDS {
        let mut of_kind: Vec<usize> = (0..rounds).collect();
        of_kind.shuffle(&mut random);
        parts.push((kind, of_kind));
    }
    let mut drawn = Vec::new();
    for _ in 0..rounds {
        parts.shuffle(&mut random);
        for (kind, parts) in &mut parts {
            let (kind, part) = (*kind, parts.pop().unwrap_or_default());
            let part = (part as f64 + random.random::<f64>()) / rounds as f64;
            let second = Duration::from_secs(1);
            let is_cut = match kind {
                Kind::Cut => true,
                Kind::Overtaken => random.random(),
                _ => false,
            };
            let reach = match random.random_range(0..4) {
                _ if kind == Kind::Overtaken => Reach::Both,
                0 | 1 => Reach::Leading,
                2 => Reach::Following,
                _ => Reach::Both,
            };
            let cuts = [Cut::Silent, Cut::Forgotten, Cut::Refused];
            drawn.push(Fault {
                kind,
                lasts: second + lasts_max.saturating_sub(second).mul_f64(part),
                cut: cuts.choose(&mut random).copied().filter(|_| is_cut),
                reach,
                deleted: random.random_range(0.3..0.95),
            });
        }
    }
    drawn.truncate(faults);
    drawn
}
