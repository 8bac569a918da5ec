//! Star-trees: `tableIndexConfig.starTreeIndexConfigs`.

use super::ConfigWarning;
use super::document::{Node, Object};
use super::fields::known_column;
use crate::segment::spec::{StarMeasure, StarTreeSpec};
use crate::segment::{STAR_TREE_COLUMNS_MAX, STAR_TREES_MAX};
use strandline_proto::Result;
use strandline_proto::schema::{Column, DataType, Schema};

/// Records of a leaf unless the config says otherwise: Pinot's default.
const LEAF_RECORDS_MAX: u32 = 10_000;

/// Reads the trees of `tableIndexConfig`. What can't be built is warned of: answers are the same without it.
pub(super) fn read(
    indexing: &mut Object<'_>,
    schema: &Schema,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Vec<StarTreeSpec>> {
    let mut trees = Vec::new();
    if let Some(node) = indexing.take("starTreeIndexConfigs")
        && !node.is_blank()
    {
        for tree in node.list()? {
            if let Some(spec) = read_tree(&tree, schema, warnings)? {
                trees.push(spec);
            }
        }
        if trees.len() > STAR_TREES_MAX {
            return Err(node.wrong(format_args!(
                "a table has at most {STAR_TREES_MAX} star-trees"
            )));
        }
    }
    for key in ["enableDefaultStarTree", "enableDynamicStarTreeCreation"] {
        if let Some(node) = indexing.take(key)
            && node.boolean()?
        {
            warnings.push(node.warning(
                "star-trees are built as starTreeIndexConfigs says, for segments that are made from now on",
            ));
        }
    }
    Ok(trees)
}

fn read_tree(
    tree: &Node<'_>,
    schema: &Schema,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Option<StarTreeSpec>> {
    let mut config = tree.object()?;
    let mut dimensions: Vec<String> = Vec::new();
    let mut is_possible = true;
    let order = config.require("dimensionsSplitOrder")?;
    for (node, name) in order.texts()? {
        known_column(&node, schema)?;
        if dimensions.iter().any(|known| known == name) {
            return Err(node.wrong(format_args!("the dimension {name} is there twice")));
        }
        if schema.column(name).is_some_and(|c| c.multi_value) {
            warnings.push(node.warning(
                "a star-tree with a multi-value dimension is not built; queries give the same answers without it",
            ));
            is_possible = false;
        }
        dimensions.push(name.to_owned());
    }
    if dimensions.is_empty() || dimensions.len() > STAR_TREE_COLUMNS_MAX {
        return Err(order.wrong(format_args!(
            "a star-tree has 1 to {STAR_TREE_COLUMNS_MAX} dimensions"
        )));
    }
    let mut skip_star = Vec::new();
    if let Some(node) = config.take("skipStarNodeCreationForDimensions")
        && !node.is_blank()
    {
        for (node, name) in node.texts()? {
            if !dimensions.iter().any(|dimension| dimension == name) {
                return Err(node.wrong(format_args!("{name} is no dimension of the tree")));
            }
            skip_star.push(name.to_owned());
        }
    }
    let mut measures = Measures {
        schema,
        measures: Vec::new(),
        asked: false,
        built: false,
    };
    if let Some(node) = config.take("functionColumnPairs")
        && !node.is_blank()
    {
        for (node, pair) in node.texts()? {
            let Some((function, column)) = pair.split_once("__") else {
                return Err(node.wrong(format_args!(
                    "'{}' is no pair of a function and a column, as in SUM__price",
                    pair.escape_debug()
                )));
            };
            measures.add(&node, function, column, warnings)?;
        }
    }
    if let Some(node) = config.take("aggregationConfigs")
        && !node.is_blank()
    {
        for node in node.list()? {
            let mut aggregation = node.object()?;
            let function = aggregation.require("aggregationFunction")?;
            let column = match aggregation.take("columnName") {
                Some(column) => column.text()?,
                None => "*",
            };
            measures.add(&function, function.text()?, column, warnings)?;
            aggregation.warn(
                "compressionCodec",
                "the codec is chosen by the database",
                warnings,
            );
            aggregation.finish(warnings);
        }
    }
    let leaf_records_max = match config.take("maxLeafRecords") {
        None => LEAF_RECORDS_MAX,
        Some(node) => match node.scalar_text()?.parse::<u32>() {
            // Pinot takes 0 for its default, too.
            Ok(0) => LEAF_RECORDS_MAX,
            Ok(records) => records,
            Err(_) => {
                return Err(node.wrong("a number of records, 1 or more, is expected"));
            }
        },
    };
    config.finish(warnings);
    if measures.measures.len() > STAR_TREE_COLUMNS_MAX {
        return Err(tree.wrong(format_args!(
            "a star-tree has at most {STAR_TREE_COLUMNS_MAX} measures"
        )));
    }
    // A tree that was asked for nothing counts rows.
    let is_useful = measures.built || !measures.asked;
    if !is_useful {
        warnings.push(tree.warning("none of its functions is built, so the tree is not"));
    }
    Ok((is_possible && is_useful).then_some(StarTreeSpec {
        dimensions,
        skip_star,
        measures: measures.measures,
        leaf_records_max,
    }))
}

/// The measures of a tree as they are read.
struct Measures<'a> {
    schema: &'a Schema,
    measures: Vec<StarMeasure>,
    /// Whether any function was asked for, and whether any of these is built.
    asked: bool,
    built: bool,
}

impl Measures<'_> {
    fn add(
        &mut self,
        node: &Node<'_>,
        function: &str,
        name: &str,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<()> {
        self.asked = true;
        // As Pinot does, whatever the case and with or without underscores.
        let function: String = function
            .chars()
            .filter(|c| *c != '_')
            .map(|c| c.to_ascii_uppercase())
            .collect();
        if function == "COUNT" && name == "*" {
            self.built = true;
            return Ok(());
        }
        let Some(column) = self.schema.column(name) else {
            return Err(node.wrong(format_args!(
                "no column '{}' in the schema {}",
                name.escape_debug(),
                self.schema.name
            )));
        };
        let of = |measure: fn(String) -> StarMeasure| measure(name.to_owned());
        let (values, sum) = (of(StarMeasure::Values), of(StarMeasure::Sum));
        let measures = match function.as_str() {
            "COUNT" if !column.multi_value => vec![values],
            "COUNTMV" if column.multi_value => vec![values],
            "SUM" | "AVG" if is_number(column) => vec![values, sum],
            "SUMMV" | "AVGMV" if is_numbers(column) => vec![values, sum],
            "MIN" if is_ordered(column) => vec![of(StarMeasure::Min)],
            "MAX" if is_ordered(column) => vec![of(StarMeasure::Max)],
            "MINMV" if is_numbers(column) => vec![of(StarMeasure::Min)],
            "MAXMV" if is_numbers(column) => vec![of(StarMeasure::Max)],
            // The exact values, whatever sketch is asked for: what is counted of them may be approximate.
            "DISTINCTCOUNT"
            | "DISTINCTCOUNTBITMAP"
            | "DISTINCTCOUNTRAWBITMAP"
            | "SEGMENTPARTITIONEDDISTINCTCOUNT"
            | "DISTINCTCOUNTHLL"
            | "DISTINCTCOUNTRAWHLL"
            | "DISTINCTCOUNTHLLPLUS"
            | "DISTINCTCOUNTRAWHLLPLUS"
            | "DISTINCTCOUNTULL"
            | "DISTINCTCOUNTCPCSKETCH"
            | "DISTINCTCOUNTTHETASKETCH"
            | "DISTINCTCOUNTSMARTHLL"
                if !column.multi_value =>
            {
                vec![of(StarMeasure::Distinct)]
            }
            "MINMAXRANGE" if is_ordered(column) => {
                vec![of(StarMeasure::Min), of(StarMeasure::Max)]
            }
            _ => {
                warnings.push(node.warning(format!(
                    "star-trees don't hold {function} of {name} ({}{}); queries give the same answers without it",
                    if column.multi_value { "multi-value " } else { "" },
                    column.data_type.pinot_name(),
                )));
                return Ok(());
            }
        };
        self.built = true;
        for measure in measures {
            if !self.measures.contains(&measure) {
                self.measures.push(measure);
            }
        }
        Ok(())
    }
}

fn is_number(column: &Column) -> bool {
    has_numbers(column) && !column.multi_value
}

fn is_numbers(column: &Column) -> bool {
    has_numbers(column) && column.multi_value
}

fn has_numbers(column: &Column) -> bool {
    matches!(
        column.data_type,
        DataType::Int | DataType::Long | DataType::Float | DataType::Double
    )
}

fn is_ordered(column: &Column) -> bool {
    is_number(column) || column.data_type == DataType::Timestamp && !column.multi_value
}
