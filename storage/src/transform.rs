//! Pinot's ingestion transforms: a column that a row does not bring is computed from the fields it does bring.
//!
//! A transform is used only where the column is absent or null in the source. It sees the values as the source
//! wrote them, and the results of other transforms. Only deterministic functions are run: the
//! same files and messages must make the same rows, on a replica and after a restart.

mod evaluate;
mod function;
mod json_path;
mod parse;
#[cfg(test)]
mod tests;

use crate::convert::Cell;
use function::Function;
use strandline_proto::{Error, Result};

/// An expression over a row's fields.
#[derive(Clone, Debug, PartialEq)]
enum Expression {
    Literal(Cell<'static>),
    /// A field by its name; `slot` is its cell, known once bound.
    Field {
        name: String,
        slot: usize,
    },
    Call {
        function: Function,
        args: Vec<Expression>,
    },
}

impl Expression {
    fn fields<'e>(&'e self, out: &mut Vec<&'e str>) {
        match self {
            Self::Literal(_) => {}
            Self::Field { name, .. } => out.push(name),
            Self::Call { args, .. } => args.iter().for_each(|arg| arg.fields(out)),
        }
    }

    fn slots(&self, out: &mut Vec<usize>) {
        match self {
            Self::Literal(_) => {}
            Self::Field { slot, .. } => out.push(*slot),
            Self::Call { args, .. } => args.iter().for_each(|arg| arg.slots(out)),
        }
    }

    fn bind(&mut self, slot_of: &impl Fn(&str) -> Option<usize>) -> Result<()> {
        match self {
            Self::Literal(_) => Ok(()),
            Self::Field { name, slot } => {
                *slot = slot_of(name).ok_or_else(|| {
                    Error::internal(format!("the field {name} has no place in the row"))
                })?;
                Ok(())
            }
            Self::Call { args, .. } => args.iter_mut().try_for_each(|arg| arg.bind(slot_of)),
        }
    }
}

/// One transform.
#[derive(Clone, Debug, PartialEq)]
struct Transform {
    column: String,
    expression: Expression,
}

/// A table's transforms, in an order in which each comes after those it reads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transforms(Vec<Transform>);

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
        Ok(Self(ordered))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The columns that are filled.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|t| t.column.as_str())
    }

    /// The fields that are read, each once.
    pub fn sources(&self) -> Vec<&str> {
        let mut all = Vec::new();
        self.0.iter().for_each(|t| t.expression.fields(&mut all));
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The transforms over rows of cells; `slot_of` gives each field's cell.
    pub fn bind(&self, slot_of: impl Fn(&str) -> Option<usize>) -> Result<Vec<BoundTransform>> {
        self.0
            .iter()
            .map(|transform| {
                let mut expression = transform.expression.clone();
                expression.bind(&slot_of)?;
                let target = slot_of(&transform.column).ok_or_else(|| {
                    Error::internal(format!(
                        "the column {} has no place in the row",
                        transform.column
                    ))
                })?;
                Ok(BoundTransform {
                    column: transform.column.clone(),
                    target,
                    expression,
                })
            })
            .collect()
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
