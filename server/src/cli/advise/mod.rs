//! `strandline advise`: indexes and a star-tree for a table, from the server's log of what it was asked.

mod suggest;
#[cfg(test)]
mod tests;

use super::client::{Connection, ServerArgs, refused};
use super::shell::{Session, number};
use super::{Failure, Outcome};
use crate::cli::grid::Format;
use crate::engine::quoted;
use crate::leaf::query_log::Shape;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Arc;
use strandline_proto::Error;
use strandline_proto::schema::Schema;
use strandline_proto::v1::query_response::Part;
use strandline_proto::v1::value::Kind;
use strandline_proto::v1::{GetTableRequest, QueryRequest, ResultFormat, Value};
use strandline_storage::config::{parse_schema, parse_table};
use strandline_storage::segment::spec::SegmentSpec;
use suggest::{Asked, Facts, TreeAdvice, indexes, is_own, share, star_tree};

/// Shapes whose gain by a star-tree is counted.
const GAINS_SHOWN: usize = 8;
/// Records a tree holds for each combination of its dimensions' values, star nodes' included, as builds have come to.
const RECORDS_A_COMBINATION: f64 = 1.3;

/// Arguments of `strandline advise`.
#[derive(Debug, clap::Args)]
pub struct AdviseArgs {
    /// The table.
    table: String,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs the command.
pub(crate) async fn run(arguments: AdviseArgs) -> Outcome {
    let connection = Connection::open(&arguments.server.server).await?;
    let session = Session::new(connection.clone(), Format::Csv);
    let table = &arguments.table;
    let (schema, spec) = stored(&connection, table).await?;
    let asked = asked(&connection, table).await?;
    let mut out = std::io::stdout();
    if asked.is_empty() {
        writeln!(
            out,
            "nothing was asked of {table} since the server started: let it serve its queries for a while first"
        )?;
        return Ok(());
    }
    let queries: u64 = asked.iter().map(|a| a.queries).sum();
    let total_us: u64 = asked.iter().map(|a| a.total_us).sum();
    writeln!(
        out,
        "{queries} queries of {} shapes since the server started, {:.1} s in the segments of {table}\n",
        asked.len(),
        total_us as f64 / 1e6
    )?;
    let Some(sample) = largest_segment(&connection, table).await? else {
        writeln!(
            out,
            "{table} has no immutable segment yet, so columns' values are not known"
        )?;
        return Ok(());
    };
    let facts = Facts {
        schema: &schema,
        spec: &spec,
        rows: sample.rows,
        distinct: distinct(&connection, table, &sample.name).await?,
    };
    let found = indexes(&asked, &facts);
    for advice in &found {
        writeln!(
            out,
            "{}: {}   {:.0} % of the time; {}",
            advice.key,
            advice.column,
            advice.share * 100.0,
            advice.why
        )?;
    }
    let tree = star_tree(&asked, &facts);
    if let Some(tree) = &tree {
        if !found.is_empty() {
            writeln!(out)?;
        }
        show_tree(&session, table, tree, &asked, &facts, &sample, &mut out).await?;
    }
    if found.is_empty() && tree.is_none() {
        writeln!(
            out,
            "the table's indexes fit what it is asked: nothing to suggest"
        )?;
    }
    Ok(())
}

/// A segment that stands for the others.
struct Sample {
    name: String,
    rows: u64,
    bytes: u64,
    /// How many segments the table has.
    segments: u64,
}

async fn show_tree(
    session: &Session,
    table: &str,
    tree: &TreeAdvice,
    asked: &[Asked],
    facts: &Facts<'_>,
    sample: &Sample,
    out: &mut impl Write,
) -> Outcome {
    let time: u64 = tree.answers.iter().map(|&i| asked[i].total_us).sum();
    let dimensions: BTreeSet<&String> = tree.dimensions.iter().collect();
    let combinations = combinations(session, table, sample, &dimensions).await?;
    let records = combinations as f64 * RECORDS_A_COMBINATION;
    let bits: u32 = tree
        .dimensions
        .iter()
        .map(|dimension| {
            let distinct = facts.distinct.get(dimension).copied().unwrap_or(0);
            u64::BITS - distinct.leading_zeros()
        })
        .sum();
    let record_bytes = f64::from(bits) / 8.0 + 8.0 * tree.pairs.len() as f64;
    let bytes = records * record_bytes;
    writeln!(
        out,
        "starTreeIndexConfigs: for {} of {} shapes, {:.0} % of the time\n  about {records:.0} records for the {} rows of a segment, {:.1} MiB (+{:.0} %)",
        tree.answers.len(),
        asked.len(),
        share(time, asked) * 100.0,
        sample.rows,
        bytes / f64::from(1 << 20),
        bytes / sample.bytes.max(1) as f64 * 100.0
    )?;
    if records > sample.rows as f64 / 2.0 {
        writeln!(
            out,
            "  its dimensions leave few rows to aggregate: it gains where queries leave some of them out"
        )?;
    }
    writeln!(
        out,
        "\n  {:>8} {:>10} {:>14} {:>14}  shape",
        "queries", "ms each", "rows read", "records"
    )?;
    for &i in tree.answers.iter().take(GAINS_SHOWN) {
        let Asked {
            shape,
            queries,
            total_us,
            docs,
        } = &asked[i];
        let mut columns = shape.filtered();
        columns.extend(&shape.group);
        let most = self::combinations(session, table, sample, &columns).await? * sample.segments;
        writeln!(
            out,
            "  {queries:>8} {:>10.2} {:>14} {:>14}  {}",
            *total_us as f64 / 1e3 / (*queries).max(1) as f64,
            docs / (*queries).max(1),
            format!("<= {most}"),
            shape.words()
        )?;
    }
    let config = serde_json::json!([{
        "dimensionsSplitOrder": tree.dimensions,
        "functionColumnPairs": tree.pairs,
        "maxLeafRecords": 100,
    }]);
    writeln!(out, "\n  \"starTreeIndexConfigs\": {config}")?;
    Ok(())
}

/// How many combinations of the columns' values the sample holds.
async fn combinations(
    session: &Session,
    table: &str,
    sample: &Sample,
    columns: &BTreeSet<&String>,
) -> Result<u64, Failure> {
    if columns.is_empty() {
        return Ok(1);
    }
    let columns: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
    let sql = format!(
        "SELECT count(*) FROM (SELECT DISTINCT {} FROM {} WHERE \"$segment\" = '{}') AS combinations",
        columns.join(", "),
        quoted(table),
        sample.name.replace('\'', "''")
    );
    number(session, &sql).await
}

/// The table's schema, and how its columns are stored: as its offline half says, or else its realtime half.
async fn stored(
    connection: &Connection,
    table: &str,
) -> Result<(Arc<Schema>, Arc<SegmentSpec>), Failure> {
    let request = GetTableRequest {
        table: table.to_owned(),
    };
    let answer = connection.admin().get_table(request).await;
    let table = answer.map_err(|status| refused(&status))?.into_inner();
    let (schema, _) = parse_schema(&table.schema_json, 1)?;
    let schema = Arc::new(schema);
    let configs = [table.offline_config_json, table.realtime_config_json];
    let Some(json) = configs.iter().find(|json| !json.is_empty()) else {
        return Err(Error::internal("a table without a config").into());
    };
    let (config, _) = parse_table(json, &schema)?;
    Ok((schema, config.spec))
}

async fn asked(connection: &Connection, table: &str) -> Result<Vec<Asked>, Failure> {
    let sql = format!(
        "SELECT shape, queries, total_us, docs_scanned + docs_matched FROM system.queries WHERE table_name = '{}' ORDER BY total_us DESC",
        table.replace('\'', "''")
    );
    let mut asked = Vec::new();
    for row in rows(connection, &sql).await? {
        let [
            Some(Kind::String(shape)),
            Some(Kind::Long(queries)),
            Some(Kind::Long(total)),
            Some(Kind::Long(docs)),
        ] = &row[..]
        else {
            return Err(Error::internal("system.queries has other columns").into());
        };
        let shape: Shape = serde_json::from_str(shape)
            .map_err(|e| Error::internal(format!("a shape of system.queries: {e}")))?;
        if !is_own(&shape) {
            asked.push(Asked {
                shape,
                queries: queries.unsigned_abs(),
                total_us: total.unsigned_abs(),
                docs: docs.unsigned_abs(),
            });
        }
    }
    Ok(asked)
}

async fn largest_segment(connection: &Connection, table: &str) -> Result<Option<Sample>, Failure> {
    let sql = format!(
        "SELECT segment_name, \"rows\", \"bytes\" FROM system.segments WHERE table_name IN ('{table}_OFFLINE', '{table}_REALTIME') AND NOT consuming ORDER BY \"rows\" DESC",
        table = table.replace('\'', "''")
    );
    let rows = rows(connection, &sql).await?;
    let segments = rows.len() as u64;
    Ok(rows.into_iter().next().and_then(|row| match &row[..] {
        [
            Some(Kind::String(name)),
            Some(Kind::Long(rows)),
            Some(Kind::Long(bytes)),
        ] => Some(Sample {
            name: name.clone(),
            rows: rows.unsigned_abs(),
            bytes: bytes.unsigned_abs(),
            segments,
        }),
        _ => None,
    }))
}

async fn distinct(
    connection: &Connection,
    table: &str,
    segment: &str,
) -> Result<BTreeMap<String, u64>, Failure> {
    let sql = format!(
        "SELECT column_name, distinct_values FROM system.columns WHERE table_name = '{}' AND segment_name = '{}' AND distinct_values IS NOT NULL",
        table.replace('\'', "''"),
        segment.replace('\'', "''")
    );
    let rows = rows(connection, &sql).await?.into_iter();
    Ok(rows
        .filter_map(|row| match &row[..] {
            [Some(Kind::String(column)), Some(Kind::Long(values))] => {
                Some((column.clone(), values.unsigned_abs()))
            }
            _ => None,
        })
        .collect())
}

/// The rows of a statement.
async fn rows(connection: &Connection, sql: &str) -> Result<Vec<Vec<Option<Kind>>>, Failure> {
    let request = QueryRequest {
        sql: sql.to_owned(),
        format: ResultFormat::Rows.into(),
        ..QueryRequest::default()
    };
    let answer = connection.queries().query(request).await;
    let mut parts = answer.map_err(|status| refused(&status))?.into_inner();
    let mut rows = Vec::new();
    let mut whole = false;
    while let Some(response) = parts.message().await.map_err(|status| refused(&status))? {
        match response.part {
            Some(Part::Rows(page)) => {
                let cells = |values: Vec<Value>| values.into_iter().map(|v| v.kind).collect();
                rows.extend(page.rows.into_iter().map(|row| cells(row.values)));
            }
            Some(Part::Statistics(_)) => whole = true,
            _ => {}
        }
    }
    match whole {
        true => Ok(rows),
        false => {
            Err(Error::unavailable("the answer is not complete: run the command again").into())
        }
    }
}
