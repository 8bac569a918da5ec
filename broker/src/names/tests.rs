use super::*;
use crate::statement::{Statement, parse};
use crate::tables::Tables;
use datafusion::arrow::datatypes::{DataType as ArrowType, Field, Schema as ArrowSchema};
use datafusion::common::Column;
use std::sync::Arc;
use strandline_proto::catalog::{CatalogSnapshot, TableSnapshot};
use strandline_proto::coverage::Coverage;
use strandline_proto::schema::{self, DataType, Schema};

fn tables() -> Tables {
    let column = |name: &str| schema::Column::dimension(name, DataType::Int);
    let table = TableSnapshot {
        name: "airlineStats".into(),
        schema: Arc::new(Schema {
            name: "airlineStats".into(),
            version: 1,
            columns: vec![column("Year"), column("DepDelay")],
            primary_key: vec![],
        }),
        lineage: Default::default(),
        time_column: None,
        has_offline: true,
        has_realtime: false,
        segments: vec![],
        tails: vec![],
        coverage: Coverage::default(),
        shared: Default::default(),
        gaps: vec![],
        pinned: false,
        pushed: None,
        text: Default::default(),
    };
    let snapshot = CatalogSnapshot {
        tables: [("airlineStats".to_owned(), Arc::new(table))].into(),
        ..CatalogSnapshot::default()
    };
    let system = vec![(
        "tables".to_owned(),
        Arc::new(ArrowSchema::new(vec![Field::new(
            "name",
            ArrowType::Utf8,
            true,
        )])),
    )];
    Tables {
        snapshot: Arc::new(snapshot),
        system: system.into(),
    }
}

fn resolved(sql: &str) -> Result<String, String> {
    let Statement::Query(mut query) = parse(sql).unwrap().statement else {
        panic!("a query")
    };
    resolve(&mut query, &tables()).map_err(|e| e.message().to_owned())?;
    Ok(query.to_string())
}

#[test]
fn names_match_apart_from_case_everywhere() {
    let sql = resolved(
        "WITH x AS (SELECT year AS y FROM AIRLINESTATS) SELECT X.Y FROM X WHERE y IN (SELECT YEAR FROM airlinestats_offline a WHERE A.depdelay > 1)",
    );
    assert_eq!(
        sql.unwrap(),
        "WITH x AS (SELECT Year AS y FROM airlineStats) SELECT x.y FROM x WHERE y IN (SELECT Year FROM airlineStats_OFFLINE a WHERE a.DepDelay > 1)"
    );
    assert_eq!(
        resolved("SELECT Name FROM SYSTEM.Tables").unwrap(),
        "SELECT name FROM system.tables"
    );
}

#[test]
fn result_columns_are_called_as_written() {
    assert_eq!(
        resolved("SELECT sum(depdelay), count( * ) FROM airlineStats").unwrap(),
        "SELECT sum(DepDelay) AS \"sum(depdelay)\", count(*) AS \"count(*)\" FROM airlineStats"
    );
    let repeated = resolved("SELECT year, Year, *, 1, 1 FROM airlineStats").unwrap();
    let names: Vec<_> = repeated.split('"').skip(1).step_by(2).map(shown).collect();
    assert_eq!(names, ["Year", "Year", "1", "1"]);
}

#[test]
fn timestamp_literals_have_the_unit_of_columns_unless_they_say_more() {
    let typed = |literal: &str| {
        let sql = resolved(&format!("SELECT 1 FROM airlineStats WHERE {literal}")).unwrap();
        sql.split_once("WHERE ").unwrap().1.to_owned()
    };
    assert_eq!(
        typed("TIMESTAMP '9999-12-31 23:59:59.999'"),
        "TIMESTAMP(3) '9999-12-31 23:59:59.999'"
    );
    assert_eq!(
        typed("CAST('2014-01-01' AS TIMESTAMP)"),
        "CAST('2014-01-01' AS TIMESTAMP(3))"
    );
    for kept in [
        "TIMESTAMP '2014-01-01 00:00:00.123456'",
        "TIMESTAMP(9) '2014-01-01'",
        "CAST(Year AS TIMESTAMP)",
        "DATE '2014-01-01'",
    ] {
        assert_eq!(typed(kept), kept);
    }
}

#[test]
fn virtual_columns_are_known_by_name() {
    assert_eq!(
        resolved("SELECT $segment, \"$docid\" FROM airlineStats").unwrap(),
        "SELECT \"$segment\", \"$docId\" FROM airlineStats"
    );
}

#[test]
fn unknown_tables_name_their_place_and_neighbours() {
    assert_eq!(
        resolved("SELECT 1\nFROM airlineStat").unwrap_err(),
        "line 2, column 6: no table airlineStat; did you mean airlineStats?"
    );
    assert!(
        resolved("SELECT 1 FROM system.tabels")
            .unwrap_err()
            .contains("did you mean system.tables?")
    );
    assert!(
        resolved("SELECT 1 FROM airlineStats_REALTIME").is_err(),
        "there is no such half"
    );
}

#[test]
fn a_name_that_another_scope_hides_is_repaired_where_it_stands() {
    let Statement::Query(mut query) =
        parse("SELECT count(*) AS year FROM airlineStats WHERE year = 1")
            .unwrap()
            .statement
    else {
        panic!("a query")
    };
    resolve(&mut query, &tables()).unwrap();
    assert!(query.to_string().ends_with("WHERE year = 1"));
    let missing = Column::new_unqualified("year");
    assert!(repair(
        &mut query,
        &missing,
        &[
            Column::new(Some("airlineStats"), "Year"),
            Column::new(Some("airlineStats"), "DepDelay")
        ]
    ));
    assert!(query.to_string().ends_with("WHERE Year = 1"));
    assert!(!repair(
        &mut query,
        &Column::new_unqualified("nothing"),
        &[Column::new_unqualified("Year")]
    ));
}
