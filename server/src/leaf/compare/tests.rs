use super::*;

type ScalarPlace = Place<Scalar<'static>>;

fn place_of(value: Value, column: DataType) -> ScalarPlace {
    place(&value, column).unwrap()
}

fn ints(place: Place<i32>) -> ScalarPlace {
    place.map(Scalar::I32)
}

fn longs(place: Place<i64>) -> ScalarPlace {
    place.map(Scalar::I64)
}

/// By keys.
fn floats(place: Place<i32>) -> ScalarPlace {
    place.map(|key| Scalar::F32(f32_of_key(key)))
}

/// By keys.
fn doubles(place: Place<i64>) -> ScalarPlace {
    place.map(|key| Scalar::F64(f64_of_key(key)))
}

const DECIMAL: DataType = DataType::BigDecimal {
    precision: 38,
    scale: 2,
};

#[test]
fn an_int_column_is_not_truncated_against_other_types() {
    assert_eq!(
        place_of(Value::Double(2.5), DataType::Int),
        ints(Place::Between(Some(2), Some(3)))
    );
    assert_eq!(
        place_of(Value::Double(-2.5), DataType::Int),
        ints(Place::Between(Some(-3), Some(-2)))
    );
    assert_eq!(
        place_of(Value::Double(4.0), DataType::Int),
        ints(Place::At(4))
    );
    assert_eq!(
        place_of(Value::Double(-0.0), DataType::Int),
        ints(Place::At(0))
    );
    assert_eq!(
        place_of(Value::Long(1 << 40), DataType::Int),
        ints(Place::Between(Some(i32::MAX), None))
    );
    assert_eq!(
        place_of(Value::Long(-(1 << 40)), DataType::Int),
        ints(Place::Between(None, Some(i32::MIN)))
    );
    assert_eq!(
        place_of(Value::Double(f64::NAN), DataType::Int),
        ints(Place::Between(Some(i32::MAX), None))
    );
    assert_eq!(
        place_of(Value::Double(f64::NEG_INFINITY), DataType::Int),
        ints(Place::Between(None, Some(i32::MIN)))
    );
    assert_eq!(
        place_of(
            Value::Decimal {
                unscaled: 199,
                scale: 2
            },
            DataType::Int
        ),
        ints(Place::Between(Some(1), Some(2)))
    );
    assert_eq!(
        place_of(
            Value::Decimal {
                unscaled: 2,
                scale: -1
            },
            DataType::Int
        ),
        ints(Place::At(20))
    );
    assert_eq!(
        place_of(
            Value::Decimal {
                unscaled: -5,
                scale: 100
            },
            DataType::Int
        ),
        ints(Place::Between(Some(-1), Some(0)))
    );
}

#[test]
fn a_long_column_compares_exactly_where_a_double_would_round() {
    let even = 9_007_199_254_740_992i64;
    assert_eq!(
        place_of(Value::Double(even as f64), DataType::Long),
        longs(Place::At(even))
    );
    assert_eq!(
        place_of(Value::Double(1e30), DataType::Long),
        longs(Place::Between(Some(i64::MAX), None))
    );
    assert_eq!(
        place_of(Value::Double(1e300), DataType::Long),
        longs(Place::Between(Some(i64::MAX), None))
    );
}

#[test]
fn a_double_column_against_a_long_that_no_double_is() {
    let odd = 9_007_199_254_740_993i64;
    let (below, above) = (
        f64_key(9_007_199_254_740_992.0),
        f64_key(9_007_199_254_740_994.0),
    );
    assert_eq!(
        place_of(Value::Long(odd), DataType::Double),
        doubles(Place::Between(Some(below), Some(above)))
    );
    assert_eq!(
        place_of(Value::Long(0), DataType::Double),
        doubles(Place::At(f64_key(0.0)))
    );
    let tenth = Value::Decimal {
        unscaled: 1,
        scale: 1,
    };
    assert_eq!(
        place_of(tenth, DataType::Double),
        doubles(Place::Between(Some(f64_key(0.1) - 1), Some(f64_key(0.1))))
    );
    assert_eq!(
        place_of(
            Value::Decimal {
                unscaled: 25,
                scale: 1
            },
            DataType::Double
        ),
        doubles(Place::At(f64_key(2.5)))
    );
}

#[test]
fn a_float_column_against_a_double_that_no_float_is() {
    // The float nearest to 0.1 is a little greater than the double 0.1.
    assert_eq!(
        place_of(Value::Double(0.1), DataType::Float),
        floats(Place::Between(Some(f32_key(0.1) - 1), Some(f32_key(0.1))))
    );
    assert_eq!(
        place_of(Value::Double(0.5), DataType::Float),
        floats(Place::At(f32_key(0.5)))
    );
    let largest = f32_key(f32::MAX);
    assert_eq!(
        place_of(Value::Double(1e300), DataType::Float),
        floats(Place::Between(Some(largest), Some(largest + 1)))
    );
    assert!(matches!(
        place_of(Value::Double(f64::NAN), DataType::Float),
        Place::At(Scalar::F32(nan)) if nan.to_bits() == f32::NAN.to_bits()
    ));
    assert_eq!(
        place_of(Value::Int(16_777_217), DataType::Float),
        floats(Place::Between(
            Some(f32_key(16_777_216.0)),
            Some(f32_key(16_777_218.0))
        ))
    );
}

#[test]
fn decimals_compare_in_the_columns_scale() {
    let k = |place: Place<i128>| place.map(Scalar::I128);
    assert_eq!(
        place_of(
            Value::Decimal {
                unscaled: 5,
                scale: 0
            },
            DECIMAL
        ),
        k(Place::At(500))
    );
    assert_eq!(
        place_of(
            Value::Decimal {
                unscaled: 5001,
                scale: 3
            },
            DECIMAL
        ),
        k(Place::Between(Some(500), Some(501)))
    );
    assert_eq!(place_of(Value::Double(0.25), DECIMAL), k(Place::At(25)));
    assert_eq!(
        place_of(Value::Double(0.1), DECIMAL),
        k(Place::Between(Some(10), Some(11)))
    );
    assert_eq!(
        place_of(Value::Double(-0.1), DECIMAL),
        k(Place::Between(Some(-11), Some(-10)))
    );
    assert_eq!(
        place_of(Value::Double(5e-324), DECIMAL),
        k(Place::Between(Some(0), Some(1)))
    );
    assert_eq!(
        place_of(
            Value::Decimal {
                unscaled: i128::MAX,
                scale: 0
            },
            DECIMAL
        ),
        k(Place::Between(Some(i128::MAX), None))
    );
}

#[test]
fn keys_order_floats_totally_and_come_back() {
    let values = [
        -f64::NAN,
        f64::NEG_INFINITY,
        -1.0,
        0.0,
        5e-324,
        1.0,
        f64::INFINITY,
        f64::NAN,
    ];
    for pair in values.windows(2) {
        assert!(f64_key(pair[0]) < f64_key(pair[1]));
        assert!(f32_key(pair[0] as f32) <= f32_key(pair[1] as f32));
    }
    for value in values {
        assert_eq!(f64_of_key(f64_key(value)).to_bits(), value.to_bits());
        assert_eq!(
            f32_of_key(f32_key(value as f32)).to_bits(),
            (value as f32).to_bits()
        );
    }
    assert_eq!(f64_key(-0.0), f64_key(0.0));
    assert_eq!(f32_key(-0.0), f32_key(0.0));
}

#[test]
fn types_that_have_no_order_between_them_are_refused() {
    assert!(place(&Value::String("1".into()), DataType::Int).is_err());
    assert!(place(&Value::Int(1), DataType::String).is_err());
    assert!(place(&Value::Boolean(true), DataType::Int).is_err());
    assert!(place(&Value::Long(1), DataType::Timestamp).is_err());
}
