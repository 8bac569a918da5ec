//! The functions that SQL can call: DataFusion's, and ours, registered in this one place.
//!
//! A leaf resolves [`LeafExpr::Call`](strandline_proto::leaf::LeafExpr::Call) by the same names.

mod json;
mod pinot;
pub(crate) mod text_match;

use crate::multi_value;
use datafusion::arrow::datatypes::DataType;
use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::ScalarUDF;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

/// The function whose calls on a column become predicates that indexes answer.
pub const JSON_MATCH: &str = "json_match";

static SCALAR: LazyLock<HashMap<String, Arc<ScalarUDF>>> = LazyLock::new(|| {
    let mut by_name = HashMap::new();
    for udf in in_order() {
        for alias in udf.aliases() {
            by_name.insert(alias.clone(), Arc::clone(&udf));
        }
        by_name.insert(udf.name().to_owned(), udf);
    }
    by_name
});

/// The scalar function that a leaf query or a statement knows by this name.
pub fn scalar(name: &str) -> Option<Arc<ScalarUDF>> {
    SCALAR.get(name).cloned()
}

/// All scalar functions in the order in which they are registered: a later one takes an earlier one's name.
pub fn in_order() -> Vec<Arc<ScalarUDF>> {
    SessionStateDefaults::default_scalar_functions()
        .into_iter()
        .chain(ours())
        .collect()
}

fn ours() -> impl Iterator<Item = Arc<ScalarUDF>> {
    multi_value::functions()
        .iter()
        .cloned()
        .chain(pinot::functions())
        .chain(json::functions())
        .chain([text_match::function()])
}

/// Whether a type can be given as text.
fn is_text(data_type: &DataType) -> bool {
    data_type.is_string() || data_type.is_null()
}
