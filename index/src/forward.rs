//! The forward index of an immutable column: an id or a value for each document, or for each element.
//!
//! ```text
//! | encoding u8 | type u8 | parameter u8 | 0 u8 | count u32 | payload |
//! encoding 1: packed dictionary ids; the parameter is their width in bits
//!          2: document ranges of a sorted column's ids
//!          3: values of fixed width, little-endian
//!          4: integers by frame of reference (I32, I64, and I128 when all fit 64 bits)
//!          5: texts in compressed blocks
//!          6: floats that are integers divided by ten to the power of the parameter, by frame of reference
//!          7: texts that are UUIDs, each once
//! ```

use crate::bitpack::{Blocks, PackedIds, bits_for};
use crate::fixed::{Fixed, by_type};
use crate::frame::Frame;
use crate::reader::{DictId, DistinctValues, DocSelection, IndexError, PhysicalType, ValueBuffer};
use crate::sorted::SortedRuns;
use crate::text_blocks::{Compression, TextBlocks};
use crate::uuids::Uuids;
use crate::wire::{corrupt, u8_at, u32_at};
use bytes::Bytes;

const HEADER: usize = 8;
const IDS: u8 = 1;
const RUNS: u8 = 2;
const PLAIN: u8 = 3;
const FRAME: u8 = 4;
const TEXT: u8 = 5;
const SCALED: u8 = 6;
const UUIDS: u8 = 7;
/// Largest power of ten that floats are scaled by.
const POWER_MAX: u8 = 6;
/// Documents that each id of a sorted column must have on average to be stored as ranges.
const RUN_DOCS_MIN: usize = 4;

/// An open forward index.
#[derive(Clone, Debug)]
pub(crate) enum Forward {
    Ids(PackedIds),
    Runs(SortedRuns),
    Plain {
        physical: PhysicalType,
        values: Bytes,
        len: usize,
    },
    Frame {
        physical: PhysicalType,
        values: Frame,
    },
    Text(TextBlocks),
    Uuids(Uuids),
    Scaled {
        physical: PhysicalType,
        values: Frame,
        divisor: f64,
    },
}

fn header(encoding: u8, physical: PhysicalType, parameter: u8, count: usize) -> Vec<u8> {
    let mut out = vec![encoding, physical.code(), parameter, 0];
    out.extend_from_slice(&(count as u32).to_le_bytes());
    out
}

/// The stored form of dictionary ids, each below `cardinality`; `sorted`: they ascend.
pub(crate) fn write_ids(
    ids: &[DictId],
    cardinality: u32,
    physical: PhysicalType,
    sorted: bool,
) -> Vec<u8> {
    if sorted && ids.len() >= (cardinality as usize).saturating_mul(RUN_DOCS_MIN) {
        let mut out = header(RUNS, physical, 0, ids.len());
        SortedRuns::write(ids, cardinality, &mut out);
        return out;
    }
    let width = bits_for(u64::from(cardinality.saturating_sub(1)));
    let mut out = header(IDS, physical, width as u8, ids.len());
    PackedIds::write(ids, width, &mut out);
    out
}

/// The stored form of raw values.
pub(crate) fn write_values(
    values: &ValueBuffer,
    compression: Compression,
) -> Result<Vec<u8>, IndexError> {
    let (physical, count) = (values.physical(), values.len());
    let integer: Option<&dyn Fn(usize) -> i64> = match values {
        ValueBuffer::I32(v) => Some(&|i| v.get(i).copied().unwrap_or(0).into()),
        ValueBuffer::I64(v) => Some(&|i| v.get(i).copied().unwrap_or(0)),
        ValueBuffer::I128(v) if v.iter().all(|v| i64::try_from(*v).is_ok()) => {
            Some(&|i| v.get(i).copied().unwrap_or(0) as i64)
        }
        _ => None,
    };
    if let Some(integer) = integer {
        let mut out = header(FRAME, physical, 0, count);
        Frame::write(count, integer, &mut out);
        return Ok(out);
    }
    let scaled = match values {
        ValueBuffer::F32(v) => scale(
            v,
            |v, divisor| (f64::from(v) * divisor).round(),
            |n, d| (n as f64 / d) as f32,
        ),
        ValueBuffer::F64(v) => scale(
            v,
            |v, divisor| (v * divisor).round(),
            |n, divisor| n as f64 / divisor,
        ),
        _ => None,
    };
    let mut plain = header(PLAIN, physical, 0, count);
    if let Some((power, integers)) = scaled {
        let mut out = header(SCALED, physical, power, count);
        Frame::write(count, |i| integers.get(i).copied().unwrap_or(0), &mut out);
        let plain_len = plain.len() + by_type!(physical, T => T::WIDTH * count, bytes => 0);
        if out.len() < plain_len - plain_len / 8 {
            return Ok(out);
        }
    }
    by_type!(physical, T => {
        T::slice(values).unwrap_or_default().iter().for_each(|v| v.put(&mut plain));
    }, bytes => {
        plain = header(UUIDS, physical, 0, count);
        if !Uuids::write(values, &mut plain) {
            plain = header(TEXT, physical, 0, count);
            TextBlocks::write(values, compression, &mut plain)?;
        }
    });
    Ok(plain)
}

/// The least power of ten that makes all of `values` integers without losing a bit, and those integers.
fn scale<T: Fixed>(
    values: &[T],
    up: impl Fn(T, f64) -> f64,
    down: impl Fn(i64, f64) -> T,
) -> Option<(u8, Vec<i64>)> {
    let exact = |v: T, divisor: f64| {
        let n = up(v, divisor);
        // beyond 2^53 neighbouring integers are not told apart
        (n.abs() < (1u64 << 53) as f64 && down(n as i64, divisor).key() == v.key())
            .then_some(n as i64)
    };
    let mut power = 0;
    'powers: while power <= POWER_MAX {
        let divisor = 10f64.powi(power.into());
        let mut integers = Vec::new();
        for (i, &v) in values.iter().enumerate() {
            match exact(v, divisor) {
                Some(n) => {
                    if i == 0 {
                        integers.reserve_exact(values.len());
                    }
                    integers.push(n);
                }
                None => {
                    power += 1;
                    continue 'powers;
                }
            }
        }
        return Some((power, integers));
    }
    None
}

impl Forward {
    pub(crate) fn open(bytes: Bytes) -> Result<Self, IndexError> {
        let (encoding, code, parameter) = (u8_at(&bytes, 0)?, u8_at(&bytes, 1)?, u8_at(&bytes, 2)?);
        let count = u32_at(&bytes, 4)?;
        let len = count as usize;
        let physical = PhysicalType::from_code(code)
            .ok_or_else(|| corrupt(format!("a forward index of the unknown type {code}")))?;
        let payload = bytes.slice(HEADER.min(bytes.len())..);
        let is_float = matches!(physical, PhysicalType::F32 | PhysicalType::F64);
        let forward = match encoding {
            IDS => Self::Ids(PackedIds::open(payload, parameter.into(), len)?),
            RUNS => Self::Runs(SortedRuns::open(payload, count)?),
            PLAIN => {
                let width = by_type!(physical, T => T::WIDTH, bytes => {
                    return Err(corrupt("texts can't be stored as values of fixed width"));
                });
                if len.checked_mul(width) != Some(payload.len()) {
                    return Err(corrupt(format!("{len} values in {} bytes", payload.len())));
                }
                Self::Plain {
                    physical,
                    values: payload,
                    len,
                }
            }
            FRAME if !is_float && physical != PhysicalType::Bytes => Self::Frame {
                physical,
                values: Frame::open(payload)?,
            },
            TEXT if physical == PhysicalType::Bytes => Self::Text(TextBlocks::open(payload)?),
            UUIDS if physical == PhysicalType::Bytes => Self::Uuids(Uuids::open(&payload, len)?),
            SCALED if is_float && parameter <= POWER_MAX => Self::Scaled {
                physical,
                values: Frame::open(payload)?,
                divisor: 10f64.powi(parameter.into()),
            },
            _ => {
                return Err(corrupt(format!(
                    "a forward index of the unknown encoding {encoding}"
                )));
            }
        };
        let held = match &forward {
            Self::Ids(ids) => ids.len(),
            Self::Runs(_) | Self::Plain { .. } => len,
            Self::Frame { values, .. } | Self::Scaled { values, .. } => values.len(),
            Self::Text(texts) => texts.len(),
            Self::Uuids(uuids) => uuids.len(),
        };
        if held != len {
            return Err(corrupt(format!(
                "a forward index holds {held} values, {len} were expected"
            )));
        }
        Ok(forward)
    }

    /// Ids or values.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Ids(ids) => ids.len(),
            Self::Runs(runs) => runs.docs(0..u32::MAX).len(),
            Self::Plain { len, .. } => *len,
            Self::Frame { values, .. } | Self::Scaled { values, .. } => values.len(),
            Self::Text(texts) => texts.len(),
            Self::Uuids(uuids) => uuids.len(),
        }
    }

    /// The values of raw storage that holds each once.
    pub(crate) fn distinct(&self) -> Option<&dyn DistinctValues> {
        match self {
            Self::Uuids(uuids) => Some(uuids),
            _ => None,
        }
    }

    /// The type of raw values; none: ids.
    pub(crate) fn raw_type(&self) -> Option<PhysicalType> {
        match self {
            Self::Ids(_) | Self::Runs(_) => None,
            Self::Plain { physical, .. }
            | Self::Frame { physical, .. }
            | Self::Scaled { physical, .. } => Some(*physical),
            Self::Text(_) | Self::Uuids(_) => Some(PhysicalType::Bytes),
        }
    }

    /// Gives the ids of a selection, at most 1,024 at a time; nothing when values are raw.
    pub(crate) fn for_ids(&self, docs: &DocSelection<'_>, sink: impl FnMut(&[DictId])) {
        match self {
            Self::Ids(ids) => ids.for_each(docs, sink),
            Self::Runs(runs) => runs.for_each(docs, sink),
            _ => {}
        }
    }

    /// Appends the raw values of a selection; nothing when there is a dictionary.
    pub(crate) fn append_values(
        &self,
        docs: &DocSelection<'_>,
        out: &mut ValueBuffer,
    ) -> Result<(), IndexError> {
        match self {
            Self::Ids(_) | Self::Runs(_) => {}
            Self::Text(texts) => return texts.append(docs, out),
            Self::Uuids(uuids) => uuids.append(docs, out),
            Self::Plain {
                physical, values, ..
            } => {
                by_type!(*physical, T => append_plain::<T>(values, docs, out), bytes => {});
            }
            Self::Frame { values, .. } => match out {
                ValueBuffer::I32(out) => {
                    values.for_each(docs, |block| out.extend(block.iter().map(|v| *v as i32)))
                }
                ValueBuffer::I64(out) => {
                    values.for_each(docs, |block| out.extend_from_slice(block))
                }
                ValueBuffer::I128(out) => values.for_each(docs, |block| {
                    out.extend(block.iter().map(|v| i128::from(*v)))
                }),
                _ => {}
            },
            Self::Scaled {
                values, divisor, ..
            } => match out {
                ValueBuffer::F32(out) => {
                    values.for_each(docs, |block| {
                        out.extend(block.iter().map(|v| (*v as f64 / divisor) as f32))
                    });
                }
                ValueBuffer::F64(out) => {
                    values.for_each(docs, |block| {
                        out.extend(block.iter().map(|v| *v as f64 / divisor))
                    });
                }
                _ => {}
            },
        }
        Ok(())
    }
}

fn append_plain<T: Fixed>(values: &[u8], docs: &DocSelection<'_>, out: &mut ValueBuffer) {
    let (table, Some(out)) = (T::table(values), T::buffer(out)) else {
        return;
    };
    match docs {
        DocSelection::Range(range) => {
            let part = table
                .get(range.start as usize..range.end as usize)
                .unwrap_or_default();
            out.extend(part.iter().map(|v| T::of_le(*v)));
        }
        DocSelection::Docs(docs) => {
            out.extend(docs.iter().map(|&doc| {
                table
                    .get(doc as usize)
                    .map_or_else(T::default, |v| T::of_le(*v))
            }));
        }
    }
}
