//! Document sets in the portable roaring format, read where they lie.
//!
//! A set is written by CRoaring and read without being decoded: a chunk of documents is a container, found
//! by its key, and filling a chunk is a loop over that container's words, runs or numbers. Every access is
//! bounded by the set's bytes, so damaged bytes give a wrong set at worst (which the section's checksum
//! rules out), never a fault.

use crate::doc_bits::{DocBits, append_ones};
use crate::reader::{DocId, IndexError};
use crate::wire::corrupt;
use croaring::{Bitmap, Portable};

const COOKIE_NO_RUNS: u32 = 12_346;
const COOKIE_RUNS: u32 = 12_347;
/// Sets with runs and fewer containers than this have no offsets.
const OFFSETS_FROM: usize = 4;
/// Containers with more documents are bitmaps.
const ARRAY_MAX: usize = 4096;
const BITMAP_LEN: usize = 8192;

/// Appends `docs` (ascending, distinct) as a set.
pub(crate) fn write(docs: &[DocId], out: &mut Vec<u8>) {
    let mut set = Bitmap::of(docs);
    set.run_optimize();
    out.extend_from_slice(&set.serialize::<Portable>());
}

/// A set's headers over its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PortableSet<'a> {
    bytes: &'a [u8],
    containers: usize,
    /// Where the keys and cardinalities begin.
    heads: usize,
    runs: bool,
}

fn u16_of(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(
        bytes.get(at..at.checked_add(2)?)?.try_into().ok()?,
    ))
}

fn u32_of(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(
        bytes.get(at..at.checked_add(4)?)?.try_into().ok()?,
    ))
}

impl<'a> PortableSet<'a> {
    /// The set in `bytes`; none when they can't be one.
    pub(crate) fn new(bytes: &'a [u8]) -> Option<Self> {
        let cookie = u32_of(bytes, 0)?;
        let (containers, heads, runs) = if cookie == COOKIE_NO_RUNS {
            (u32_of(bytes, 4)? as usize, 8, false)
        } else if cookie & 0xffff == COOKIE_RUNS {
            let containers = (cookie >> 16) as usize + 1;
            (containers, 4 + containers.div_ceil(8), true)
        } else {
            return None;
        };
        (containers <= 65_536 && heads + containers * 4 <= bytes.len()).then_some(Self {
            bytes,
            containers,
            heads,
            runs,
        })
    }

    /// Checks that every container lies within the bytes, keys ascend and documents are below `docs`.
    pub(crate) fn validate(bytes: &'a [u8], docs: u32) -> Result<(), IndexError> {
        let damaged = || corrupt("a document set is damaged");
        let set = Self::new(bytes).ok_or_else(damaged)?;
        let mut previous = None;
        for i in 0..set.containers {
            let key = set.key(i).ok_or_else(damaged)?;
            let container = set.container(i).ok_or_else(damaged)?;
            let last = container.last().ok_or_else(damaged)?;
            if previous >= Some(key) || (u32::from(key) << 16 | u32::from(last)) >= docs {
                return Err(damaged());
            }
            previous = Some(key);
        }
        Ok(())
    }

    fn key(&self, i: usize) -> Option<u16> {
        u16_of(self.bytes, self.heads + i * 4)
    }

    fn cardinality(&self, i: usize) -> Option<usize> {
        Some(usize::from(u16_of(self.bytes, self.heads + i * 4 + 2)?) + 1)
    }

    fn is_run(&self, i: usize) -> bool {
        self.runs
            && self
                .bytes
                .get(4 + i / 8)
                .is_some_and(|b| b >> (i % 8) & 1 == 1)
    }

    /// Where container `i` begins.
    fn start(&self, i: usize) -> Option<usize> {
        let after_heads = self.heads + self.containers * 4;
        if !self.runs || self.containers >= OFFSETS_FROM {
            return Some(u32_of(self.bytes, after_heads + i * 4)? as usize);
        }
        let mut at = after_heads;
        for before in 0..i {
            at += if self.is_run(before) {
                2 + usize::from(u16_of(self.bytes, at)?) * 4
            } else {
                let cardinality = self.cardinality(before)?;
                if cardinality > ARRAY_MAX {
                    BITMAP_LEN
                } else {
                    cardinality * 2
                }
            };
        }
        Some(at)
    }

    fn container(&self, i: usize) -> Option<Container<'a>> {
        let start = self.start(i)?;
        if self.is_run(i) {
            let runs = usize::from(u16_of(self.bytes, start)?);
            let bytes = self.bytes.get(start + 2..start + 2 + runs * 4)?;
            return Some(Container::Runs(bytes.as_chunks::<4>().0));
        }
        let cardinality = self.cardinality(i)?;
        if cardinality > ARRAY_MAX {
            return Some(Container::Words(
                self.bytes
                    .get(start..start + BITMAP_LEN)?
                    .as_chunks::<8>()
                    .0,
            ));
        }
        Some(Container::Docs(
            self.bytes
                .get(start..start + cardinality * 2)?
                .as_chunks::<2>()
                .0,
        ))
    }

    /// Adds the documents of `chunk` to `out`.
    pub(crate) fn fill(&self, chunk: u32, out: &mut DocBits) {
        let (mut low, mut high) = (0, self.containers);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.key(middle) {
                Some(key) if u32::from(key) < chunk => low = middle + 1,
                _ => high = middle,
            }
        }
        if self
            .key(low)
            .is_some_and(|key| low < self.containers && u32::from(key) == chunk)
            && let Some(container) = self.container(low)
        {
            container.fill(out);
        }
    }

    /// Appends all documents, ascending.
    pub(crate) fn append_docs(&self, out: &mut Vec<DocId>) {
        for i in 0..self.containers {
            if let (Some(key), Some(container)) = (self.key(i), self.container(i)) {
                container.append_docs(u32::from(key) << 16, out);
            }
        }
    }

    /// How many documents.
    pub(crate) fn count(&self) -> u64 {
        (0..self.containers)
            .filter_map(|i| self.cardinality(i))
            .map(|c| c as u64)
            .sum()
    }
}

/// The documents of one chunk.
enum Container<'a> {
    Docs(&'a [[u8; 2]]),
    Words(&'a [[u8; 8]]),
    Runs(&'a [[u8; 4]]),
}

/// First and last document of a run.
fn run(bytes: &[u8; 4]) -> (u16, u16) {
    let [s0, s1, l0, l1] = *bytes;
    let start = u16::from_le_bytes([s0, s1]);
    (start, start.saturating_add(u16::from_le_bytes([l0, l1])))
}

impl Container<'_> {
    fn last(&self) -> Option<u16> {
        match self {
            Self::Docs(docs) => docs.last().map(|d| u16::from_le_bytes(*d)),
            Self::Runs(runs) => runs.last().map(|r| run(r).1),
            Self::Words(words) => {
                let i = words.iter().rposition(|w| u64::from_le_bytes(*w) != 0)?;
                Some(i as u16 * 64 + 63 - u64::from_le_bytes(words[i]).leading_zeros() as u16)
            }
        }
    }

    /// Appends the documents, the first of the chunk being `base`.
    fn append_docs(&self, base: DocId, out: &mut Vec<DocId>) {
        match self {
            Self::Docs(docs) => {
                out.extend(
                    docs.iter()
                        .map(|d| base + u32::from(u16::from_le_bytes(*d))),
                );
            }
            Self::Words(words) => {
                append_ones(words.iter().map(|w| u64::from_le_bytes(*w)), base, out);
            }
            Self::Runs(runs) => {
                for (start, end) in runs.iter().map(run) {
                    out.extend(base + u32::from(start)..=base + u32::from(end));
                }
            }
        }
    }

    fn fill(&self, out: &mut DocBits) {
        match self {
            Self::Docs(docs) => docs.iter().for_each(|d| out.insert(u16::from_le_bytes(*d))),
            Self::Words(words) => {
                for (to, from) in out.words_mut().iter_mut().zip(*words) {
                    *to |= u64::from_le_bytes(*from);
                }
            }
            Self::Runs(runs) => {
                for bytes in *runs {
                    let (start, end) = run(bytes);
                    out.insert_range(u32::from(start), u32::from(end) + 1);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sets with every kind of container, in few and in many containers.
    fn sets() -> Vec<Vec<u32>> {
        let mut sets = vec![
            vec![7],
            vec![65_535, 65_536],
            (0..200_000).collect(),
            (0..300_000).filter(|d| d % 3 != 1).collect(),
            (0..300_000).filter(|d| d % 700 == 0).collect(),
            (100..90_000)
                .chain((200_000..400_000).step_by(2))
                .chain(600_000..600_010)
                .collect(),
        ];
        sets.push(
            (0..10)
                .flat_map(|chunk| (0..(chunk + 1) * 700).map(move |d| chunk * 131_072 + d * 2))
                .collect(),
        );
        sets
    }

    #[test]
    fn chunks_are_filled_with_what_was_written() {
        for docs in sets() {
            let mut bytes = Vec::new();
            write(&docs, &mut bytes);
            let last = *docs.last().unwrap();
            PortableSet::validate(&bytes, last + 1).unwrap();
            assert!(
                PortableSet::validate(&bytes, last).is_err(),
                "a document beyond the column is refused"
            );
            let set = PortableSet::new(&bytes).unwrap();
            assert_eq!(set.count(), docs.len() as u64);
            let mut found = Vec::new();
            for chunk in 0..=(last >> 16) + 1 {
                let mut bits = DocBits::new();
                set.fill(chunk, &mut bits);
                bits.append_docs(chunk << 16, &mut found);
            }
            assert_eq!(found, docs);
            found.clear();
            set.append_docs(&mut found);
            assert_eq!(found, docs);
            let reference = Bitmap::try_deserialize::<Portable>(&bytes).unwrap();
            assert!(reference.internal_validate().is_ok());
            assert_eq!(reference.to_vec(), docs);
        }
    }

    #[test]
    fn cut_sets_are_refused() {
        for docs in sets() {
            let mut bytes = Vec::new();
            write(&docs, &mut bytes);
            for len in (0..bytes.len()).step_by((bytes.len() / 50).max(1)) {
                assert!(PortableSet::validate(&bytes[..len], u32::MAX).is_err());
            }
        }
    }
}
