"""Holds Strandline's answers to drawn queries against DuckDB's, over gRPC.

    cargo build --workspace --bin strandline
    python3 tests/duckdb_oracle.py EXPORT --draw 1000 --program target/debug/strandline

draws 1,000 queries that DuckDB can be asked into the folder EXPORT, starts a server over a folder of its own, makes the
tables there and asks both. EXPORT holds, per round, t.parquet and u.parquet (the rows that queries must see), schemas,
table configs, files to load, messages to append, and queries.jsonl. Instead of --program a server that runs may be
named as host:port of its gRPC. Without either, the recorded answers of plain DataFusion are held against DuckDB's, which
shows that the two renderings of each query mean the same. Needs duckdb, grpcio and grpcio-tools.
"""

import argparse
import datetime
import decimal
import importlib
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import duckdb

RELATIVE = 1e-9


def services(folder):
    """Compiles the .proto files and imports what comes of them."""
    from grpc_tools import protoc
    import grpc_tools

    protos = pathlib.Path(__file__).resolve().parent.parent / "proto" / "proto"
    names = ["query", "ingest", "admin"]
    arguments = ["protoc", f"-I{protos}", f"-I{pathlib.Path(grpc_tools.__file__).parent / '_proto'}"]
    arguments += [f"--python_out={folder}", f"--grpc_python_out={folder}"]
    arguments += [str(protos / "strandline" / "v1" / f"{name}.proto") for name in names]
    if protoc.main(arguments) != 0:
        raise SystemExit("the .proto files do not compile")
    sys.path.insert(0, str(folder))
    return [
        (importlib.import_module(f"strandline.v1.{n}_pb2"), importlib.import_module(f"strandline.v1.{n}_pb2_grpc"))
        for n in names
    ]


EPOCH = datetime.datetime(1970, 1, 1)


def cell(value):
    """A value of either side as something that compares: numbers by value, times as milliseconds."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, decimal.Decimal)):
        return decimal.Decimal(value)
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if isinstance(value, datetime.datetime):
        return decimal.Decimal((value - EPOCH) // datetime.timedelta(milliseconds=1))
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, (list, tuple)):
        return tuple(cell(v) for v in value)
    return value


def of_value(value):
    """A proto Value as a Python value."""
    kind = value.WhichOneof("kind")
    if kind is None or kind == "null":
        return None
    if kind == "list":
        return tuple(of_value(v) for v in value.list.values)
    if kind == "big_decimal":
        return decimal.Decimal(value.big_decimal)
    return cell(getattr(value, kind))


def of_recorded(value):
    """A recorded cell as a Python value."""
    if isinstance(value, list):
        return tuple(of_recorded(v) for v in value)
    if not isinstance(value, dict):
        return value
    (kind, content), = value.items()
    if kind == "float":
        return float(content)
    return bytes(content) if kind == "bytes" else decimal.Decimal(content)


class Recorded:
    """Answers as plain DataFusion gave them."""

    class Error(Exception):
        pass

    def ask(self, query):
        if query["rows"] is None:
            raise self.Error("refused by plain DataFusion")
        return [tuple(of_recorded(v) for v in row) for row in query["rows"]]


def same(a, b):
    if a is None or b is None:
        return a is None and b is None
    numbers = (decimal.Decimal, float)
    if isinstance(a, numbers) and isinstance(b, numbers):
        if isinstance(a, float) or isinstance(b, float):
            a, b = float(a), float(b)
            if math.isnan(a) or math.isnan(b):
                return math.isnan(a) and math.isnan(b)
            if math.isinf(a) or math.isinf(b):
                return a == b
            return a == b or abs(a - b) <= max(1e-9, RELATIVE * max(abs(a), abs(b)))
        return a == b
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    return type(a) is type(b) and a == b


def rough(value):
    """Equal for values that may be the same."""
    if isinstance(value, (decimal.Decimal, float)):
        return "number"
    if isinstance(value, tuple):
        return ("list", len(value))
    return repr(value)


def missing(ours, theirs):
    """The first row of `ours` that `theirs` lacks."""
    left = {}
    for row in theirs:
        left.setdefault(tuple(rough(v) for v in row), []).append(row)
    for row in ours:
        candidates = left.get(tuple(rough(v) for v in row), [])
        for i, other in enumerate(candidates):
            if all(same(a, b) for a, b in zip(row, other)):
                candidates.pop(i)
                break
        else:
            return row
    return None


def difference(query, ours, theirs, unlimited):
    if len(ours) != len(theirs):
        return f"{len(ours)} rows, DuckDB has {len(theirs)}"
    for i, (a, b) in enumerate(zip(ours, theirs)):
        for key in query["order"]:
            if not same(a[key], b[key]):
                return f"row {i} is out of order in column {key}: {a} where {b} belongs"
    row = missing(ours, theirs if unlimited is None else unlimited)
    if row is not None:
        return f"unexpected row {row}; DuckDB has {missing(theirs, ours)}"
    return None


class Server:
    def __init__(self, address, folder):
        (self.query, query_grpc), (self.ingest, ingest_grpc), (self.admin, admin_grpc) = services(folder)
        import grpc

        self.Error = grpc.RpcError
        channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", 256 << 20)])
        self.queries = query_grpc.QueryServiceStub(channel)
        self.ingests = ingest_grpc.IngestServiceStub(channel)
        self.admins = admin_grpc.AdminServiceStub(channel)

    def ask(self, query):
        sql = query if isinstance(query, str) else query["ours"]
        request = self.query.QueryRequest(sql=sql, format=self.query.RESULT_FORMAT_ROWS)
        rows, ended = [], False
        for response in self.queries.Query(request):
            part = response.WhichOneof("part")
            if part == "rows":
                rows += [tuple(of_value(v) for v in row.values) for row in response.rows.rows]
            ended = ended or part == "statistics"
        if not ended:
            raise RuntimeError("the answer ended without statistics")
        return rows

    def create(self, schema, configs):
        self.admins.PutSchema(self.admin.PutSchemaRequest(schema_json=schema))
        for config in configs:
            self.admins.CreateTable(self.admin.CreateTableRequest(config_json=config))

    def upload(self, table, path, coverage):
        options = self.ingest.LoadOptions(push_id=path.stem)
        if coverage:
            options.declared_coverage.start_ms, options.declared_coverage.end_ms = coverage

        def parts():
            yield self.ingest.UploadRequest(
                header=self.ingest.UploadHeader(table=table, file_name=path.name, options=options)
            )
            content = path.read_bytes()
            for start in range(0, len(content), 1 << 20):
                yield self.ingest.UploadRequest(chunk=content[start : start + (1 << 20)])

        return self.ingests.Upload(parts())

    def append(self, topic, partition, payloads):
        for start in range(0, len(payloads), 500):
            messages = [self.ingest.Message(payload=p) for p in payloads[start : start + 500]]
            self.ingests.Append(self.ingest.AppendRequest(topic=topic, partition=partition, messages=messages))

    def wait_for(self, table, rows):
        for _ in range(3000):
            count = int(self.ask(f"SELECT count(*) FROM {table}")[0][0])
            if count == rows:
                return
            if count > rows:
                raise SystemExit(f"{table} has {count} rows, not {rows}")
            time.sleep(0.02)
        raise SystemExit(f"{table} has only {count} of {rows} rows after a minute")


def make_tables(server, folder, recipe):
    for table in recipe["tables"]:
        server.create(table["schema"], table["configs"])
        for push in table["pushes"]:
            server.upload(table["name"], folder / push["file"], push["coverage"])
        if table["messages"]:
            payloads = (folder / table["messages"]).read_bytes().splitlines()
            for partition in range(table["partitions"]):
                server.append(table["topic"], partition, payloads[partition :: table["partitions"]])
            server.wait_for(f"{table['name']}_REALTIME", len(payloads))


def draw(export, queries, seed):
    """Lets the Rust test draw tables and queries into `export`."""
    settings = {"EXPORT": export.resolve(), "QUERIES": queries, "SEED": seed}
    environment = {f"STRANDLINE_DIFFERENTIAL_{name}": str(value) for name, value in settings.items()}
    command = ["cargo", "test", "--locked", "--workspace", "--test", "differential", "drawn_queries_are_exported"]
    subprocess.run(command, env=os.environ | environment, check=True)


def serve(program, data):
    """Starts a server on free ports; gives the process and its gRPC address."""
    process = subprocess.Popen(
        [program, "serve", "--data", data, "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if found := re.search("gRPC http://([^ ,]+)", line):
            return process, found[1]
    raise SystemExit("the server did not start")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("export", type=pathlib.Path)
    parser.add_argument("server", nargs="?")
    parser.add_argument("--limit", type=int, default=10**9)
    parser.add_argument("--draw", type=int, metavar="QUERIES", help="draw that many queries first")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--program", help="start this server")
    arguments = parser.parse_args()
    if arguments.draw:
        draw(arguments.export, arguments.draw, arguments.seed)
    if not arguments.program:
        sys.exit(compare(arguments))
    with tempfile.TemporaryDirectory() as data:
        process, arguments.server = serve(arguments.program, data)
        try:
            sys.exit(compare(arguments))
        finally:
            process.kill()
            process.wait()


def compare(arguments):
    """Asks both; gives the exit code."""
    checked = errors = empty = 0
    differences = []
    with tempfile.TemporaryDirectory() as stubs:
        server = Server(arguments.server, stubs) if arguments.server else Recorded()
        for folder in sorted(arguments.export.glob("round-*")):
            recipe = json.loads((folder / "tables.json").read_text())
            if arguments.server:
                make_tables(server, folder, recipe)
            duck = duckdb.connect()
            duck.execute("SET TimeZone = 'UTC'")
            for name in ("t", "u"):
                duck.execute(f"CREATE TABLE {name} AS SELECT * FROM read_parquet('{folder}/{name}.parquet')")
            for line in (folder / "queries.jsonl").read_text().splitlines():
                if checked >= arguments.limit:
                    break
                query = json.loads(line)
                checked += 1

                def run(engine):
                    try:
                        return engine(), None
                    except (server.Error, duckdb.Error) as error:
                        return None, str(error)

                def ducks(sql):
                    return [tuple(cell(v) for v in row) for row in duck.execute(sql).fetchall()]

                theirs, their_error = run(lambda: ducks(query["duck"]))
                ours, our_error = run(lambda: server.ask(query))
                if our_error and their_error:
                    errors += 1
                    continue
                if our_error or their_error:
                    differences.append((query, f"ours: {our_error or 'rows'}; DuckDB: {their_error or 'rows'}"))
                    continue
                unlimited = ducks(query["duck_unlimited"]) if query["duck_unlimited"] else None
                empty += not theirs
                found = difference(query, ours, theirs, unlimited)
                if found:
                    differences.append((query, found))
    for query, found in differences[:25]:
        print(f"seed {query['seed']} ({query['kind']}): {found}\n  ours: {query['ours']}\n  duck: {query['duck']}")
    print(f"{checked} queries against DuckDB {duckdb.__version__}: {len(differences)} differences, {errors} errors on both sides, {empty} empty")
    return 1 if differences or not checked else 0


if __name__ == "__main__":
    main()
