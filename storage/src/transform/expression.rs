//! The tree of an expression, how its fields find their cells, and its evaluation over one row's cells.
//!
//! A [`Function`] is called when all of its arguments are there, and gives null when one is null. A [`Form`] decides
//! itself which arguments it looks at and what a null means to it.

use super::form::Form;
use super::function::Function;
use crate::convert::{Cell, scalar};
use std::borrow::Cow;
use strandline_proto::schema::DataType;
use strandline_proto::{Error, Result};

/// Bytes of a text that an expression may make. Few characters can ask for many bytes: `replace`, `repeat`, `a || a`.
pub(super) const TEXT_BYTES_MAX: usize = 64 << 20;

/// An expression over a row's fields.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expression {
    Literal(Cell<'static>),
    /// A field by its name; its place is known once bound.
    Field {
        name: String,
        place: FieldPlace,
    },
    Call {
        function: Function,
        args: Vec<Expression>,
    },
    Form {
        form: Form,
        args: Vec<Expression>,
    },
}

/// Where a field's value is in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldPlace {
    /// Its cell.
    pub slot: usize,
    /// The type of the column of this name, when there is one with single values: an expression sees a value of this
    /// type, however the source wrote it.
    pub data_type: Option<DataType>,
}

impl Expression {
    pub(super) fn field(name: impl Into<String>) -> Self {
        Self::Field {
            name: name.into(),
            place: FieldPlace {
                slot: usize::MAX,
                data_type: None,
            },
        }
    }

    pub(super) fn form(form: Form, args: Vec<Self>) -> Self {
        Self::Form { form, args }
    }

    fn args(&self) -> &[Self] {
        match self {
            Self::Literal(_) | Self::Field { .. } => &[],
            Self::Call { args, .. } | Self::Form { args, .. } => args,
        }
    }

    /// Operators and calls.
    pub(super) fn parts(&self) -> usize {
        let own = usize::from(matches!(self, Self::Call { .. } | Self::Form { .. }));
        own + self.args().iter().map(Self::parts).sum::<usize>()
    }

    /// Appends the names of the fields that are read.
    pub(super) fn fields<'e>(&'e self, out: &mut Vec<&'e str>) {
        if let Self::Field { name, .. } = self {
            out.push(name);
        }
        self.args().iter().for_each(|arg| arg.fields(out));
    }

    /// Appends the cells that are read.
    pub(super) fn slots(&self, out: &mut Vec<usize>) {
        if let Self::Field { place, .. } = self {
            out.push(place.slot);
        }
        self.args().iter().for_each(|arg| arg.slots(out));
    }

    pub(super) fn bind(&mut self, place_of: &impl Fn(&str) -> Option<FieldPlace>) -> Result<()> {
        match self {
            Self::Literal(_) => Ok(()),
            Self::Field { name, place } => {
                *place = place_of(name).ok_or_else(|| {
                    Error::internal(format!("the field {name} has no place in the row"))
                })?;
                Ok(())
            }
            Self::Call { args, .. } | Self::Form { args, .. } => {
                args.iter_mut().try_for_each(|arg| arg.bind(place_of))
            }
        }
    }

    /// Whether the value can be true or false, as far as can be told without a row.
    pub(super) fn may_be_truth(&self) -> bool {
        match self {
            Self::Literal(cell) => matches!(cell, Cell::Boolean(_) | Cell::Null),
            Self::Field { .. } => true,
            Self::Call { function, .. } => function.is_truth(),
            Self::Form { form, args } => match form {
                Form::Cast(to) => *to == DataType::Boolean,
                Form::Coalesce | Form::NullIf => args.iter().any(Self::may_be_truth),
                Form::Case => {
                    let values = args.iter().enumerate();
                    let is_value = |at: usize| at % 2 == 1 || at + 1 == args.len();
                    values
                        .filter(|(at, _)| is_value(*at))
                        .any(|(_, value)| value.may_be_truth())
                }
                _ => true,
            },
        }
    }

    /// The value for one row.
    pub(super) fn evaluate<'c>(&self, cells: &[Cell<'c>]) -> Result<Cell<'c>, String> {
        match self {
            Self::Literal(literal) => Ok(literal.clone()),
            Self::Field { name, place } => match (cells.get(place.slot), place.data_type) {
                (None | Some(Cell::Null), _) => Ok(Cell::Null),
                (Some(cell), None) => Ok(cell.clone()),
                (Some(cell), Some(to)) => {
                    as_type(cell, to).map_err(|reason| format!("{name}: {reason}"))
                }
            },
            Self::Call { function, args } => {
                let mut values = Vec::with_capacity(args.len());
                for arg in args {
                    let value = arg.evaluate(cells)?;
                    if value.is_null() {
                        return Ok(Cell::Null);
                    }
                    values.push(value);
                }
                bounded(function.call(&values)?)
            }
            Self::Form { form, args } => form.evaluate(args, cells),
        }
    }

    /// The value as a truth value; none for null.
    pub(super) fn truth(&self, cells: &[Cell<'_>]) -> Result<Option<bool>, String> {
        match self.evaluate(cells)? {
            Cell::Null => Ok(None),
            value => scalar::boolean(&value).map(Some),
        }
    }
}

fn bounded(value: Cell<'_>) -> Result<Cell<'_>, String> {
    match &value {
        Cell::Text(text) if text.len() > TEXT_BYTES_MAX => Err(too_long()),
        _ => Ok(value),
    }
}

pub(super) fn too_long() -> String {
    format!("the text that the expression makes is longer than {TEXT_BYTES_MAX} bytes")
}

/// A cell, which is not null, as a column of the type would hold it. JSON stays as it came.
pub(super) fn as_type<'c>(cell: &Cell<'c>, to: DataType) -> Result<Cell<'c>, String> {
    Ok(match to {
        DataType::Int => Cell::Integer(i64::from(scalar::int(cell)?)),
        DataType::Long => Cell::Integer(scalar::integer(cell)?),
        DataType::Float => Cell::Float(scalar::float(cell)?),
        DataType::Double => Cell::Double(scalar::double(cell)?),
        DataType::BigDecimal { precision, scale } => Cell::Decimal {
            unscaled: scalar::decimal(cell, precision, scale)?,
            scale,
        },
        DataType::Boolean => Cell::Boolean(scalar::boolean(cell)?),
        DataType::Timestamp => Cell::Timestamp(scalar::timestamp(cell)?),
        DataType::String => match cell {
            Cell::Text(text) => Cell::Text(text.clone()),
            other => {
                let mut out = String::new();
                scalar::write_text(other, &mut out)?;
                Cell::Text(Cow::Owned(out))
            }
        },
        DataType::Json => cell.clone(),
        DataType::Bytes => match cell {
            Cell::Bytes(bytes) => Cell::Bytes(bytes.clone()),
            other => {
                let mut out = Vec::new();
                scalar::write_bytes(other, &mut out)?;
                Cell::Bytes(Cow::Owned(out))
            }
        },
    })
}
