//! `TEXT_MATCH(column, 'query' [, 'options'])`: whether a text, or any of a multi-value column's, matches a
//! [text query](strandline_proto::text).
//!
//! Columns whose table config says how they are searched carry that with their fields; before types are coerced, a rule makes it a
//! call's third argument, so that it means the same wherever it is evaluated: in a leaf by an index, in a leaf without one, and above.

use super::is_text;
use datafusion::arrow::array::{Array, AsArray, BooleanArray, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use std::collections::HashMap;
use std::sync::Arc;
use strandline_proto::text::{TextMatcher, TextSettings, Words};

/// The function's name.
pub(crate) const TEXT_MATCH: &str = "text_match";

/// Under what a field's metadata says how its column is searched.
const SETTINGS: &str = "strandline.text";

/// The function.
pub(super) fn function() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(TextMatch {
        signature: Signature::user_defined(Volatility::Immutable),
    }))
}

/// A column's field, with how it is searched where that isn't the way of any other.
pub(crate) fn with_settings(field: Field, settings: Option<&TextSettings>) -> Field {
    match settings {
        Some(settings) if *settings != TextSettings::default() => {
            let settings = (SETTINGS.to_owned(), settings.to_json());
            field.with_metadata(HashMap::from([settings]))
        }
        _ => field,
    }
}

/// The settings that a call was given.
pub(crate) fn settings_of(options: Option<&str>) -> Result<TextSettings> {
    let settings = TextSettings::default();
    match options {
        None => Ok(settings),
        Some(options) => settings
            .with_options(options)
            .map_err(|e| DataFusionError::Plan(e.to_string())),
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TextMatch {
    signature: Signature,
}

impl ScalarUDFImpl for TextMatch {
    fn name(&self) -> &str {
        TEXT_MATCH
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let text = match arg_types.first() {
            Some(DataType::List(item)) if is_text(item.data_type()) => {
                DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)))
            }
            Some(t) if is_text(t) => DataType::Utf8,
            _ => return plan_err!("TEXT_MATCH takes a column of text, and a query as text"),
        };
        if !(2..=3).contains(&arg_types.len()) || !arg_types.iter().skip(1).all(is_text) {
            return plan_err!(
                "TEXT_MATCH takes a column of text, a query and, if need be, options"
            );
        }
        let mut types = vec![DataType::Utf8; arg_types.len()];
        types[0] = text;
        Ok(types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let options = match args.args.get(2) {
            None => None,
            Some(ColumnarValue::Scalar(ScalarValue::Utf8(Some(options)))) => Some(options.clone()),
            Some(_) => return exec_err!("the options of TEXT_MATCH must be a literal"),
        };
        let settings = settings_of(options.as_deref())?;
        let [texts, queries, ..] = args.args.as_slice() else {
            return plan_err!("TEXT_MATCH takes a column of text and a query");
        };
        // One query for all rows is an array of one.
        let one_query = matches!(queries, ColumnarValue::Scalar(_));
        let queries = queries.to_array(if one_query { 1 } else { rows })?;
        let texts = texts.to_array(rows)?;
        let answer = matches(&texts, queries.as_string(), one_query, &settings)?;
        Ok(ColumnarValue::Array(Arc::new(answer)))
    }
}

/// Which of the texts match the queries; null where either is.
fn matches(
    texts: &dyn Array,
    queries: &StringArray,
    one_query: bool,
    settings: &TextSettings,
) -> Result<BooleanArray> {
    let lists = texts.as_list_opt::<i32>();
    let values = match lists {
        Some(lists) => cast(lists.values(), &DataType::Utf8)?,
        None => texts.slice(0, texts.len()),
    };
    let values: &StringArray = values.as_string();
    let mut words = Words::default();
    let mut matcher: Option<(&str, TextMatcher)> = None;
    let mut answer = Vec::with_capacity(texts.len());
    for row in 0..texts.len() {
        let at = if one_query { 0 } else { row };
        if texts.is_null(row) || queries.is_null(at) {
            answer.push(None);
            continue;
        }
        let query = queries.value(at);
        if matcher.as_ref().is_none_or(|(of, _)| *of != query) {
            let made = TextMatcher::new(query, settings)
                .map_err(|e| DataFusionError::Execution(e.to_string()))?;
            matcher = Some((query, made));
        }
        let Some((_, matcher)) = &matcher else {
            continue;
        };
        let range = match lists {
            Some(lists) => {
                let ends = lists.value_offsets();
                ends[row] as usize..ends[row + 1] as usize
            }
            None => row..row + 1,
        };
        let of_row = range
            .filter(|&i| values.is_valid(i))
            .map(|i| values.value(i));
        answer.push(Some(matcher.matches(of_row, &mut words)));
    }
    Ok(BooleanArray::from(answer))
}

/// Gives calls the settings of the columns that they search.
#[derive(Debug)]
pub(crate) struct TextSettingsRule;

impl AnalyzerRule for TextSettingsRule {
    fn name(&self) -> &str {
        "text_settings"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(rewrite).data()
    }
}

fn rewrite(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let schema = merge_schema(&plan.inputs());
    let names = NamePreserver::new(&plan);
    plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let expr = expr.transform_up(|expr| match expr {
            Expr::ScalarFunction(call) if call.func.name() == TEXT_MATCH => {
                let settings = match call.args.first() {
                    Some(column @ Expr::Column(_)) => {
                        let (_, field) = column.to_field(&schema)?;
                        field.metadata().get(SETTINGS).cloned()
                    }
                    Some(Expr::OuterReferenceColumn(field, _)) => {
                        field.metadata().get(SETTINGS).cloned()
                    }
                    _ => None,
                };
                with_argument(call, settings.as_deref())
            }
            other => Ok(Transformed::no(other)),
        })?;
        Ok(if expr.transformed {
            expr.update_data(|e| name.restore(e))
        } else {
            expr
        })
    })
}

/// The call with all that decides about it in its third argument.
fn with_argument(mut call: ScalarFunction, of_column: Option<&str>) -> Result<Transformed<Expr>> {
    let given = match call.args.get(2) {
        None => None,
        Some(Expr::Literal(ScalarValue::Utf8(Some(options)), _)) => Some(options.clone()),
        Some(_) => return plan_err!("the options of TEXT_MATCH must be a literal"),
    };
    let is_whole = given
        .as_ref()
        .is_some_and(|o| o.trim_start().starts_with('{'));
    if is_whole || given.is_none() && of_column.is_none() {
        return Ok(Transformed::no(Expr::ScalarFunction(call)));
    }
    let mut settings = settings_of(of_column)?;
    if let Some(options) = given {
        settings = settings
            .with_options(&options)
            .map_err(|e| DataFusionError::Plan(e.to_string()))?;
    }
    call.args.truncate(2);
    call.args.push(Expr::Literal(
        ScalarValue::Utf8(Some(settings.to_json())),
        None,
    ));
    Ok(Transformed::yes(Expr::ScalarFunction(call)))
}
