//! Multi-value columns in SQL: a predicate on one is true for a row when it is for any of the row's values.
//!
//! Multi-value columns are Arrow lists, which SQL's operators don't know. Before types are coerced, each comparison of
//! one with a scalar becomes a function of this module (`mv_eq` and so on) or its negation, so that `!=` and `NOT IN`
//! mean that *no* value equals. A leaf gets them as column predicates; above it, these implementations run.
//!
//! Null when the list or an operand is null; null elements match nothing. `-0.0` equals zero, as in DataFusion's own
//! comparisons, which Arrow's are not.

mod fold;
mod rewrite;
#[cfg(test)]
mod tests;

pub use rewrite::{MultiValuePlanner, MultiValueRule};

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, Datum, ListArray, Scalar,
    StringArray, UInt32Array, new_null_array,
};
use datafusion::arrow::buffer::{NullBuffer, OffsetBuffer};
use datafusion::arrow::compute::kernels::cmp;
use datafusion::arrow::compute::kernels::comparison::{ilike, like};
use datafusion::arrow::compute::{
    self, cast, concat, regexp_is_match, regexp_is_match_scalar, take,
};
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::arrow::error::ArrowError;
use datafusion::common::utils::normalize_float_zero;
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::type_coercion::binary::{
    comparison_coercion, like_coercion, regex_coercion,
};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use std::sync::{Arc, LazyLock};

/// What is asked of each value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each name is its SQL operator")]
pub enum Test {
    Eq,
    Lt,
    LtEq,
    Gt,
    GtEq,
    In,
    Between,
    Like,
    ILike,
    Regex,
    IRegex,
}

const TESTS: [(Test, &str); 11] = [
    (Test::Eq, "mv_eq"),
    (Test::Lt, "mv_lt"),
    (Test::LtEq, "mv_lteq"),
    (Test::Gt, "mv_gt"),
    (Test::GtEq, "mv_gteq"),
    (Test::In, "mv_in"),
    (Test::Between, "mv_between"),
    (Test::Like, "mv_like"),
    (Test::ILike, "mv_ilike"),
    (Test::Regex, "mv_regex"),
    (Test::IRegex, "mv_iregex"),
];

static FUNCTIONS: LazyLock<Vec<Arc<ScalarUDF>>> = LazyLock::new(|| {
    let mut all: Vec<_> = TESTS
        .iter()
        .map(|(test, name)| {
            Arc::new(ScalarUDF::from(AnyValue {
                test: *test,
                name,
                signature: Signature::user_defined(Volatility::Immutable),
            }))
        })
        .collect();
    all.push(Arc::new(ScalarUDF::from(Elements {
        signature: Signature::user_defined(Volatility::Immutable),
    })));
    all.extend(fold::functions());
    all
});

/// The name of the function that gives a list to unnest: an empty or null one becomes one null.
pub const ELEMENTS: &str = "mv_elements";

/// The functions of this module.
pub fn functions() -> &'static [Arc<ScalarUDF>] {
    &FUNCTIONS
}

impl Test {
    /// The test that a function of this module makes.
    pub fn of_function(name: &str) -> Option<Self> {
        TESTS
            .iter()
            .find(|(_, n)| *n == name)
            .map(|(test, _)| *test)
    }

    /// The function that makes this test.
    pub fn function(self) -> Arc<ScalarUDF> {
        let index = TESTS
            .iter()
            .position(|(test, _)| *test == self)
            .unwrap_or_default();
        Arc::clone(&FUNCTIONS[index])
    }
}

/// `mv_eq(list, value)` and its siblings.
#[derive(Debug, PartialEq, Eq, Hash)]
struct AnyValue {
    test: Test,
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for AnyValue {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let expected = match self.test {
            Test::In => arg_types.len().max(2),
            Test::Between => 3,
            _ => 2,
        };
        let Some((first, operands)) = arg_types
            .split_first()
            .filter(|_| arg_types.len() == expected)
        else {
            return plan_err!(
                "{} takes a multi-value column and {} values",
                self.name,
                expected - 1
            );
        };
        // Above a GROUP BY a multi-value column has become one value.
        let element = match first {
            DataType::List(field) => field.data_type().clone(),
            other => other.clone(),
        };
        let mut common = element.clone();
        for operand in operands {
            let coerced = match self.test {
                Test::Like | Test::ILike => like_coercion(&common, operand),
                Test::Regex | Test::IRegex => regex_coercion(&common, operand),
                _ => comparison_coercion(&common, operand),
            };
            let Some(coerced) = coerced else {
                return plan_err!("values of type {element} can't be compared with {operand}");
            };
            common = coerced;
        }
        let mut types = vec![common.clone(); arg_types.len()];
        if matches!(first, DataType::List(_)) {
            types[0] = DataType::List(Arc::new(Field::new_list_field(common, true)));
        }
        Ok(types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let mut values = args.args.into_iter();
        let Some(list) = values.next() else {
            return plan_err!("{} takes arguments", self.name);
        };
        let list = as_list(list.into_array(rows)?);
        let operands: Vec<_> = values.collect();
        Ok(ColumnarValue::Array(Arc::new(self.any(&list, &operands)?)))
    }
}

/// A scalar array as lists of one.
fn as_list(array: ArrayRef) -> ListArray {
    match array.as_list_opt::<i32>() {
        Some(list) => list.clone(),
        None => {
            let nulls = array.nulls().cloned();
            let field = Arc::new(Field::new_list_field(array.data_type().clone(), true));
            ListArray::new(
                field,
                OffsetBuffer::from_lengths(std::iter::repeat_n(1, array.len())),
                array,
                nulls,
            )
        }
    }
}

impl AnyValue {
    fn any(&self, list: &ListArray, operands: &[ColumnarValue]) -> Result<BooleanArray> {
        let first = list.offsets().first().map_or(0, |o| *o as usize);
        let last = list.offsets().last().map_or(0, |o| *o as usize);
        let elements = list.values().slice(first, last - first);
        let operands = operands
            .iter()
            .map(|o| Operand::new(o, list))
            .collect::<Result<Vec<_>>>()?;
        let matches = self.matches(&normalize_float_zero(&elements), &operands)?;
        let mut any = BooleanBufferBuilder::new(list.len());
        let mut valid = BooleanBufferBuilder::new(list.len());
        for row in 0..list.len() {
            let range =
                list.offsets()[row] as usize - first..list.offsets()[row + 1] as usize - first;
            any.append(
                range
                    .clone()
                    .any(|i| matches.is_valid(i) && matches.value(i)),
            );
            valid.append(list.is_valid(row) && operands.iter().all(|o| o.is_valid(row)));
        }
        Ok(BooleanArray::new(
            any.finish(),
            Some(NullBuffer::new(valid.finish())),
        ))
    }

    fn matches(&self, elements: &ArrayRef, operands: &[Operand]) -> Result<BooleanArray> {
        let compare = |op: fn(&dyn Datum, &dyn Datum) -> Result<BooleanArray, ArrowError>,
                       operand: &Operand|
         -> Result<BooleanArray> { Ok(op(elements, operand.datum())?) };
        let [first, rest @ ..] = operands else {
            return plan_err!("{} takes arguments", self.name);
        };
        match self.test {
            Test::Eq => compare(cmp::eq, first),
            Test::Lt => compare(cmp::lt, first),
            Test::LtEq => compare(cmp::lt_eq, first),
            Test::Gt => compare(cmp::gt, first),
            Test::GtEq => compare(cmp::gt_eq, first),
            Test::Like => compare(like, first),
            Test::ILike => compare(ilike, first),
            Test::Between => match rest {
                [high] => Ok(compute::and(
                    &compare(cmp::gt_eq, first)?,
                    &compare(cmp::lt_eq, high)?,
                )?),
                _ => plan_err!("{} takes a multi-value column and 2 values", self.name),
            },
            Test::In => {
                let mut found = compare(cmp::eq, first)?;
                for operand in rest {
                    found = compute::or_kleene(&found, &compare(cmp::eq, operand)?)?;
                }
                Ok(found)
            }
            Test::Regex => first.regex(elements, None),
            Test::IRegex => first.regex(elements, Some("i")),
        }
    }
}

/// What elements are compared with: one value, or one for each of them.
enum Operand {
    One(Scalar<ArrayRef>, bool),
    Each {
        rows: Option<NullBuffer>,
        elements: ArrayRef,
    },
}

impl Operand {
    fn new(value: &ColumnarValue, list: &ListArray) -> Result<Self> {
        Ok(match value {
            ColumnarValue::Scalar(scalar) => {
                let value = normalize_float_zero(&scalar.to_array()?);
                Self::One(Scalar::new(value), !scalar.is_null())
            }
            ColumnarValue::Array(array) => {
                let mut row_of = Vec::with_capacity(list.values().len());
                for (row, length) in list.offsets().lengths().enumerate() {
                    row_of.extend(std::iter::repeat_n(row as u32, length));
                }
                Self::Each {
                    rows: array.logical_nulls(),
                    elements: normalize_float_zero(&take(array, &UInt32Array::from(row_of), None)?),
                }
            }
        })
    }

    fn datum(&self) -> &dyn Datum {
        match self {
            Self::One(scalar, _) => scalar,
            Self::Each { elements, .. } => elements,
        }
    }

    fn is_valid(&self, row: usize) -> bool {
        match self {
            Self::One(_, valid) => *valid,
            Self::Each { rows, .. } => rows.as_ref().is_none_or(|nulls| nulls.is_valid(row)),
        }
    }

    fn regex(&self, elements: &ArrayRef, flags: Option<&str>) -> Result<BooleanArray> {
        let text = cast(elements, &DataType::Utf8)?;
        let patterns = cast(self.datum().get().0, &DataType::Utf8)?;
        Ok(match self {
            Self::One(_, false) => BooleanArray::new_null(elements.len()),
            Self::One(..) => regexp_is_match_scalar(
                text.as_string::<i32>(),
                patterns.as_string::<i32>().value(0),
                flags,
            )?,
            Self::Each { .. } => {
                let flags = flags
                    .map(|f| StringArray::from_iter_values(std::iter::repeat_n(f, elements.len())));
                regexp_is_match(
                    text.as_string::<i32>(),
                    patterns.as_string::<i32>(),
                    flags.as_ref(),
                )?
            }
        })
    }
}

/// `mv_elements(list)`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Elements {
    signature: Signature,
}

impl ScalarUDFImpl for Elements {
    fn name(&self) -> &str {
        ELEMENTS
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        match arg_types {
            [list @ DataType::List(_)] => Ok(list.clone()),
            _ => plan_err!("{ELEMENTS} takes a multi-value column"),
        }
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.return_type(arg_types).map(|list| vec![list])
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some(list) = args.args.into_iter().next() else {
            return plan_err!("{ELEMENTS} takes a multi-value column");
        };
        let list = as_list(list.into_array(args.number_rows)?);
        // The elements and, behind them, the null that stands for an empty list.
        let null = new_null_array(list.values().data_type(), 1);
        let values = concat(&[list.values().as_ref(), null.as_ref()])?;
        let missing = list.values().len() as u32;
        let mut picked = Vec::with_capacity(list.values().len());
        let mut lengths = Vec::with_capacity(list.len());
        for row in 0..list.len() {
            let range = list.offsets()[row] as u32..list.offsets()[row + 1] as u32;
            if list.is_null(row) || range.is_empty() {
                picked.push(missing);
                lengths.push(1);
            } else {
                lengths.push(range.len());
                picked.extend(range);
            }
        }
        let DataType::List(field) = list.data_type() else {
            return plan_err!("{ELEMENTS} takes a multi-value column");
        };
        let values = take(&values, &UInt32Array::from(picked), None)?;
        Ok(ColumnarValue::Array(Arc::new(ListArray::try_new(
            Arc::clone(field),
            OffsetBuffer::from_lengths(lengths),
            values,
            None,
        )?)))
    }
}
