//! What is no plain function: comparisons, logic of three values, and what looks at its arguments one after the other.
//!
//! A comparison with null is null. `AND` and `OR` go from left to right and end where the answer is known, so that
//! `b <> 0 AND a / b > 2` never divides by 0.

use super::compare;
use super::expression::{Expression, TEXT_BYTES_MAX, as_type, too_long};
use super::pattern::Pattern;
use crate::convert::{Cell, scalar};
use std::borrow::Cow;
use std::cmp::Ordering;
use strandline_proto::schema::DataType;
use strandline_proto::{Error, Result};

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

/// A form, and what its constant parts said.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Form {
    Compare(Comparison),
    And,
    Or,
    Not,
    IsNull,
    /// `IS TRUE` or `IS FALSE`: never null.
    Is(bool),
    /// `IS NOT DISTINCT FROM`: null equals null.
    Same,
    /// The first argument among the others.
    In,
    Between,
    /// A text by a pattern.
    Matches(Pattern),
    /// Conditions and values in turns; an odd one at the end is for the rest.
    Case,
    Coalesce,
    NullIf,
    Cast(DataType),
    /// `||`
    Join,
}

impl Form {
    /// The form of a function's name, in lower case without underscores, over the arguments; none for other
    /// names.
    pub(super) fn of_function(
        name: &str,
        canonical: &str,
        args: &mut Vec<Expression>,
    ) -> Result<Option<Expression>> {
        use Comparison as C;
        let (form, least, most) = match canonical {
            "equals" => (Self::Compare(C::Equal), 2, 2),
            "notequals" => (Self::Compare(C::NotEqual), 2, 2),
            "greaterthan" => (Self::Compare(C::Greater), 2, 2),
            "greaterthanorequal" => (Self::Compare(C::GreaterOrEqual), 2, 2),
            "lessthan" => (Self::Compare(C::Less), 2, 2),
            "lessthanorequal" => (Self::Compare(C::LessOrEqual), 2, 2),
            "and" => (Self::And, 2, usize::MAX),
            "or" => (Self::Or, 2, usize::MAX),
            "not" => (Self::Not, 1, 1),
            "isnull" | "isnotnull" => (Self::IsNull, 1, 1),
            "istrue" | "isnottrue" => (Self::Is(true), 1, 1),
            "isfalse" | "isnotfalse" => (Self::Is(false), 1, 1),
            "isdistinctfrom" | "isnotdistinctfrom" => (Self::Same, 2, 2),
            "in" | "notin" => (Self::In, 2, usize::MAX),
            "between" => (Self::Between, 3, 3),
            "casewhen" => (Self::Case, 2, usize::MAX),
            "coalesce" => (Self::Coalesce, 1, usize::MAX),
            "nullif" => (Self::NullIf, 2, 2),
            "like" | "regexplike" | "cast" => {
                super::function::count_args(name, args, 2..=2)?;
                let text = super::function::constant_text(name, args, 1)?;
                args.truncate(1);
                let form = match canonical {
                    "like" => Self::Matches(Pattern::like(&text, Some('\\'), false)?),
                    "regexplike" => Self::Matches(Pattern::regular(&text)?),
                    _ => Self::Cast(data_type(&text)?),
                };
                return Ok(Some(Expression::form(form, std::mem::take(args))));
            }
            _ => return Ok(None),
        };
        super::function::count_args(name, args, least..=most)?;
        let expression = Expression::form(form, std::mem::take(args));
        let negated = matches!(
            canonical,
            "isnotnull" | "isnottrue" | "isnotfalse" | "isdistinctfrom" | "notin"
        );
        Ok(Some(match negated {
            true => Expression::form(Self::Not, vec![expression]),
            false => expression,
        }))
    }

    pub(super) fn evaluate<'c>(
        &self,
        args: &[Expression],
        cells: &[Cell<'c>],
    ) -> Result<Cell<'c>, String> {
        let value = |at: usize| {
            args.get(at)
                .map_or(Ok(Cell::Null), |arg| arg.evaluate(cells))
        };
        let truth = match self {
            Self::Compare(comparison) => {
                ordered(&value(0)?, &value(1)?)?.map(|order| comparison.holds(order))
            }
            Self::And => decided(args, cells, false)?,
            Self::Or => decided(args, cells, true)?,
            Self::Not => args
                .first()
                .map_or(Ok(None), |a| a.truth(cells))?
                .map(|v| !v),
            Self::IsNull => Some(value(0)?.is_null()),
            Self::Is(wanted) => {
                let found = args.first().map_or(Ok(None), |a| a.truth(cells))?;
                Some(found == Some(*wanted))
            }
            Self::Same => {
                let (left, right) = (value(0)?, value(1)?);
                Some(match (left.is_null(), right.is_null()) {
                    (false, false) => compare::order(&left, &right)?.is_eq(),
                    (left, right) => left && right,
                })
            }
            Self::In => {
                let of = value(0)?;
                let mut answer = Some(false);
                for among in args.get(1..).unwrap_or_default() {
                    match ordered(&of, &among.evaluate(cells)?)? {
                        Some(Ordering::Equal) => {
                            answer = Some(true);
                            break;
                        }
                        Some(_) => {}
                        None => answer = None,
                    }
                }
                answer
            }
            Self::Between => {
                let of = value(0)?;
                let above = ordered(&of, &value(1)?)?.map(Ordering::is_ge);
                let below = ordered(&of, &value(2)?)?.map(Ordering::is_le);
                match (above, below) {
                    (Some(false), _) | (_, Some(false)) => Some(false),
                    (Some(true), Some(true)) => Some(true),
                    _ => None,
                }
            }
            Self::Matches(pattern) => match value(0)? {
                Cell::Null => None,
                cell => Some(pattern.matches(&scalar::text(&cell)?)),
            },
            Self::Case => {
                let (branches, rest) = args.as_chunks::<2>();
                for [condition, then] in branches {
                    if condition.truth(cells)? == Some(true) {
                        return then.evaluate(cells);
                    }
                }
                return rest.first().map_or(Ok(Cell::Null), |e| e.evaluate(cells));
            }
            Self::Coalesce => {
                for arg in args {
                    let found = arg.evaluate(cells)?;
                    if !found.is_null() {
                        return Ok(found);
                    }
                }
                None
            }
            Self::NullIf => {
                let of = value(0)?;
                return Ok(match ordered(&of, &value(1)?)? {
                    Some(Ordering::Equal) => Cell::Null,
                    _ => of,
                });
            }
            Self::Cast(to) => {
                return match value(0)? {
                    Cell::Null => Ok(Cell::Null),
                    cell if *to == DataType::Json => {
                        let mut out = String::new();
                        scalar::write_document(&cell, &mut out)?;
                        Ok(Cell::Document(Cow::Owned(out)))
                    }
                    cell => as_type(&cell, *to),
                };
            }
            Self::Join => {
                let mut out = String::new();
                for arg in args {
                    match arg.evaluate(cells)? {
                        Cell::Null => return Ok(Cell::Null),
                        cell => out.push_str(&scalar::text(&cell)?),
                    }
                    if out.len() > TEXT_BYTES_MAX {
                        return Err(too_long());
                    }
                }
                return Ok(Cell::Text(Cow::Owned(out)));
            }
        };
        Ok(truth.map_or(Cell::Null, Cell::Boolean))
    }
}

/// How two values follow each other; none when one is null.
fn ordered(left: &Cell<'_>, right: &Cell<'_>) -> Result<Option<Ordering>, String> {
    match left.is_null() || right.is_null() {
        true => Ok(None),
        false => compare::order(left, right).map(Some),
    }
}

/// `AND` (decided by false) and `OR` (by true).
fn decided(
    args: &[Expression],
    cells: &[Cell<'_>],
    decisive: bool,
) -> Result<Option<bool>, String> {
    let mut answer = Some(!decisive);
    for arg in args {
        match arg.truth(cells)? {
            Some(found) if found == decisive => return Ok(Some(decisive)),
            Some(_) => {}
            None => answer = None,
        }
    }
    Ok(answer)
}

/// The type that `CAST` names: ours, Pinot's or SQL's name.
pub(super) fn data_type(text: &str) -> Result<DataType> {
    let (name, rest) = text.split_once('(').unwrap_or((text, ""));
    let digits: Vec<&str> = rest.trim_end().trim_end_matches(')').split(',').collect();
    let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
    let found = match name.to_ascii_uppercase().as_str() {
        "INT" | "INTEGER" | "SMALLINT" => DataType::Int,
        "LONG" | "BIGINT" => DataType::Long,
        "FLOAT" | "REAL" => DataType::Float,
        "DOUBLE" | "DOUBLE PRECISION" => DataType::Double,
        "BOOLEAN" | "BOOL" => DataType::Boolean,
        "TIMESTAMP" => DataType::Timestamp,
        "STRING" | "VARCHAR" | "TEXT" | "CHAR VARYING" => DataType::String,
        "JSON" => DataType::Json,
        "BYTES" | "BYTEA" | "VARBINARY" => DataType::Bytes,
        "BIG_DECIMAL" | "DECIMAL" | "NUMERIC" => {
            let number = |at: usize, default: u8| match digits.get(at).map(|d| d.trim()) {
                None | Some("") => Ok(default),
                Some(text) => text.parse::<u8>().ok().filter(|n| *n <= 38).ok_or(()),
            };
            return match (
                number(0, 38),
                number(1, if rest.is_empty() { 10 } else { 0 }),
            ) {
                (Ok(precision), Ok(scale)) if precision > 0 && scale <= precision => {
                    Ok(DataType::BigDecimal {
                        precision,
                        scale: scale as i8,
                    })
                }
                _ => Err(Error::invalid(format!(
                    "'{text}' is no decimal type: write DECIMAL(digits, digits after the point), of at most 38 digits"
                ))),
            };
        }
        _ => {
            return Err(Error::unsupported(format!(
                "not supported: CAST to '{text}'; there are INT, LONG, FLOAT, DOUBLE, DECIMAL(p, s), BOOLEAN, TIMESTAMP, STRING, JSON and BYTES"
            )));
        }
    };
    Ok(found)
}
