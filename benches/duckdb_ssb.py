"""Answers SSB statements from DuckDB, one JSON object a line.

usage: duckdb_ssb.py FOLDER THREADS

FOLDER holds lineorder-*.parquet; they are loaded into a native table first. Then each input line
{"sql": ..., "runs": n} is answered by {"times_ms": [...], "rows": [[text, ...], ...]}.
"""

import json
import sys
import time

import duckdb


def cell(value):
    return "NULL" if value is None else str(value)


def main():
    folder, threads = sys.argv[1], int(sys.argv[2])
    connection = duckdb.connect()
    connection.execute(f"SET threads = {threads}")
    started = time.monotonic()
    connection.execute(
        f"CREATE TABLE lineorder AS SELECT * FROM read_parquet('{folder}/lineorder-*.parquet') ORDER BY lo_orderdate"
    )
    rows = connection.execute("SELECT count(*) FROM lineorder").fetchone()[0]
    ready = {
        "version": duckdb.__version__,
        "rows": rows,
        "load_s": round(time.monotonic() - started, 1),
    }
    print(json.dumps(ready), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = connection.execute(request["sql"]).fetchall()
            times = []
            for _ in range(request["runs"]):
                start = time.perf_counter()
                connection.execute(request["sql"]).fetchall()
                times.append((time.perf_counter() - start) * 1000)
            print(
                json.dumps(
                    {
                        "times_ms": times,
                        "rows": [[cell(value) for value in row] for row in answer],
                    }
                ),
                flush=True,
            )
        except Exception as error:  # the runner decides what an error means
            print(json.dumps({"error": str(error)}), flush=True)


if __name__ == "__main__":
    main()
