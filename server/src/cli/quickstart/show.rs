//! What the quickstart shows of the table it made.

use super::data::TABLE;
use crate::cli::Outcome;
use crate::cli::shell::{Session, millis, number, show};
use crate::cli::table::time_text;
use crate::engine::Engine;
use indicatif::HumanCount;
use std::io::Write as _;
use std::net::SocketAddr;

/// Boundaries at which the same rows are counted again: 2014-01-21, 22 and 23.
const PINS_MS: [i64; 3] = [1_390_262_400_000, 1_390_348_800_000, 1_390_435_200_000];

const QUERIES: [(&str, &str); 5] = [
    ("One table, both halves, every flight once", "SELECT count(*) FROM airlineStats"),
    (
        "Across the boundary: which rows came from the stream",
        "SELECT FlightDate, count(*) AS flights, count(\"$offset\") AS from_stream
FROM airlineStats
WHERE FlightDate BETWEEN '2014-01-23' AND '2014-01-26'
GROUP BY FlightDate ORDER BY FlightDate",
    ),
    (
        "Indexes at work: departures from Chicago O'Hare by carrier",
        "SELECT Carrier, count(*) AS flights, round(avg(ArrDelay), 1) AS avg_delay, max(ArrDelay) AS worst,
       count(*) FILTER (WHERE Cancelled = 1) AS cancelled
FROM airlineStats WHERE Origin = 'ORD'
GROUP BY Carrier ORDER BY flights DESC, Carrier LIMIT 5",
    ),
    (
        "A multi-value column: where diverted flights landed",
        "SELECT DivAirports, count(*) AS landings
FROM airlineStats WHERE DivAirportLandings > 0
GROUP BY DivAirports ORDER BY landings DESC, DivAirports LIMIT 5",
    ),
    (
        "Windows over both halves: each day's most delayed carrier",
        "SELECT FlightDate, Carrier, delay FROM (
  SELECT FlightDate, Carrier, round(avg(DepDelay), 1) AS delay,
         row_number() OVER (PARTITION BY FlightDate ORDER BY avg(DepDelay) DESC, Carrier) AS place
  FROM airlineStats GROUP BY FlightDate, Carrier HAVING count(*) >= 10) AS daily
WHERE place = 1 ORDER BY FlightDate DESC LIMIT 5",
    ),
];

/// A number with its thousands set apart: `9,746`.
pub(super) fn thousands(number: u64) -> String {
    HumanCount(number).to_string()
}

/// The boundary and what stands on its sides.
pub(super) async fn split(engine: &Engine, session: &Session) -> Outcome {
    let boundary = engine.boundary(TABLE).await?;
    let total = number(session, &format!("SELECT count(*) FROM {TABLE}")).await?;
    let realtime = number(session, &format!("SELECT count(*) FROM {TABLE}_REALTIME")).await?;
    let mut out = std::io::stdout();
    writeln!(
        out,
        "\nboundary {}: {} rows = {} offline + {} realtime",
        time_text(boundary.boundary_ms),
        thousands(total),
        thousands(boundary.visible_offline_rows),
        thousands(boundary.visible_realtime_rows)
    )?;
    writeln!(
        out,
        "{TABLE}_REALTIME has {} rows; {} of them are hidden, because offline has their days",
        thousands(realtime),
        thousands(boundary.hidden_realtime_rows)
    )?;
    Ok(())
}

/// Runs the queries over gRPC, as a client would.
pub(super) async fn queries(session: &Session) -> Outcome {
    let mut out = std::io::stdout();
    for (number, (title, sql)) in QUERIES.iter().enumerate() {
        writeln!(out, "\n{}. {title}\n{sql};\n", number + 1)?;
        let shown = show(session, sql, &mut out).await?;
        writeln!(
            out,
            "{} over gRPC; {} segments queried, {} pruned",
            millis(shown.elapsed),
            shown.statistics.segments_queried,
            shown.statistics.segments_pruned
        )?;
    }
    Ok(())
}

/// Counts again with the boundary held elsewhere; lets it go at the end, also after an error.
pub(super) async fn pins(engine: &Engine, session: &Session) -> Outcome {
    writeln!(
        std::io::stdout(),
        "\nThe same rows, wherever the boundary is:"
    )?;
    let pinned = pinned_counts(engine, session).await;
    let released = engine.release_boundary(TABLE).await;
    pinned?;
    released?;
    Ok(())
}

async fn pinned_counts(engine: &Engine, session: &Session) -> Outcome {
    let mut out = std::io::stdout();
    for boundary_ms in PINS_MS {
        let boundary = engine.pin_boundary(TABLE, boundary_ms).await?;
        let total = number(session, &format!("SELECT count(*) FROM {TABLE}")).await?;
        writeln!(
            out,
            "  pinned at {}: {} rows = {} offline + {} realtime",
            time_text(boundary.boundary_ms),
            thousands(total),
            thousands(boundary.visible_offline_rows),
            thousands(boundary.visible_realtime_rows)
        )?;
    }
    Ok(())
}

/// Lines to copy.
pub(super) fn how_to_connect(http: SocketAddr, grpc: SocketAddr) -> Outcome {
    let program = std::env::current_exe().map_or_else(
        |_| "strandline".to_owned(),
        |path| path.display().to_string(),
    );
    let mut out = std::io::stdout();
    writeln!(out, "\nServing on; stop with Ctrl-C. In another terminal:")?;
    writeln!(out, "  {program} sql --server {grpc}")?;
    writeln!(
        out,
        "  curl -s http://{http}/query/sql -d '{{\"sql\": \"SELECT count(*) FROM {TABLE}\"}}'"
    )?;
    writeln!(
        out,
        "  grpcurl -plaintext -d '{{\"sql\": \"SELECT count(*) FROM {TABLE}\", \"format\": \"RESULT_FORMAT_ROWS\"}}' {grpc} strandline.v1.QueryService/Query"
    )?;
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(thousands(number), text);
        }
    }
}
