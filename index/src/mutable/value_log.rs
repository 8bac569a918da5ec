//! Append-only values of one physical type: raw columns and the values of mutable dictionaries.

use super::append_vec::{AppendVec, AppendWriter};
use crate::fixed::{Fixed, by_type};
use crate::reader::{DocSelection, PhysicalType, Scalar, ValueBuffer};
use std::borrow::Cow;
use std::sync::Arc;

/// Where a text lies: start as two halves, so that it needs no padding, and length.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Span {
    start: [u32; 2],
    len: u32,
}

impl Span {
    fn new(start: usize, len: usize) -> Self {
        let start = start as u64;
        Self {
            start: [start as u32, (start >> 32) as u32],
            len: len as u32,
        }
    }

    fn range(self) -> std::ops::Range<usize> {
        let start = (u64::from(self.start[1]) << 32 | u64::from(self.start[0])) as usize;
        start..start + self.len as usize
    }
}

/// The readers' side.
#[derive(Clone)]
pub(crate) enum ValueLog {
    I32(Arc<AppendVec<i32>>),
    I64(Arc<AppendVec<i64>>),
    F32(Arc<AppendVec<f32>>),
    F64(Arc<AppendVec<f64>>),
    I128(Arc<AppendVec<i128>>),
    Bytes {
        spans: Arc<AppendVec<Span>>,
        data: Arc<AppendVec<u8>>,
    },
}

/// The writer's side.
pub(crate) enum ValueLogWriter {
    I32(AppendWriter<i32>),
    I64(AppendWriter<i64>),
    F32(AppendWriter<f32>),
    F64(AppendWriter<f64>),
    I128(AppendWriter<i128>),
    Bytes {
        spans: AppendWriter<Span>,
        data: AppendWriter<u8>,
    },
}

/// A fixed-width type's vectors.
pub(crate) trait Logged: Fixed {
    fn vec(log: &ValueLog) -> Option<&AppendVec<Self>>;
    fn writer(writer: &mut ValueLogWriter) -> Option<&mut AppendWriter<Self>>;
    fn make() -> (ValueLogWriter, ValueLog);
}

macro_rules! logged {
    ($($t:ty, $variant:ident;)*) => {$(
        impl Logged for $t {
            fn vec(log: &ValueLog) -> Option<&AppendVec<Self>> {
                match log {
                    ValueLog::$variant(v) => Some(v),
                    _ => None,
                }
            }
            fn writer(writer: &mut ValueLogWriter) -> Option<&mut AppendWriter<Self>> {
                match writer {
                    ValueLogWriter::$variant(v) => Some(v),
                    _ => None,
                }
            }
            fn make() -> (ValueLogWriter, ValueLog) {
                let (writer, vec) = AppendVec::new();
                (ValueLogWriter::$variant(writer), ValueLog::$variant(vec))
            }
        }
    )*};
}
logged!(i32, I32; i64, I64; f32, F32; f64, F64; i128, I128;);

impl ValueLog {
    pub(crate) fn new(physical: PhysicalType) -> (ValueLogWriter, Self) {
        by_type!(physical, T => T::make(), bytes => {
            let (span_writer, spans) = AppendVec::new();
            let (data_writer, data) = AppendVec::new();
            (ValueLogWriter::Bytes { spans: span_writer, data: data_writer }, Self::Bytes { spans, data })
        })
    }

    pub(crate) fn physical(&self) -> PhysicalType {
        match self {
            Self::I32(_) => PhysicalType::I32,
            Self::I64(_) => PhysicalType::I64,
            Self::F32(_) => PhysicalType::F32,
            Self::F64(_) => PhysicalType::F64,
            Self::I128(_) => PhysicalType::I128,
            Self::Bytes { .. } => PhysicalType::Bytes,
        }
    }

    /// Text `i`; empty when this holds no texts or fewer.
    pub(crate) fn text(&self, i: usize) -> &[u8] {
        match self {
            Self::Bytes { spans, data } => spans
                .get(i)
                .and_then(|span| data.slice(span.range()))
                .unwrap_or_default(),
            _ => &[],
        }
    }

    /// Value `i`; the type's placeholder past the end.
    pub(crate) fn value(&self, i: usize) -> Scalar<'_> {
        by_type!(self.physical(), T => {
            T::vec(self).and_then(|log| log.get(i)).unwrap_or_default().scalar()
        }, bytes => Scalar::Bytes(Cow::Borrowed(self.text(i))))
    }

    /// Appends the values of a selection to `out`, a buffer of this type.
    pub(crate) fn append(&self, positions: &DocSelection<'_>, out: &mut ValueBuffer) {
        by_type!(self.physical(), T => {
            let (Some(log), Some(out)) = (T::vec(self), T::buffer(out)) else { return };
            match positions {
                DocSelection::Range(range) => {
                    for slice in log.slices(range.start as usize..range.end as usize) {
                        out.extend_from_slice(slice);
                    }
                }
                DocSelection::Docs(docs) => {
                    out.reserve(docs.len());
                    log.for_positions(docs, |value| out.push(value));
                }
            }
        }, bytes => {
            match positions {
                DocSelection::Range(range) => range.clone().for_each(|i| out.push_bytes(self.text(i as usize))),
                DocSelection::Docs(docs) => docs.iter().for_each(|&i| out.push_bytes(self.text(i as usize))),
            }
        });
    }

    pub(crate) fn bytes(&self) -> usize {
        by_type!(self.physical(), T => T::vec(self).map_or(0, AppendVec::bytes), bytes => match self {
            Self::Bytes { spans, data } => spans.bytes() + data.bytes(),
            _ => 0,
        })
    }
}

impl ValueLogWriter {
    /// Appends one text; nothing when this holds no texts.
    pub(crate) fn push_text(&mut self, text: &[u8]) {
        if let Self::Bytes { spans, data } = self {
            let start = data.extend_together(text);
            spans.extend(&[Span::new(start, text.len())]);
        }
    }

    /// Appends the values of a buffer of this type.
    pub(crate) fn extend(&mut self, values: &ValueBuffer) {
        by_type!(values.physical(), T => {
            if let (Some(writer), Some(values)) = (T::writer(self), T::slice(values)) {
                writer.extend(values);
            }
        }, bytes => self.extend_texts(values));
    }

    /// Appends texts: all at once where they lie in one bucket.
    fn extend_texts(&mut self, values: &ValueBuffer) {
        let Self::Bytes { spans, data } = self else {
            return;
        };
        let texts = (0..values.len()).filter_map(|i| values.bytes(i));
        let mut appended = Vec::with_capacity(values.len());
        match values {
            ValueBuffer::Bytes { data: all, .. } if all.len() <= data.room_together() => {
                let mut start = data.extend_together(all);
                for text in texts {
                    appended.push(Span::new(start, text.len()));
                    start += text.len();
                }
            }
            _ => {
                for text in texts {
                    appended.push(Span::new(data.extend_together(text), text.len()));
                }
            }
        }
        spans.extend(&appended);
    }
}
