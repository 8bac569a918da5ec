//! The simulated machine: what a seed decides, what happened so far, and the moment at which a life of the server ends.
//!
//! A life ends at a *point*: before a task goes on, within a file operation, on either side of a transaction. From that
//! point on nothing that the life still does has an effect; what the disk holds is settled right there.

use super::disk::{Disk, Image};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::VecDeque;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

/// The last lines of a trace, shown when its seed fails.
const LINES_SHOWN: usize = 80;

/// Where a life may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    /// Between two polls, or anywhere else.
    Any,
    /// Before a file operation, or within a write.
    File,
    /// Before or after a transaction of the metastore.
    Transaction,
}

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    /// The process dies; what it wrote stays.
    Kill,
    /// The power goes; of what was not synced anything may be gone.
    Power,
}

/// What fails, each once in so many times; 0: never.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    pub(super) files: u64,
    pub(super) metastore: u64,
    pub(super) stream: u64,
}

/// What happened, line by line.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// All lines, when they are kept.
    pub lines: Vec<String>,
    /// How many there were.
    pub count: u64,
    /// Of all of them.
    pub hash: u64,
    last: VecDeque<String>,
    keeps_all: bool,
}

impl Trace {
    fn add(&mut self, line: String) {
        let mut hasher = DefaultHasher::new();
        (self.hash, &line).hash(&mut hasher);
        self.hash = hasher.finish();
        self.count += 1;
        if self.keeps_all {
            self.lines.push(line);
        } else {
            if self.last.len() == LINES_SHOWN {
                self.last.pop_front();
            }
            self.last.push_back(line);
        }
    }

    /// Its end.
    pub(super) fn end(&self) -> Vec<String> {
        match self.keeps_all {
            true => {
                let from = self.lines.len().saturating_sub(LINES_SHOWN);
                self.lines[from..].to_vec()
            }
            false => self.last.iter().cloned().collect(),
        }
    }
}

struct Inner {
    random: StdRng,
    trace: Trace,
    life: u64,
    dead: bool,
    planned: Option<(Point, u64, Death)>,
    faults: Faults,
    image: Option<(Image, Death)>,
}

/// The machine.
pub(super) struct Machine {
    inner: Mutex<Inner>,
    root: String,
    pub(super) disk: Disk,
}

impl Machine {
    pub(super) fn new(seed: u64, root: &Path, keeps_trace: bool) -> Self {
        Self {
            inner: Mutex::new(Inner {
                random: StdRng::seed_from_u64(seed),
                trace: Trace {
                    keeps_all: keeps_trace,
                    ..Trace::default()
                },
                life: 0,
                dead: true,
                planned: None,
                faults: Faults::default(),
                image: None,
            }),
            root: format!("{}/", root.display()),
            disk: Disk::new(root),
        }
    }

    /// A number below `bound`.
    pub(super) fn below(&self, bound: u64) -> u64 {
        self.inner.lock().random.random_range(0..bound.max(1))
    }

    /// Whether something happens that does once in `times`; never for 0.
    pub(super) fn once_in(&self, times: u64) -> bool {
        times > 0 && self.below(times) == 0
    }

    /// 64 random bits.
    pub(super) fn bits(&self) -> u64 {
        self.inner.lock().random.random()
    }

    /// One of `items`.
    pub(super) fn one_of<T: Copy>(&self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }

    pub(super) fn note(&self, line: fmt::Arguments<'_>) {
        let mut inner = self.inner.lock();
        // What a life does after its end depends on when its parts are dropped.
        if !inner.dead {
            inner.trace.add(self.shown(&line.to_string()));
        }
    }

    /// A line without what differs from run to run: the disk's folder, and the numbers of temporary files.
    fn shown(&self, line: &str) -> String {
        if !line.contains('/') {
            return line.to_owned();
        }
        let folder = self.root.trim_end_matches('/');
        let line = line.replace(&self.root, "").replace(folder, ".");
        let mut parts = line.split(".tmp");
        let mut shown = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let is_number = |c: char| c.is_ascii_digit() || c == '-';
            let stem = shown.trim_end_matches(is_number).len();
            if shown[..stem].ends_with('.') && stem < shown.len() {
                shown.truncate(stem - 1);
            }
            shown.push_str(".tmp");
            shown.push_str(part);
        }
        shown
    }

    pub(super) fn trace(&self) -> Trace {
        self.inner.lock().trace.clone()
    }

    /// Begins a life; gives its number.
    pub(super) fn begin_life(&self) -> u64 {
        let mut inner = self.inner.lock();
        inner.life += 1;
        inner.dead = false;
        inner.planned = None;
        let line = format!("life {}", inner.life);
        inner.trace.add(line);
        inner.life
    }

    /// Whether a life is over.
    pub(super) fn is_over(&self, life: u64) -> bool {
        let inner = self.inner.lock();
        inner.dead || inner.life != life
    }

    pub(super) fn is_dead(&self) -> bool {
        self.inner.lock().dead
    }

    /// The life ends at the `left`th point of a kind from now on.
    pub(super) fn plan_death(&self, point: Point, left: u64, death: Death) {
        self.note(format_args!("dies at {point:?} {left} by {death:?}"));
        self.inner.lock().planned = Some((point, left, death));
    }

    pub(super) fn spare(&self) {
        self.inner.lock().planned = None;
    }

    pub(super) fn set_faults(&self, faults: Faults) {
        self.note(format_args!("{faults:?}"));
        self.inner.lock().faults = faults;
    }

    pub(super) fn faults(&self) -> Faults {
        self.inner.lock().faults
    }

    /// Whether the life ends right here. Then [`Self::settle`] follows, and nothing else has an effect.
    pub(super) fn dies(&self, point: Point) -> bool {
        let mut inner = self.inner.lock();
        if inner.dead {
            return true;
        }
        let Some((of, left, death)) = &mut inner.planned else {
            return false;
        };
        if *of != Point::Any && *of != point {
            return false;
        }
        *left = left.saturating_sub(1);
        if *left > 0 {
            return false;
        }
        let line = format!("dies at {point:?} by {death:?}");
        inner.trace.add(line);
        inner.dead = true;
        true
    }

    /// Passes a point; false when the life ends here.
    pub(super) fn passes(&self, point: Point) -> bool {
        if self.dies(point) {
            self.settle();
            return false;
        }
        true
    }

    /// Settles what the disk holds after the end of the life.
    pub(super) fn settle(&self) {
        let mut inner = self.inner.lock();
        if inner.image.is_some() {
            return;
        }
        let death = inner.planned.map_or(Death::Kill, |(_, _, death)| death);
        let random = &mut inner.random;
        let mut draw = |bound: u64| random.random_range(0..bound.max(1));
        let image = self.disk.image(death == Death::Power, &mut draw);
        inner.image = Some((image, death));
    }

    /// Ends the life in good order.
    pub(super) fn end_life(&self) {
        self.note(format_args!("ends"));
        let mut inner = self.inner.lock();
        inner.dead = true;
        inner.planned = None;
    }

    /// Brings the disk to what it holds after the end of the life. No file of it is open any more.
    pub(super) fn restore(&self) {
        let settled = self.inner.lock().image.take();
        if let Some((image, death)) = settled {
            self.disk.restore(image, death == Death::Power);
        }
    }
}
