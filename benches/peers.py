"""Answers statements over the table lineorder from another engine, one JSON object a line.

usage: peers.py duckdb|clickhouse|datafusion FOLDER THREADS

FOLDER holds lineorder-*.parquet. DuckDB and ClickHouse (chdb) load them into a native table sorted by order date first;
DataFusion reads the files. Then each input line {"sql": ..., "runs": n} is answered by
{"times_ms": [...], "rows": [[text, ...], ...]}, the first run of a statement not being timed.
"""

import glob
import json
import sys
import time

TABLE = "lineorder"


class DuckDb:
    def __init__(self, folder, threads):
        import duckdb

        self.version = duckdb.__version__
        self.connection = duckdb.connect()
        self.connection.execute(f"SET threads = {threads}")
        self.connection.execute(
            f"CREATE TABLE {TABLE} AS SELECT * FROM read_parquet('{folder}/{TABLE}-*.parquet') ORDER BY lo_orderdate"
        )

    def ask(self, sql):
        return self.connection.execute(sql).fetchall()


class ClickHouse:
    def __init__(self, folder, threads):
        import chdb
        from chdb import session

        self.version = chdb.engine_version if hasattr(chdb, "engine_version") else chdb.__version__
        self.session = session.Session()
        self.session.query(f"SET max_threads = {threads}")
        # Sums of no rows are NULL, as in SQL.
        self.session.query("SET aggregate_functions_null_for_empty = 1")
        source = f"file('{folder}/{TABLE}-*.parquet', Parquet)"
        self.session.query("CREATE DATABASE IF NOT EXISTS bench ENGINE = Atomic")
        self.session.query("USE bench")
        self.session.query(
            f"CREATE TABLE {TABLE} ENGINE = MergeTree ORDER BY lo_orderdate SETTINGS allow_nullable_key = 1 AS SELECT * FROM {source}"
        )

    def ask(self, sql):
        answer = self.session.query(sql, "JSONCompactEachRow")
        return [json.loads(line) for line in str(answer).splitlines()]


class DataFusion:
    def __init__(self, folder, threads):
        import datafusion

        self.version = datafusion.__version__
        config = datafusion.SessionConfig().with_target_partitions(threads)
        self.context = datafusion.SessionContext(config)
        self.context.register_parquet(TABLE, folder)

    def ask(self, sql):
        batches = self.context.sql(sql).collect()
        return [list(row.values()) for batch in batches for row in batch.to_pylist()]


ENGINES = {"duckdb": DuckDb, "clickhouse": ClickHouse, "datafusion": DataFusion}


def cell(value):
    return "NULL" if value is None else str(value)


def main():
    kind, folder, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if not glob.glob(f"{folder}/{TABLE}-*.parquet"):
        raise SystemExit(f"{folder} has no {TABLE}-*.parquet")
    started = time.monotonic()
    engine = ENGINES[kind](folder, threads)
    load_s = time.monotonic() - started
    rows = int(cell(engine.ask(f"SELECT count(*) FROM {TABLE}")[0][0]))
    ready = {"version": str(engine.version), "rows": rows, "load_s": round(load_s, 1)}
    print(json.dumps(ready), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            rows = engine.ask(request["sql"])
            times = []
            for _ in range(request["runs"]):
                start = time.perf_counter()
                engine.ask(request["sql"])
                times.append((time.perf_counter() - start) * 1000)
            answer = {"times_ms": times, "rows": [[cell(value) for value in row] for row in rows]}
        except Exception as error:  # the benchmark decides what an error means
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
