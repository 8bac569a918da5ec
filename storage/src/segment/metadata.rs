//! What a segment file says about itself: the metadata section, as JSON.
//!
//! Fields may be added in later versions with a default; readers pass over fields they do not know.
//! Size and checksum of the file are not here, since they are known only when the file is complete.

use super::star_tree::StarTreeMetadata;
use serde::{Deserialize, Serialize};
use strandline_index::Scalar;
use strandline_proto::catalog::{ColumnStats, SegmentInfo};
use strandline_proto::granularity::Granularity;
use strandline_proto::ids::{Half, OffsetRange, SegmentName, StreamPartition};
use strandline_proto::schema::{DataType, Schema};
use strandline_proto::value::Value;

/// Text and bytes in [`ColumnStats`] are cut to this length.
const STATS_BYTES_MAX: usize = 64;

/// The metadata section.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SegmentMetadata {
    pub(crate) name: SegmentName,
    pub(crate) half: Half,
    pub(crate) rows: u64,
    pub(crate) time_ms: Option<(i64, i64)>,
    pub(crate) origin: Option<(StreamPartition, OffsetRange)>,
    pub(crate) sorted_column: Option<String>,
    /// The schema it was built with; column `i` of the file is column `i` of it.
    pub(crate) schema: Schema,
    pub(crate) columns: Vec<ColumnStats>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) star_trees: Vec<StarTreeMetadata>,
    /// The columns of timestamp indexes, by column and granularity.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) granularities: Vec<(String, Granularity)>,
}

impl SegmentMetadata {
    /// With the file's size and checksum: what the catalog keeps.
    pub(crate) fn info(&self, bytes: u64, checksum: u64) -> SegmentInfo {
        SegmentInfo {
            name: self.name.clone(),
            checksum,
            half: self.half,
            rows: self.rows,
            bytes,
            schema_version: self.schema.version,
            time_ms: self.time_ms,
            columns: self.columns.clone(),
            origin: self.origin.clone(),
            stored_as: None,
            moved: false,
            pushed_in: 0,
            rebuilt: false,
        }
    }
}

/// A stored value as a value of the column's type.
pub fn scalar_value(scalar: &Scalar<'_>, data_type: DataType) -> Value {
    match (scalar, data_type) {
        (Scalar::I32(v), DataType::Boolean) => Value::Boolean(*v != 0),
        (Scalar::I32(v), _) => Value::Int(*v),
        (Scalar::I64(v), DataType::Timestamp) => Value::Timestamp(*v),
        (Scalar::I64(v), _) => Value::Long(*v),
        (Scalar::F32(v), _) => Value::Float(*v),
        (Scalar::F64(v), _) => Value::Double(*v),
        (Scalar::I128(v), DataType::BigDecimal { scale, .. }) => Value::Decimal {
            unscaled: *v,
            scale,
        },
        (Scalar::I128(v), _) => Value::Decimal {
            unscaled: *v,
            scale: 0,
        },
        (Scalar::Bytes(bytes), DataType::Bytes) => Value::Bytes(bytes.to_vec()),
        // Text was checked when it came in; what is not text now would be shown with marks, not lost.
        (Scalar::Bytes(bytes), _) => Value::String(String::from_utf8_lossy(bytes).into_owned()),
    }
}

/// The smallest value, or a prefix of it, which is never larger.
pub(crate) fn lower_bound(value: Value) -> Value {
    match value {
        Value::String(mut text) => {
            text.truncate(text.floor_char_boundary(STATS_BYTES_MAX));
            Value::String(text)
        }
        Value::Bytes(mut bytes) => {
            bytes.truncate(STATS_BYTES_MAX);
            Value::Bytes(bytes)
        }
        value => value,
    }
}

/// The largest value, or the shortest larger one that a cut gives; `Null` when there is none.
pub(crate) fn upper_bound(value: Value) -> Value {
    match value {
        Value::String(mut text) if text.len() > STATS_BYTES_MAX => {
            text.truncate(text.floor_char_boundary(STATS_BYTES_MAX));
            while let Some(last) = text.pop() {
                // UTF-8 sorts as code points do, so the next code point in its place is larger than all that was cut.
                if let Some(next) = (last..=char::MAX).nth(1) {
                    text.push(next);
                    return Value::String(text);
                }
            }
            Value::Null
        }
        Value::Bytes(mut bytes) if bytes.len() > STATS_BYTES_MAX => {
            bytes.truncate(STATS_BYTES_MAX);
            while let Some(last) = bytes.pop() {
                if let Some(next) = last.checked_add(1) {
                    bytes.push(next);
                    return Value::Bytes(bytes);
                }
            }
            Value::Null
        }
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_text_stays_a_bound() {
        let texts = [
            "a".repeat(100),
            "ü".repeat(40),
            format!("{}\u{10ffff}{}", "x".repeat(60), "y".repeat(9)),
            format!("{}\u{d7ff}zzz", "q".repeat(61)),
            "short".to_owned(),
        ];
        for text in texts {
            let (Value::String(low), Value::String(high)) = (
                lower_bound(Value::String(text.clone())),
                upper_bound(Value::String(text.clone())),
            ) else {
                panic!("{text}")
            };
            assert!(
                low.as_str() <= text.as_str() && text.as_str() <= high.as_str(),
                "{low} {text} {high}"
            );
            assert!(low.len() <= STATS_BYTES_MAX && high.len() <= STATS_BYTES_MAX + 3);
        }
        assert_eq!(
            upper_bound(Value::String("\u{10ffff}".repeat(30))),
            Value::Null
        );
        assert_eq!(upper_bound(Value::Bytes(vec![0xff; 65])), Value::Null);
        assert_eq!(
            upper_bound(Value::Bytes([vec![1], vec![0xff; 64]].concat())),
            Value::Bytes(vec![2])
        );
    }
}
