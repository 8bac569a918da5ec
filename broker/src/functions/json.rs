//! Pinot's functions of JSON documents in text: `JSON_MATCH` and `JSON_EXTRACT_SCALAR`.
//!
//! What a filter and a path mean is [`strandline_proto::json`]'s to say; an index only finds the same documents sooner.

use super::{JSON_MATCH, is_text};
use crate::error::to_datafusion;
use datafusion::arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Decimal128Array, ListArray,
    PrimitiveArray, StringArray, StringBuilder,
};
use datafusion::arrow::buffer::{NullBuffer, OffsetBuffer};
use datafusion::arrow::compute::kernels::cast_utils::parse_decimal;
use datafusion::arrow::datatypes::{
    DataType, Decimal128Type, Field, FieldRef, Float32Type, Float64Type, Int32Type, Int64Type,
    TimeUnit, TimestampMillisecondType,
};
use datafusion::common::{Result, ScalarValue, internal_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use std::borrow::Cow;
use std::sync::Arc;
use strandline_proto::Error;
use strandline_proto::json::{Found, JsonFilter, JsonPath, JsonValue, compact, extract};
use strandline_proto::schema::{DECIMAL_PRECISION_DEFAULT, DECIMAL_SCALE_DEFAULT};
use strandline_proto::time_format::instant::parse_iso;

/// Characters of a document that an error shows.
const SHOWN_CHARS_MAX: usize = 80;

/// The functions of this module.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let signature = || Signature::user_defined(Volatility::Immutable);
    vec![
        Arc::new(ScalarUDF::from(JsonMatch {
            signature: signature(),
            aliases: ["jsonmatch".to_owned()],
        })),
        Arc::new(ScalarUDF::from(JsonExtractScalar {
            signature: signature(),
            aliases: ["jsonextractscalar".to_owned()],
        })),
    ]
}

/// The text of a constant argument.
fn text_of(scalar: Option<&ScalarValue>) -> Option<&str> {
    scalar?.try_as_str()?
}

/// `JSON_MATCH(column, 'filter')`: whether the filter holds for the document; NULL for NULL.
#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonMatch {
    signature: Signature,
    aliases: [String; 1],
}

impl ScalarUDFImpl for JsonMatch {
    fn name(&self) -> &str {
        JSON_MATCH
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        if let Some(filter) = text_of(args.scalar_arguments.get(1).copied().flatten()) {
            JsonFilter::parse(filter).map_err(to_datafusion)?;
        }
        Ok(Arc::new(Field::new(self.name(), DataType::Boolean, true)))
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        match arg_types {
            [document, filter] if is_text(document) && is_text(filter) => {
                Ok(vec![DataType::Utf8; 2])
            }
            _ => plan_err!(
                "JSON_MATCH takes a column of type JSON or STRING and a filter as text: JSON_MATCH(c, '\"$.a.b[*]\" = ''x''')"
            ),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [documents, filter] = args.args.as_slice() else {
            return internal_err!("JSON_MATCH takes two arguments");
        };
        let documents = documents.to_array(args.number_rows)?;
        let documents = documents.as_string::<i32>();
        let answer: BooleanArray = match filter {
            ColumnarValue::Scalar(filter) => match text_of(Some(filter)) {
                None => BooleanArray::new_null(documents.len()),
                Some(filter) => {
                    let filter = JsonFilter::parse(filter).map_err(to_datafusion)?;
                    documents
                        .iter()
                        .map(|d| d.map(|d| filter.matches(d)))
                        .collect()
                }
            },
            ColumnarValue::Array(filters) => (documents.iter())
                .zip(filters.as_string::<i32>())
                .map(|pair| match pair {
                    (Some(document), Some(filter)) => {
                        let filter = JsonFilter::parse(filter).map_err(to_datafusion)?;
                        Ok(Some(filter.matches(document)))
                    }
                    _ => Ok(None),
                })
                .collect::<Result<_>>()?,
        };
        Ok(ColumnarValue::Array(Arc::new(answer)))
    }
}

/// `JSON_EXTRACT_SCALAR(column, '$.path', 'TYPE' [, default])`: the value at a path.
///
/// Where nothing, null or what is not of the type stands there, and where the text is no document: the default, or
/// an error without one. NULL for NULL without a default. A list type gives the elements, none of them where nothing is.
#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonExtractScalar {
    signature: Signature,
    aliases: [String; 1],
}

/// The types of values that can be asked for.
const TYPES: [(&str, DataType); 9] = [
    ("STRING", DataType::Utf8),
    ("JSON", DataType::Utf8),
    ("INT", DataType::Int32),
    ("LONG", DataType::Int64),
    ("FLOAT", DataType::Float32),
    ("DOUBLE", DataType::Float64),
    ("BOOLEAN", DataType::Boolean),
    (
        "TIMESTAMP",
        DataType::Timestamp(TimeUnit::Millisecond, None),
    ),
    (
        "BIG_DECIMAL",
        DataType::Decimal128(DECIMAL_PRECISION_DEFAULT, DECIMAL_SCALE_DEFAULT),
    ),
];

/// What one call asks for.
struct Wanted {
    path: JsonPath,
    path_text: String,
    /// Pinot's name of the type.
    name: String,
    element: DataType,
    is_list: bool,
}

impl Wanted {
    fn new(path: Option<&str>, name: Option<&str>) -> Result<Self> {
        let (Some(path_text), Some(name)) = (path, name) else {
            return plan_err!(
                "JSON_EXTRACT_SCALAR takes its path and its type as constants: JSON_EXTRACT_SCALAR(c, '$.a.b', 'STRING')"
            );
        };
        let path = JsonPath::parse(path_text).map_err(to_datafusion)?;
        let upper = name.trim().to_ascii_uppercase();
        let (single, is_list) = match upper.strip_suffix("_ARRAY") {
            Some(single) => (single, true),
            None => (upper.as_str(), false),
        };
        let Some((_, element)) = TYPES.into_iter().find(|(known, _)| *known == single) else {
            let names: Vec<_> = TYPES.iter().map(|(name, _)| *name).collect();
            return plan_err!(
                "JSON_EXTRACT_SCALAR knows no type '{name}': use one of {}, or one of them with _ARRAY",
                names.join(", ")
            );
        };
        Ok(Self {
            path,
            path_text: path_text.to_owned(),
            name: upper,
            element,
            is_list,
        })
    }

    fn data_type(&self) -> DataType {
        match self.is_list {
            true => DataType::List(Arc::new(Field::new_list_field(self.element.clone(), true))),
            false => self.element.clone(),
        }
    }

    /// The default as an array of one.
    fn default(&self, given: &ScalarValue) -> Result<ArrayRef> {
        match given.cast_to(&self.element) {
            Ok(default) => default.to_array(),
            Err(_) => plan_err!(
                "JSON_EXTRACT_SCALAR: the default {given} is not of the type {}",
                self.name
            ),
        }
    }

    fn error(&self, what: &str, document: &str) -> datafusion::error::DataFusionError {
        let mut shown: String = document.chars().take(SHOWN_CHARS_MAX).collect();
        if shown.len() < document.len() {
            shown.push_str("...");
        }
        to_datafusion(Error::invalid(format!(
            "JSON_EXTRACT_SCALAR: {what} at {} as {} in {shown}: give a default as the fourth argument",
            self.path_text, self.name
        )))
    }
}

/// A value to be: what is there, or what stands for it.
enum Cell<'a> {
    Null,
    /// The default, or an error that says what is wrong with which document.
    Default(&'static str, &'a str),
    /// With the document, for errors.
    Value(JsonValue<'a>, &'a str),
    /// Several values.
    Values(Vec<JsonValue<'a>>, &'a str),
}

impl ScalarUDFImpl for JsonExtractScalar {
    fn name(&self) -> &str {
        "json_extract_scalar"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arg_types: &[DataType]) -> Result<DataType> {
        internal_err!("the type depends on the third argument")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let scalar = |i: usize| args.scalar_arguments.get(i).copied().flatten();
        let wanted = Wanted::new(text_of(scalar(1)), text_of(scalar(2)))?;
        match (args.arg_fields.len(), scalar(3)) {
            (4, None) => return plan_err!("JSON_EXTRACT_SCALAR takes a constant as its default"),
            (_, Some(default)) => drop(wanted.default(default)?),
            _ => {}
        }
        Ok(Arc::new(Field::new(self.name(), wanted.data_type(), true)))
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        let mut types = vec![DataType::Utf8; 3];
        match arg_types {
            [document, path, name, default @ ..]
                if default.len() <= 1 && [document, path, name].into_iter().all(is_text) =>
            {
                types.extend_from_slice(default);
                Ok(types)
            }
            _ => plan_err!(
                "JSON_EXTRACT_SCALAR takes a column of type JSON or STRING, a path, a type and perhaps a default: JSON_EXTRACT_SCALAR(c, '$.a.b', 'STRING', '')"
            ),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = |i: usize| match args.args.get(i) {
            Some(ColumnarValue::Scalar(scalar)) => Some(scalar),
            _ => None,
        };
        let wanted = Wanted::new(text_of(scalar(1)), text_of(scalar(2)))?;
        let default = scalar(3).map(|given| wanted.default(given)).transpose()?;
        let Some(documents) = args.args.first() else {
            return internal_err!("JSON_EXTRACT_SCALAR takes three arguments");
        };
        let documents = documents.to_array(args.number_rows)?;
        let documents = documents.as_string::<i32>();
        let answer = match wanted.is_list {
            true => lists(&wanted, documents, default.as_ref())?,
            false => {
                let cells = documents.iter().map(|document| match document {
                    None if default.is_some() => Cell::Default("", ""),
                    None => Cell::Null,
                    Some(document) => match extract(document, &wanted.path) {
                        Ok(Found::One(JsonValue::Null) | Found::Missing) => {
                            Cell::Default("nothing is", document)
                        }
                        Ok(Found::One(value)) => Cell::Value(value, document),
                        Ok(Found::Many(values)) => Cell::Values(values, document),
                        Err(_) => Cell::Default("there is no JSON document to look", document),
                    },
                });
                values(&wanted, cells, default.as_ref())?
            }
        };
        Ok(ColumnarValue::Array(answer))
    }
}

/// Lists of the elements at a path.
fn lists(wanted: &Wanted, documents: &StringArray, default: Option<&ArrayRef>) -> Result<ArrayRef> {
    let mut cells = Vec::new();
    let mut lengths = Vec::with_capacity(documents.len());
    for document in documents.iter() {
        let before = cells.len();
        if let Some(document) = document {
            let found = extract(document, &wanted.path);
            let found = match found.unwrap_or(Found::Missing) {
                Found::Missing | Found::One(JsonValue::Null) => Vec::new(),
                Found::One(JsonValue::Nested(text)) if text.starts_with('[') => {
                    let elements = Found::One(JsonValue::Nested(text)).elements();
                    elements.ok().flatten().unwrap_or_default()
                }
                Found::One(single) => vec![single],
                Found::Many(values) => values,
            };
            cells.extend(found.into_iter().map(|value| match value {
                JsonValue::Null if default.is_some() => Cell::Default("null is", document),
                JsonValue::Null => Cell::Null,
                value => Cell::Value(value, document),
            }));
        }
        lengths.push(cells.len() - before);
    }
    let nulls: NullBuffer = documents.iter().map(|d| d.is_some()).collect();
    Ok(Arc::new(ListArray::try_new(
        Arc::new(Field::new_list_field(wanted.element.clone(), true)),
        OffsetBuffer::from_lengths(lengths),
        values(wanted, cells.into_iter(), default)?,
        Some(nulls).filter(|nulls| nulls.null_count() > 0),
    )?))
}

/// The cells as values of the wanted type.
fn values<'a>(
    wanted: &Wanted,
    cells: impl Iterator<Item = Cell<'a>>,
    default: Option<&ArrayRef>,
) -> Result<ArrayRef> {
    Ok(match &wanted.element {
        DataType::Int32 => Arc::new(primitives::<Int32Type>(wanted, cells, default, |value| {
            i32::try_from(integer(value)?).ok()
        })?),
        DataType::Int64 => Arc::new(primitives::<Int64Type>(wanted, cells, default, integer)?),
        DataType::Float32 => Arc::new(primitives::<Float32Type>(
            wanted,
            cells,
            default,
            |value| number_text(value)?.parse().ok(),
        )?),
        DataType::Float64 => Arc::new(primitives::<Float64Type>(
            wanted,
            cells,
            default,
            |value| number_text(value)?.parse().ok(),
        )?),
        DataType::Timestamp(..) => Arc::new(primitives::<TimestampMillisecondType>(
            wanted, cells, default, time,
        )?),
        DataType::Decimal128(precision, scale) => {
            let decimals: Decimal128Array =
                primitives::<Decimal128Type>(wanted, cells, default, |value| {
                    parse_decimal::<Decimal128Type>(number_text(value)?, *precision, *scale).ok()
                })?;
            Arc::new(decimals.with_precision_and_scale(*precision, *scale)?)
        }
        DataType::Boolean => {
            let default = default.map(|d| d.as_boolean().iter().next().flatten());
            let found = each(wanted, cells, default, boolean).collect::<Result<BooleanArray>>()?;
            Arc::new(found)
        }
        _ => {
            let default = default.map(|d| d.as_string::<i32>().iter().next().flatten());
            let mut builder = StringBuilder::new();
            for cell in cells {
                match cell {
                    Cell::Null => builder.append_null(),
                    Cell::Default(what, document) => match default {
                        Some(default) => builder.append_option(default),
                        None => return Err(wanted.error(what, document)),
                    },
                    Cell::Value(value, _) => builder.append_value(text(&value)),
                    Cell::Values(values, _) => builder.append_value(list_text(&values)),
                }
            }
            Arc::new(builder.finish())
        }
    })
}

fn primitives<'a, T: ArrowPrimitiveType>(
    wanted: &Wanted,
    cells: impl Iterator<Item = Cell<'a>>,
    default: Option<&ArrayRef>,
    convert: impl Fn(&JsonValue<'a>) -> Option<T::Native>,
) -> Result<PrimitiveArray<T>> {
    let default = default.map(|d| d.as_primitive::<T>().iter().next().flatten());
    each(wanted, cells, default, convert).collect()
}

/// The cells' values, one by one; `default` may itself be NULL.
fn each<'a, V: Copy>(
    wanted: &Wanted,
    cells: impl Iterator<Item = Cell<'a>>,
    default: Option<Option<V>>,
    convert: impl Fn(&JsonValue<'a>) -> Option<V>,
) -> impl Iterator<Item = Result<Option<V>>> {
    cells.map(move |cell| {
        let (what, document) = match cell {
            Cell::Null => return Ok(None),
            Cell::Default(what, document) => (what, document),
            Cell::Values(_, document) => ("several values are", document),
            Cell::Value(value, document) => match convert(&value) {
                Some(value) => return Ok(Some(value)),
                None => ("another value is", document),
            },
        };
        default.ok_or_else(|| wanted.error(what, document))
    })
}

/// The text of a number, or a text that may be one.
fn number_text<'v>(value: &'v JsonValue<'_>) -> Option<&'v str> {
    match value {
        JsonValue::Number(text) => Some(text),
        JsonValue::Text(text) => Some(text.trim()),
        _ => None,
    }
}

/// A whole number; digits behind the point of a number are cut.
fn integer(value: &JsonValue<'_>) -> Option<i64> {
    let text = number_text(value)?;
    if let Ok(whole) = text.parse() {
        return Some(whole);
    }
    let JsonValue::Number(text) = value else {
        return None;
    };
    let number: f64 = text.parse().ok()?;
    let whole = number.trunc();
    // Beyond these a cast would stop at the largest number.
    (-9.2e18..9.2e18).contains(&whole).then_some(whole as i64)
}

fn boolean(value: &JsonValue<'_>) -> Option<bool> {
    match value {
        JsonValue::Boolean(value) => Some(*value),
        JsonValue::Number(text) => text.parse::<f64>().ok().map(|number| number != 0.0),
        JsonValue::Text(text) => match text.trim() {
            "1" => Some(true),
            "0" => Some(false),
            text if text.eq_ignore_ascii_case("true") => Some(true),
            text if text.eq_ignore_ascii_case("false") => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// Milliseconds: a number of them, or a date with or without a time.
fn time(value: &JsonValue<'_>) -> Option<i64> {
    match value {
        JsonValue::Text(text) => integer(value).or_else(|| parse_iso(text.trim())),
        value => integer(value),
    }
}

fn text<'v>(value: &'v JsonValue<'_>) -> Cow<'v, str> {
    match value {
        JsonValue::Null => Cow::Borrowed("null"),
        JsonValue::Boolean(true) => Cow::Borrowed("true"),
        JsonValue::Boolean(false) => Cow::Borrowed("false"),
        JsonValue::Number(text) => Cow::Borrowed(text),
        JsonValue::Text(text) => Cow::Borrowed(text),
        JsonValue::Nested(text) => Cow::Owned(compact(text)),
    }
}

/// Several values as the text of a JSON array.
fn list_text(values: &[JsonValue<'_>]) -> String {
    let mut out = String::from("[");
    for (i, value) in values.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        match value {
            JsonValue::Text(text) => strandline_proto::json::write_string(text, &mut out),
            other => out.push_str(&text(other)),
        }
    }
    out.push(']');
    out
}
