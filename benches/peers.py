"""Answers statements over the table lineorder from another engine, one JSON object a line.

usage: peers.py duckdb|clickhouse|datafusion FOLDER DATA THREADS

FOLDER holds lineorder-*.parquet, whose rows are in the order of lo_orderdate. DuckDB loads them into a database file
under the empty folder DATA, ClickHouse (chdb) into a data folder there, both kept in that order and ClickHouse's texts of few
values as LowCardinality; DataFusion reads the files. The first line of output says what that took: {"version": ..., "rows": n, "load_s": s, "bytes": n}, without the
last two where nothing is loaded.

Each input line {"sql": ...} is answered by {"rows": [[text, ...], ...]}, and {"sql": ..., "runs": n} by
{"times_ms": [...]}, n of them after a run that is not timed.
"""

import glob
import json
import os
import sys
import time

TABLE = "lineorder"


class DuckDb:
    def __init__(self, folder, data, threads):
        import duckdb

        self.version = duckdb.__version__
        path = os.path.join(data, "bench.duckdb")
        self.connection = duckdb.connect(path)
        self.connection.execute(f"SET threads = {threads}")
        self.connection.execute("SET enable_progress_bar = false")
        started = time.monotonic()
        self.connection.execute(
            f"CREATE TABLE {TABLE} AS SELECT * FROM read_parquet('{folder}/{TABLE}-*.parquet')"
        )
        self.connection.execute("CHECKPOINT")
        self.load_s = time.monotonic() - started
        self.bytes = os.path.getsize(path)

    def ask(self, sql):
        return self.connection.execute(sql).fetchall()


class ClickHouse:
    def __init__(self, folder, data, threads):
        import chdb
        from chdb import session

        self.version = chdb.engine_version if hasattr(chdb, "engine_version") else chdb.__version__
        self.session = session.Session(os.path.join(data, "clickhouse"))
        self.session.query(f"SET max_threads = {threads}")
        # Sums of no rows are NULL, as in SQL.
        self.session.query("SET aggregate_functions_null_for_empty = 1")
        source = f"file('{folder}/{TABLE}-*.parquet', Parquet)"
        self.session.query("CREATE DATABASE IF NOT EXISTS bench ENGINE = Atomic")
        self.session.query("USE bench")
        described = self.ask(f"DESCRIBE TABLE {source} SETTINGS schema_inference_make_columns_nullable = 0")
        columns = ", ".join(f"{name} {self.column_type(name, kind)}" for name, kind, *_ in described)
        started = time.monotonic()
        self.session.query(f"CREATE TABLE {TABLE} ({columns}) ENGINE = MergeTree ORDER BY lo_orderdate")
        self.session.query(f"INSERT INTO {TABLE} SELECT * FROM {source}")
        self.load_s = time.monotonic() - started
        # Parts are merged in the background otherwise, beside the statements that are timed.
        self.session.query(f"OPTIMIZE TABLE {TABLE} FINAL")
        parts = f"system.parts WHERE active AND database = 'bench' AND table = '{TABLE}'"
        self.bytes = int(self.ask(f"SELECT sum(bytes_on_disk) FROM {parts}")[0][0])

    @staticmethod
    def column_type(name, kind):
        """Texts of few values get a dictionary, as ClickHouse's own account of this benchmark has it."""
        return f"LowCardinality({kind})" if kind == "String" and name != "c_name" else kind

    def ask(self, sql):
        answer = self.session.query(sql, "JSONCompactEachRow")
        return [json.loads(line) for line in str(answer).splitlines()]


class DataFusion:
    load_s = None
    bytes = None

    def __init__(self, folder, data, threads):
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


def times_ms(engine, sql, runs):
    engine.ask(sql)
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        engine.ask(sql)
        times.append((time.perf_counter() - start) * 1000)
    return times


def own_output():
    """Standard output for answers alone: whatever engines print goes to standard error."""
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return output


def main():
    output = own_output()
    kind, folder, data, threads = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    if not glob.glob(f"{folder}/{TABLE}-*.parquet"):
        raise SystemExit(f"{folder} has no {TABLE}-*.parquet")
    engine = ENGINES[kind](folder, data, threads)
    rows = int(cell(engine.ask(f"SELECT count(*) FROM {TABLE}")[0][0]))
    ready = {"version": str(engine.version), "rows": rows}
    if engine.bytes is not None:
        ready.update({"load_s": engine.load_s, "bytes": engine.bytes})
    print(json.dumps(ready), file=output, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if "runs" in request:
                answer = {"times_ms": times_ms(engine, request["sql"], request["runs"])}
            else:
                rows = engine.ask(request["sql"])
                answer = {"rows": [[cell(value) for value in row] for row in rows]}
        except Exception as error:  # the benchmark decides what an error means
            answer = {"error": str(error)}
        print(json.dumps(answer), file=output, flush=True)


if __name__ == "__main__":
    main()
