//! Plain DataFusion over rows in memory: what a query must answer.

use crate::answer::Answer;
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Datum, ListArray, RecordBatch};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{cast, kernels, or};
use arrow::datatypes::{DataType, Field};
use datafusion::common::utils::normalize_float_zero;
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::prelude::{SessionConfig, SessionContext};
use std::sync::Arc;
use strandline_proto::text::{TextMatcher, TextSettings, Words};

/// Tables in memory under plain DataFusion, with functions that spell out multi-value semantics and text queries.
pub struct Oracle {
    context: SessionContext,
}

impl Oracle {
    /// An oracle without tables.
    pub fn new() -> Self {
        let mut config = SessionConfig::new().with_target_partitions(1);
        // It takes each NaN for a group of its own, and panics when it drops one.
        config.options_mut().optimizer.enable_topk_aggregation = false;
        let context = SessionContext::new_with_config(config);
        context.register_udf(ScalarUDF::new_from_impl(AnyMatch::new()));
        context.register_udf(ScalarUDF::new_from_impl(ListOrNull::new()));
        context.register_udf(ScalarUDF::new_from_impl(TextMatch::new()));
        Self { context }
    }

    /// Puts `rows` in a table of this name, in place of an older one, with one zero for both: DataFusion's comparisons
    /// take them for one value, its IN and DISTINCT don't.
    ///
    /// # Panics
    /// When DataFusion refuses the rows.
    pub fn put(&self, name: &str, rows: RecordBatch) {
        let columns = rows.columns().iter().map(with_one_zero).collect();
        let rows = RecordBatch::try_new(rows.schema(), columns).expect("columns as they were");
        let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).expect("rows of one schema");
        self.context
            .deregister_table(name)
            .expect("a table may be removed");
        self.context
            .register_table(name, Arc::new(table))
            .expect("the name is free");
    }

    /// The answer, or the error's text.
    pub async fn answer(&self, sql: &str) -> std::result::Result<Answer, String> {
        let frame = self.context.sql(sql).await.map_err(|e| e.to_string())?;
        let schema = Arc::new(frame.schema().as_arrow().clone());
        let batches = frame.collect().await.map_err(|e| e.to_string())?;
        Answer::of(&schema, &batches)
    }
}

fn with_one_zero(array: &ArrayRef) -> ArrayRef {
    let Some(list) = array.as_list_opt::<i32>() else {
        return normalize_float_zero(array);
    };
    let DataType::List(field) = list.data_type() else {
        return Arc::clone(array);
    };
    Arc::new(ListArray::new(
        Arc::clone(field),
        list.offsets().clone(),
        normalize_float_zero(list.values()),
        list.nulls().cloned(),
    ))
}

impl Default for Oracle {
    fn default() -> Self {
        Self::new()
    }
}

/// `any_match(list, 'op', operand, ...)`: whether any element passes; null for a null list.
#[derive(Debug, PartialEq, Eq, Hash)]
struct AnyMatch {
    signature: Signature,
}

impl AnyMatch {
    fn new() -> Self {
        Self {
            signature: Signature::variadic_any(Volatility::Immutable),
        }
    }
}

fn element_matches(
    elements: &ArrayRef,
    operator: &str,
    operands: &[ArrayRef],
) -> Result<BooleanArray> {
    let compare = |operand: &ArrayRef, operator: &str| -> Result<BooleanArray> {
        let both =
            comparison_coercion(elements.data_type(), operand.data_type()).ok_or_else(|| {
                DataFusionError::Plan(format!(
                    "cannot compare {} with {}",
                    elements.data_type(),
                    operand.data_type()
                ))
            })?;
        let left = normalize_float_zero(&cast(elements, &both)?);
        let right = normalize_float_zero(&cast(operand, &both)?);
        let right = arrow::array::Scalar::new(right);
        Ok(match operator {
            "=" => kernels::cmp::eq(&left, &right)?,
            "<" => kernels::cmp::lt(&left, &right)?,
            "<=" => kernels::cmp::lt_eq(&left, &right)?,
            ">" => kernels::cmp::gt(&left, &right)?,
            ">=" => kernels::cmp::gt_eq(&left, &right)?,
            "LIKE" => arrow::compute::like(&left, &right)?,
            "ILIKE" => arrow::compute::ilike(&left, &right)?,
            "~" | "~*" => {
                let pattern = right.get().0.as_string::<i32>().value(0);
                let flags = (operator == "~*").then_some("i");
                arrow::compute::regexp_is_match_scalar(left.as_string::<i32>(), pattern, flags)?
            }
            other => return Err(DataFusionError::Plan(format!("no operator {other}"))),
        })
    };
    match (operator, operands) {
        ("BETWEEN", [low, high]) => {
            let (low, high) = (compare(low, ">=")?, compare(high, "<=")?);
            Ok(arrow::compute::and(&low, &high)?)
        }
        ("IN", [first, rest @ ..]) => {
            let mut any = compare(first, "=")?;
            for operand in rest {
                any = or(&any, &compare(operand, "=")?)?;
            }
            Ok(any)
        }
        (_, [operand]) => compare(operand, operator),
        _ => Err(DataFusionError::Plan(format!(
            "wrong operands for {operator}"
        ))),
    }
}

impl ScalarUDFImpl for AnyMatch {
    fn name(&self) -> &str {
        "any_match"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let plan_error = |text: &str| DataFusionError::Plan(text.to_owned());
        let [lists, operator, operands @ ..] = args.args.as_slice() else {
            return Err(plan_error(
                "any_match takes a list, an operator and operands",
            ));
        };
        let lists = lists.to_array(args.number_rows)?;
        let lists: &ListArray = lists
            .as_list_opt()
            .ok_or_else(|| plan_error("not a list"))?;
        let ColumnarValue::Scalar(ScalarValue::Utf8(Some(operator))) = operator else {
            return Err(plan_error("the operator must be a literal"));
        };
        let operands = operands
            .iter()
            .map(|o| o.to_array(1))
            .collect::<Result<Vec<_>>>()?;
        let matches = element_matches(lists.values(), operator, &operands)?;
        let answer: BooleanArray = (0..lists.len())
            .map(|row| {
                if lists.is_null(row) {
                    return None;
                }
                let (from, to) = (
                    lists.value_offsets()[row] as usize,
                    lists.value_offsets()[row + 1] as usize,
                );
                Some((from..to).any(|i| matches.is_valid(i) && matches.value(i)))
            })
            .collect();
        Ok(ColumnarValue::Array(Arc::new(answer)))
    }
}

/// `list_or_null(list)`: the list, or a list of one null for an empty or a null one.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ListOrNull {
    signature: Signature,
}

impl ListOrNull {
    fn new() -> Self {
        Self {
            signature: Signature::any(1, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for ListOrNull {
    fn name(&self) -> &str {
        "list_or_null"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let lists = args.args[0].to_array(args.number_rows)?;
        let lists: &ListArray = lists
            .as_list_opt()
            .ok_or_else(|| DataFusionError::Plan("not a list".to_owned()))?;
        let mut taken: Vec<Option<u32>> = Vec::new();
        let mut lengths = Vec::new();
        for row in 0..lists.len() {
            let (from, to) = (lists.value_offsets()[row], lists.value_offsets()[row + 1]);
            if lists.is_null(row) || from == to {
                taken.push(None);
                lengths.push(1);
            } else {
                taken.extend((from..to).map(|i| Some(i as u32)));
                lengths.push((to - from) as usize);
            }
        }
        let indices = arrow::array::UInt32Array::from(taken);
        let values = arrow::compute::take(lists.values(), &indices, None)?;
        let field = Field::new_list_field(lists.value_type(), true);
        Ok(ColumnarValue::Array(Arc::new(ListArray::new(
            Arc::new(field),
            OffsetBuffer::from_lengths(lengths),
            values,
            None::<NullBuffer>,
        ))))
    }
}

/// `text_match(text or list of texts, 'query')`, value by value.
#[derive(Debug, PartialEq, Eq, Hash)]
struct TextMatch {
    signature: Signature,
}

impl TextMatch {
    fn new() -> Self {
        Self {
            signature: Signature::any(2, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for TextMatch {
    fn name(&self) -> &str {
        "text_match"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let texts = args.args[0].to_array(args.number_rows)?;
        let ColumnarValue::Scalar(ScalarValue::Utf8(Some(query))) = &args.args[1] else {
            return Err(DataFusionError::Plan("the query must be a literal".into()));
        };
        let matcher = TextMatcher::new(query, &TextSettings::default())
            .map_err(|e| DataFusionError::Plan(e.to_string()))?;
        let answer: BooleanArray = (0..texts.len())
            .map(|row| {
                if texts.is_null(row) {
                    return None;
                }
                let of_row = match texts.as_list_opt::<i32>() {
                    Some(lists) => lists.value(row),
                    None => texts.slice(row, 1),
                };
                let of_row = of_row.as_string::<i32>().iter().flatten();
                Some(matcher.matches(of_row, &mut Words::default()))
            })
            .collect();
        Ok(ColumnarValue::Array(Arc::new(answer)))
    }
}
