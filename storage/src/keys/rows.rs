//! Keys and ranks of rows, read from their columns.

use super::entry::{Comparison, Key};
use crate::config::KeysConfig;
use ::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array};
use ::arrow::compute::cast;
use ::arrow::datatypes::{DataType as ArrowType, Int64Type};
use ::arrow::error::ArrowError;
use ::arrow::row::{RowConverter, Rows, SortField};
use siphasher::sip128::{Hasher128, SipHasher24};
use std::hash::Hasher;
use std::sync::Arc;
use strandline_proto::schema::{Column, Schema};
use strandline_proto::{Error, Result};

/// Reads the keys and ranks of a table's rows.
pub(super) struct KeyReader {
    config: Arc<KeysConfig>,
    /// The columns that are read, in this order: those of the key, then those that `config` names besides.
    columns: Vec<Column>,
    key: RowConverter,
    comparison: Option<RowConverter>,
    secret: [u8; 16],
}

/// What was read of some rows, by row.
pub(super) struct KeyedRows {
    pub(super) keys: Vec<Key>,
    comparisons: Option<Rows>,
    deleted: Option<BooleanArray>,
    times: Option<Int64Array>,
}

impl KeyReader {
    /// A reader of rows of `schema`. `secret`: what keys are hashed with.
    ///
    /// # Errors
    /// `InvalidArgument` where the schema lacks a column that `config` names.
    pub(super) fn new(config: &Arc<KeysConfig>, schema: &Schema, secret: [u8; 16]) -> Result<Self> {
        let of_name = |name: &String| {
            schema.column(name).cloned().ok_or_else(|| {
                Error::invalid(format!(
                    "the column {name}, which rows are told apart by, is not in the schema of table {}",
                    schema.name
                ))
            })
        };
        let columns = config.columns().map(of_name).collect::<Result<Vec<_>>>()?;
        let converter = |columns: &[Column]| {
            let fields = columns.iter().map(|c| SortField::new(c.arrow_type()));
            RowConverter::new(fields.collect()).map_err(unreadable)
        };
        let width = config.key.len();
        let key = converter(columns.get(..width).unwrap_or_default())?;
        let comparison = match &config.comparison {
            Some(_) => Some(converter(columns.get(width..=width).unwrap_or_default())?),
            None => None,
        };
        Ok(Self {
            config: Arc::clone(config),
            columns,
            key,
            comparison,
            secret,
        })
    }

    /// The columns that [`Self::read`] takes.
    pub(super) fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Reads rows from `arrays`, one for each of [`Self::columns`].
    pub(super) fn read(&self, arrays: &[ArrayRef]) -> Result<KeyedRows> {
        let (key, rest) = arrays
            .split_at_checked(self.config.key.len())
            .ok_or_else(|| Error::internal("keys without their columns"))?;
        let rows = self.key.convert_columns(key).map_err(unreadable)?;
        let keys = rows.iter().map(|row| self.hash(row.as_ref())).collect();
        let mut rest = rest.iter();
        let mut comparisons = None;
        let mut times = None;
        if let Some(converter) = &self.comparison {
            let array = rest
                .next()
                .ok_or_else(|| Error::internal("rows without their comparison column"))?;
            comparisons = Some(
                converter
                    .convert_columns(std::slice::from_ref(array))
                    .map_err(unreadable)?,
            );
            if self.config.forgets() {
                let numbers = cast(array, &ArrowType::Int64).map_err(unreadable)?;
                times = Some(numbers.as_primitive::<Int64Type>().clone());
            }
        }
        let deleted = match (&self.config.deleted, rest.next()) {
            (Some(_), Some(array)) => array.as_boolean_opt().cloned(),
            _ => None,
        };
        Ok(KeyedRows {
            keys,
            comparisons,
            deleted,
            times,
        })
    }

    fn hash(&self, row: &[u8]) -> Key {
        let mut hasher = SipHasher24::new_with_key(&self.secret);
        hasher.write(row);
        hasher.finish128().as_u128().to_le_bytes()
    }
}

impl KeyedRows {
    pub(super) fn comparison(&self, row: usize) -> Comparison {
        match &self.comparisons {
            Some(rows) => Comparison::from_slice(rows.row(row).as_ref()),
            None => Comparison::new(),
        }
    }

    pub(super) fn is_deleted(&self, row: usize) -> bool {
        self.deleted
            .as_ref()
            .is_some_and(|deleted| deleted.is_valid(row) && deleted.value(row))
    }

    /// The comparison value as a number, where the table forgets keys; of a null the smallest.
    pub(super) fn time(&self, row: usize) -> i64 {
        match &self.times {
            Some(times) if times.is_valid(row) => times.value(row),
            Some(_) => i64::MIN,
            None => 0,
        }
    }
}

fn unreadable(e: ArrowError) -> Error {
    Error::internal(format!("keys of rows: {e}"))
}
