//! What is computed of a row while it comes in: columns that it does not bring (`transformConfigs`), and whether it is
//! left out (`filterConfig.filterFunction`).
//!
//! Both are written in one language: SQL's operators and Pinot's functions, by Pinot's names in any case and with or
//! without underscores.
//!
//! ```text
//! upper(country) || '-' || coalesce(city, 'none')
//! CASE WHEN price >= 100.00 THEN 'high' WHEN price IS NULL THEN 'none' ELSE 'low' END
//! CAST(jsonPathString(doc, '$.order.id') AS LONG)
//! status IN ('test', 'void') OR (name LIKE 'tmp%' AND NOT kept)
//! or(equals(status, 'test'), lessThan(amount, 0))
//! ```
//!
//! - A name is a field of the source, or another transform's column; `"quoted"` when it is no word. A field that is a
//!   column of the schema has the value that the column would have, whatever the source wrote it as (`'007'` of a CSV file
//!   is 7 in an INT column); null where the row does not bring it, also when the column has a default. Other fields are as
//!   the source has them.
//! - Null is SQL's: functions and comparisons of null are null, `AND` and `OR` know three values, `IS NULL`, `IS DISTINCT
//!   FROM`, `COALESCE` and `CASE` see nulls.
//! - Texts are compared with texts by their characters; where one side is a number, truth value, time or bytes, the other
//!   is read as one, and a text that is none is an error.
//! - Whole numbers are exact in 64 bits, and leaving them is an error; `/` gives a float. `CAST` converts as a column of the
//!   type does: what would be lost is an error, so 2.5 is no INT; use `floor`, `ceil` or `round`.
//! - Only what is deterministic is run, because the same files and messages must make the same rows, on a replica and
//!   after a restart: no `now()`, no `rand()`. No Groovy.
//!
//! A transform is used only where the column is absent or null in the source. They run in the order in which they need
//! each other, and the filter after them: it sees their results. A row is left out when the filter is true; it stays when
//! it is false or null. An expression that fails on a row refuses the row: a load ends with file and row named, a message
//! becomes a dead letter. What is left out need not fit the schema, apart from the columns that the filter reads.

mod compare;
mod evaluate;
mod expression;
mod form;
mod function;
mod json_path;
mod parse;
mod pattern;
#[cfg(test)]
mod tests;

use crate::convert::Cell;
use expression::Expression;
pub use expression::FieldPlace;
use strandline_proto::{Error, Result};

/// One transform.
#[derive(Clone, Debug, PartialEq)]
struct Transform {
    column: String,
    expression: Expression,
}

/// A table's transforms, in an order in which each comes after those it reads, and its filter.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transforms {
    columns: Vec<Transform>,
    filter: Option<Expression>,
}

impl Transforms {
    /// Reads `(column, function text)` pairs. An error comes with the number of the pair it is about.
    pub fn parse<'t>(
        pairs: impl IntoIterator<Item = (&'t str, &'t str)>,
    ) -> Result<Self, (usize, Error)> {
        let mut waiting: Vec<(usize, Transform)> = Vec::new();
        for (number, (column, text)) in pairs.into_iter().enumerate() {
            if waiting.iter().any(|(_, t)| t.column == column) {
                return Err((
                    number,
                    Error::invalid(format!("a second transform for column {column}")),
                ));
            }
            let expression = parse::expression(text).map_err(|e| (number, e))?;
            let mut fields = Vec::new();
            expression.fields(&mut fields);
            if fields.contains(&column) {
                return Err((
                    number,
                    Error::invalid(format!(
                        "the transform of column {column} reads the column itself"
                    )),
                ));
            }
            waiting.push((
                number,
                Transform {
                    column: column.to_owned(),
                    expression,
                },
            ));
        }
        let mut ordered = Vec::with_capacity(waiting.len());
        while !waiting.is_empty() {
            let ready = waiting.iter().position(|(_, transform)| {
                let mut fields = Vec::new();
                transform.expression.fields(&mut fields);
                !waiting
                    .iter()
                    .any(|(_, other)| fields.contains(&other.column.as_str()))
            });
            match (ready, waiting.first()) {
                (Some(ready), _) => ordered.push(waiting.remove(ready).1),
                (None, Some((number, transform))) => {
                    let message = format!(
                        "the transform of column {} is part of a circle",
                        transform.column
                    );
                    return Err((*number, Error::invalid(message)));
                }
                (None, None) => {}
            }
        }
        Ok(Self {
            columns: ordered,
            filter: None,
        })
    }

    /// The same, and rows for which `text` is true are left out.
    ///
    /// # Errors
    /// `InvalidArgument` and `Unsupported`, with the place in the text.
    pub fn with_filter(mut self, text: &str) -> Result<Self> {
        let filter = parse::expression(text)?;
        if !filter.may_be_truth() {
            return Err(Error::invalid(format!(
                "'{text}' is neither true nor false; compare it with something, as in {text} = 'x'"
            )));
        }
        self.filter = Some(filter);
        Ok(self)
    }

    /// Whether rows may be left out.
    pub fn has_filter(&self) -> bool {
        self.filter.is_some()
    }

    /// The columns that are filled.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|t| t.column.as_str())
    }

    /// The fields that are read, each once.
    pub fn sources(&self) -> Vec<&str> {
        let mut all = Vec::new();
        let expressions = self.columns.iter().map(|t| &t.expression);
        expressions
            .chain(&self.filter)
            .for_each(|e| e.fields(&mut all));
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The same over rows of cells; `place_of` says where each field is.
    pub fn bind(&self, place_of: impl Fn(&str) -> Option<FieldPlace>) -> Result<BoundTransforms> {
        let mut columns = Vec::with_capacity(self.columns.len());
        for transform in &self.columns {
            let mut expression = transform.expression.clone();
            expression.bind(&place_of)?;
            let target = place_of(&transform.column).ok_or_else(|| {
                Error::internal(format!(
                    "the column {} has no place in the row",
                    transform.column
                ))
            })?;
            columns.push(BoundTransform {
                column: transform.column.clone(),
                target: target.slot,
                expression,
            });
        }
        let mut filter = self.filter.clone();
        filter.iter_mut().try_for_each(|f| f.bind(&place_of))?;
        Ok(BoundTransforms { columns, filter })
    }
}

/// Transforms and a filter that know the cells they read and write.
#[derive(Clone, Debug)]
pub struct BoundTransforms {
    columns: Vec<BoundTransform>,
    filter: Option<Expression>,
}

impl BoundTransforms {
    /// The transforms, in the order in which they are to run.
    pub fn columns(&self) -> &[BoundTransform] {
        &self.columns
    }

    /// Whether rows may be left out.
    pub fn has_filter(&self) -> bool {
        self.filter.is_some()
    }

    /// Whether a row, whose transforms have run, is left out.
    pub fn leaves_out(&self, cells: &[Cell<'_>]) -> Result<bool, String> {
        match &self.filter {
            None => Ok(false),
            Some(filter) => match filter.truth(cells) {
                Ok(truth) => Ok(truth == Some(true)),
                Err(reason) => Err(format!("the filter function: {reason}")),
            },
        }
    }

    /// The cells that are read or filled, each once.
    pub fn cells(&self) -> Vec<usize> {
        let mut all: Vec<usize> = self.columns.iter().flat_map(|t| t.cells()).collect();
        self.filter.iter().for_each(|f| f.slots(&mut all));
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// A transform that knows the cells it reads and writes.
#[derive(Clone, Debug)]
pub struct BoundTransform {
    column: String,
    target: usize,
    expression: Expression,
}

impl BoundTransform {
    /// The column it fills.
    pub fn column(&self) -> &str {
        &self.column
    }

    /// The cell it fills.
    pub fn target(&self) -> usize {
        self.target
    }

    /// The cells it reads and fills.
    pub fn cells(&self) -> Vec<usize> {
        let mut all = vec![self.target];
        self.expression.slots(&mut all);
        all
    }

    /// Fills its cell of a row, when that is null.
    pub fn apply(&self, cells: &mut [Cell<'_>]) -> Result<(), String> {
        if !cells.get(self.target).is_some_and(Cell::is_null) {
            return Ok(());
        }
        let value = self.expression.evaluate(cells)?;
        if let Some(cell) = cells.get_mut(self.target) {
            *cell = value;
        }
        Ok(())
    }
}
