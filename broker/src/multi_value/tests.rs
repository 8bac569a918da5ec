use super::*;
use datafusion::arrow::array::{Int32Array, ListBuilder, StringBuilder};
use datafusion::arrow::datatypes::{Float64Type, Int32Type};
use datafusion::common::ScalarValue;
use datafusion::common::config::ConfigOptions;

fn lists() -> ListArray {
    ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
        Some(vec![Some(1), Some(5)]),
        Some(vec![]),
        None,
        Some(vec![None, Some(3)]),
    ])
}

fn run(test: Test, list: ListArray, operands: Vec<ColumnarValue>) -> Vec<Option<bool>> {
    let rows = list.len();
    let mut args = vec![ColumnarValue::Array(Arc::new(list))];
    args.extend(operands);
    let arg_fields = args
        .iter()
        .map(|a| Arc::new(Field::new("a", a.data_type(), true)))
        .collect();
    let answer = test
        .function()
        .invoke_with_args(ScalarFunctionArgs {
            args,
            arg_fields,
            number_rows: rows,
            return_field: Arc::new(Field::new("r", DataType::Boolean, true)),
            config_options: Arc::new(ConfigOptions::default()),
        })
        .unwrap();
    answer
        .into_array(rows)
        .unwrap()
        .as_boolean()
        .iter()
        .collect()
}

fn int(v: i32) -> ColumnarValue {
    ColumnarValue::Scalar(ScalarValue::Int32(Some(v)))
}

#[test]
fn a_row_matches_when_any_of_its_values_does() {
    assert_eq!(
        run(Test::Eq, lists(), vec![int(5)]),
        [Some(true), Some(false), None, Some(false)]
    );
    assert_eq!(
        run(Test::Lt, lists(), vec![int(4)]),
        [Some(true), Some(false), None, Some(true)]
    );
    assert_eq!(
        run(Test::In, lists(), vec![int(3), int(9)]),
        [Some(false), Some(false), None, Some(true)]
    );
    // 1 is below and 5 above: no one value lies between.
    assert_eq!(
        run(Test::Between, lists(), vec![int(2), int(4)]),
        [Some(false), Some(false), None, Some(true)]
    );
    assert_eq!(
        run(
            Test::Eq,
            lists(),
            vec![ColumnarValue::Scalar(ScalarValue::Int32(None))]
        ),
        [None; 4]
    );
}

#[test]
fn a_slice_compares_with_its_own_rows() {
    let sliced = lists().slice(1, 3);
    let operand = ColumnarValue::Array(Arc::new(Int32Array::from(vec![Some(1), Some(1), Some(3)])));
    assert_eq!(
        run(Test::Eq, sliced, vec![operand]),
        [Some(false), None, Some(true)]
    );
}

#[test]
fn text_matches_patterns() {
    let mut builder = ListBuilder::new(StringBuilder::new());
    builder.append_value([Some("abc"), Some("x")]);
    builder.append_value([Some("ABC")]);
    let list = builder.finish();
    let text = |t: &str| ColumnarValue::Scalar(ScalarValue::Utf8(Some(t.to_owned())));
    assert_eq!(
        run(Test::Like, list.clone(), vec![text("a%")]),
        [Some(true), Some(false)]
    );
    assert_eq!(
        run(Test::ILike, list.clone(), vec![text("a%")]),
        [Some(true), Some(true)]
    );
    assert_eq!(
        run(Test::Regex, list.clone(), vec![text("^.$")]),
        [Some(true), Some(false)]
    );
    assert_eq!(
        run(Test::IRegex, list, vec![text("bc")]),
        [Some(true), Some(true)]
    );
}

#[test]
fn an_empty_or_null_list_unnests_to_one_null() {
    let list: ArrayRef = Arc::new(lists());
    let udf = functions().iter().find(|f| f.name() == ELEMENTS).unwrap();
    let field = Arc::new(Field::new("a", list.data_type().clone(), true));
    let answer = udf
        .invoke_with_args(ScalarFunctionArgs {
            args: vec![ColumnarValue::Array(list)],
            arg_fields: vec![Arc::clone(&field)],
            number_rows: 4,
            return_field: field,
            config_options: Arc::new(ConfigOptions::default()),
        })
        .unwrap();
    let answer = answer.into_array(4).unwrap();
    let expected = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
        Some(vec![Some(1), Some(5)]),
        Some(vec![None]),
        Some(vec![None]),
        Some(vec![None, Some(3)]),
    ]);
    assert_eq!(answer.as_list::<i32>(), &expected);
}

#[test]
fn both_zeros_are_one_value() {
    let list = || {
        ListArray::from_iter_primitive::<Float64Type, _, _>([
            Some(vec![Some(-0.0)]),
            Some(vec![Some(0.0)]),
        ])
    };
    for zero in [0.0, -0.0] {
        let zero = || vec![ColumnarValue::Scalar(ScalarValue::Float64(Some(zero)))];
        for (test, expected) in [(Test::Eq, true), (Test::Lt, false), (Test::GtEq, true)] {
            assert_eq!(run(test, list(), zero()), [Some(expected); 2], "{test:?}");
        }
    }
}
