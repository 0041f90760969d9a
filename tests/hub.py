"""A hub on this machine: serves folders OWNER/NAME as data sets by the part of the hub's protocol
that `datasets` reads.

A client finds it by HF_ENDPOINT, which is read when `huggingface_hub` is imported: only processes
of their own can use it.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlparse

import pyarrow as pa
import pyarrow.parquet as pq

PUBLISHED = Path(__file__).parent / "data/published"
ACCOUNT = "zhouxiangxin"
REVISION = "0" * 40


def published_rows(name: str) -> list[dict]:
    """The rows of a fixture: the published schema, with texts of our own."""
    return [
        json.loads(line)
        for line in (PUBLISHED / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def write_repository(root: Path, name: str, rows: list[dict], account: str = ACCOUNT) -> None:
    """The files of a data set as push_to_hub writes them."""
    folder = root / account / name / "data"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "train-00000-of-00001.parquet")


@contextmanager
def serve(root: Path) -> Iterator[str]:
    """Serve the data sets under `root`; yields the endpoint."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

        def do_GET(self) -> None:
            parts = urlparse(self.path).path.strip("/").split("/")
            if parts[:2] == ["api", "datasets"] and (root / parts[2] / parts[3]).is_dir():
                self.answer_json(self.describe(root / parts[2] / parts[3], parts[4:]))
            elif (
                parts[0] == "datasets"
                and (root / parts[1] / parts[2] / "/".join(parts[5:])).is_file()
            ):
                body = (root / parts[1] / parts[2] / "/".join(parts[5:])).read_bytes()
                self.answer(
                    200,
                    body,
                    {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": REVISION},
                )
            else:
                self.answer(
                    404,
                    b"",
                    {"X-Error-Code": "EntryNotFound" if parts[0] == "datasets" else "RepoNotFound"},
                )

        do_HEAD = do_GET

        def describe(self, folder: Path, request: list[str]) -> object:
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            names = [path.relative_to(folder).as_posix() for path in files]
            if request[:1] != ["tree"]:
                siblings = [{"rfilename": name} for name in names]
                return {
                    "id": f"{folder.parent.name}/{folder.name}",
                    "sha": REVISION,
                    "private": False,
                    "siblings": siblings,
                }
            below = "/".join(request[2:])
            folders = sorted({path.parent.relative_to(folder).as_posix() for path in files})
            tree = [
                {"type": "directory", "path": name, "oid": "1" * 40, "size": 0}
                for name in folders
                if not below
            ]
            sizes = [path.stat().st_size for path in files]
            tree += [
                {"type": "file", "path": name, "oid": "2" * 40, "size": size}
                for name, size in zip(names, sizes, strict=True)
                if name.startswith(below)
            ]
            return tree

        def answer_json(self, value: object) -> None:
            self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def answer(self, code: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(code)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def client_environment(endpoint: str, home: Path) -> dict[str, str]:
    """What a process needs to use this hub and nothing else, with a cache of its own."""
    loopback = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    return {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    } | loopback
