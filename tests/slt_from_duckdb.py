"""Writes the expected answers of tests/slt/*.slt from DuckDB over the quickstart's rows.

usage: slt_from_duckdb.py [FILE.slt ...]     (all of them otherwise)

A record is `query ordered` or `query unordered`, the statement, a line of dashes, and the rows with tabs between
cells, up to an empty line. A statement that DuckDB spells otherwise stands before the record after `# duckdb: `.
DuckDB has three tables: airlineStats as the hybrid table must show it, and its two whole halves.
"""

import datetime
import decimal
import json
import pathlib
import sys

import duckdb

TESTS = pathlib.Path(__file__).resolve().parent
DATA = TESTS.parent / "server" / "quickstart"
# Days before this one are answered by the offline half: 2014-01-25.
BOUNDARY = 16095


def load(connection):
    schema = json.loads((DATA / "schema.json").read_text())
    offline = f"SELECT * FROM read_parquet('{DATA}/*.parquet')"
    connection.execute(f"CREATE TABLE airlineStats_OFFLINE AS {offline}")
    described = connection.execute("DESCRIBE airlineStats_OFFLINE").fetchall()
    columns = "{" + ", ".join(f"'{row[0]}': '{row[1]}'" for row in described) + "}"
    stream = f"SELECT * FROM read_json('{DATA}/*.jsonl.zst', format = 'newline_delimited', columns = {columns})"
    connection.execute(f"CREATE TABLE airlineStats_REALTIME AS {stream}")
    for half in ("OFFLINE", "REALTIME"):
        for column in ("ts", "tsRaw"):
            connection.execute(f"ALTER TABLE airlineStats_{half} ADD COLUMN {column} TIMESTAMP")
            connection.execute(
                f"UPDATE airlineStats_{half} SET {column} = TIMESTAMP '1970-01-01' + to_days(DaysSinceEpoch)"
            )
    names = [c["name"] for part in schema.values() if isinstance(part, list) for c in part if isinstance(c, dict)]
    listed = ", ".join(f'"{name}"' for name in names)
    connection.execute(
        f"""CREATE TABLE airlineStats AS
            SELECT {listed} FROM airlineStats_OFFLINE WHERE DaysSinceEpoch < {BOUNDARY}
            UNION ALL SELECT {listed} FROM airlineStats_REALTIME WHERE DaysSinceEpoch >= {BOUNDARY}"""
    )


def text(value):
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime.datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S.") + f"{value.microsecond // 1000:03d}"
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return format(value.normalize(), "f")
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(text(v) for v in value) + "]"
    if value == "":
        return "(empty)"
    return str(value)


def rewrite(path, connection):
    out, lines, spelled = [], path.read_text().splitlines(), None
    at = 0
    while at < len(lines):
        line = lines[at]
        out.append(line)
        at += 1
        if line.startswith("# duckdb: "):
            spelled = line.removeprefix("# duckdb: ")
        if not line.startswith("query "):
            continue
        statement = []
        while lines[at] != "----":
            statement.append(lines[at])
            at += 1
        at += 1
        while at < len(lines) and lines[at]:
            at += 1
        rows = ["\t".join(text(v) for v in row) for row in connection.execute(spelled or "\n".join(statement)).fetchall()]
        if line == "query unordered":
            rows.sort()
        out += statement + ["----"] + rows
        spelled = None
    path.write_text("\n".join(out) + "\n")


def main():
    connection = duckdb.connect()
    load(connection)
    files = [pathlib.Path(f) for f in sys.argv[1:]] or sorted((TESTS / "slt").glob("*.slt"))
    for path in files:
        rewrite(path, connection)
        print(path)


if __name__ == "__main__":
    main()
