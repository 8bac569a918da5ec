#!/usr/bin/env python3
"""Asks a running server with nothing but its .proto: typed rows over gRPC.

Needs grpcio and grpcio-tools.  Usage: query.py HOST:PORT 'SELECT ...' [PARAMETER ...]
Prints the column names, then a tab-separated line a row; statistics go to standard error.
"""
import importlib
import pathlib
import sys
import tempfile

import grpc
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto" / "proto"


def stubs():
    """Compiles the service definition into a temporary folder and imports it."""
    out = tempfile.mkdtemp()
    files = [str(p) for p in sorted(PROTO.glob("strandline/v1/*.proto"))]
    if protoc.main(["protoc", f"-I{PROTO}", f"--python_out={out}", f"--grpc_python_out={out}", *files]) != 0:
        raise SystemExit("the .proto files do not compile")
    sys.path.insert(0, out)
    return importlib.import_module("strandline.v1.query_pb2"), importlib.import_module("strandline.v1.query_pb2_grpc")


def python_value(value):
    """A protobuf value as Python's own."""
    kind = value.WhichOneof("kind")
    if kind in (None, "null"):
        return None
    if kind == "list":
        return [python_value(v) for v in value.list.values]
    return getattr(value, kind)


def parameter(messages, text):
    """A parameter: a whole number, a float, or else text."""
    for parse, field in ((int, "long"), (float, "double"), (str, "string")):
        try:
            return messages.Value(**{field: parse(text)})
        except ValueError:
            continue
    raise AssertionError("text is always text")


def main():
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    address, sql, *parameters = sys.argv[1:]
    messages, services = stubs()
    request = messages.QueryRequest(
        sql=sql,
        format=messages.RESULT_FORMAT_ROWS,
        parameters=[parameter(messages, p) for p in parameters],
    )
    complete = False
    with grpc.insecure_channel(address) as channel:
        try:
            for response in services.QueryServiceStub(channel).Query(request):
                part = response.WhichOneof("part")
                if part == "schema":
                    print("\t".join(c.name for c in response.schema.columns))
                elif part == "rows":
                    for row in response.rows.rows:
                        print("\t".join(str(python_value(v)) for v in row.values))
                elif part == "statistics":
                    complete = True
                    print(response.statistics, file=sys.stderr)
        except grpc.RpcError as error:
            raise SystemExit(f"{error.code().name}: {error.details()}")
    if not complete:
        raise SystemExit("the answer ended without statistics: it is not complete")


if __name__ == "__main__":
    main()
