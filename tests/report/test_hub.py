"""Pushing: what is refused before any network, and what a hub on this machine receives."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from variational_reasoning.report.hub import plan_push

SCRIPT = Path(__file__).parents[2] / "scripts/push_to_hub.py"
CARD = "---\nlicense: {license}\ntags:\n- variational-reasoning\n---\n\n# x\n"


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    (folder / "checkpoint-5").mkdir(parents=True)
    (folder / "README.md").write_text(CARD.format(license="mit"))
    for name in (
        "variational_reasoning.json",
        "config.json",
        "training_args.bin",
        "checkpoint-5/optimizer.pt",
        ".hidden",
    ):
        (folder / name).write_text("{}")
    return folder


def test_a_record_with_a_secret_in_clear_is_not_pushed(model):
    record = {"yaml": {"hf_hub_token": "hf_abc"}}
    (model / "variational_reasoning.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="holds a token or another secret in clear") as caught:
        plan_push(model, "me/x")
    assert "hf_abc" not in str(caught.value)


def test_the_plan_lists_what_is_needed(model):
    plan = plan_push(model, "me/x")
    assert (plan.kind, plan.private) == ("model", True)
    assert plan.files == ["README.md", "config.json", "variational_reasoning.json"]


def test_what_is_refused_without_any_network(model, tmp_path):
    with pytest.raises(ValueError, match="names no account"):
        plan_push(model, "x")
    with pytest.raises(ValueError, match="repo='a b/c'"):
        plan_push(model, "a b/c")
    with pytest.raises(ValueError, match="holds a model"):
        plan_push(model, "me/x", kind="dataset")
    with pytest.raises(ValueError, match="there is no folder"):
        plan_push(tmp_path / "nothing", "me/x")
    with pytest.raises(ValueError, match="shows neither a model nor a data set"):
        plan_push(tmp_path, "me/x")
    (model / "README.md").write_text(CARD.format(license="unknown"))
    assert plan_push(model, "me/x").private
    with pytest.raises(ValueError, match="the license is unknown"):
        plan_push(model, "me/x", private=False)
    (model / "README.md").write_text("---\nlicense: mit\ntags:\n- llama-factory\n---\n")
    with pytest.raises(ValueError, match="is not a card of ours"):
        plan_push(model, "me/x")
    (model / "README.md").unlink()
    with pytest.raises(ValueError, match=r"has no README.md; run scripts/write_cards.py first"):
        plan_push(model, "me/x")


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a push of small files needs; repositories map a name to whether it is
    private.
    """

    repositories: ClassVar[dict[str, bool]] = {}
    commits: ClassVar[list[list[dict]]] = []

    def do_GET(self):
        name = "/".join(self.path.split("?")[0].split("/")[3:5])
        if name in self.repositories:
            return self.answer(
                {"id": name, "private": self.repositories[name], "siblings": [], "tags": []}
            )
        return self.answer({}, 404, {"X-Error-Code": "RepoNotFound"})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        address = f"http://{self.headers['Host']}"
        if self.path == "/api/repos/create":
            wanted = json.loads(body)
            private = wanted.get("private", wanted.get("visibility") == "private")
            self.repositories[f"{wanted.get('organization', 'me')}/{wanted['name']}"] = private
            return self.answer({"url": f"{address}/me/{wanted['name']}", "id": "me/x"})
        if "/preupload/" in self.path:
            files = json.loads(body)["files"]
            return self.answer(
                {
                    "files": [
                        {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                        for f in files
                    ]
                }
            )
        if "/commit/" in self.path:
            self.commits.append([json.loads(line) for line in body.splitlines()])
            commit = {
                "success": True,
                "commitOid": "0" * 40,
                "commitUrl": f"{address}/me/x/commit/{'0' * 40}",
            }
            return self.answer(commit | {"hookOutput": "", "pullRequestUrl": None})
        return self.answer({"errors": [], "warnings": []})  # the check of a card's header

    def answer(self, value, status=200, headers=None):
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Quiet."""


@pytest.fixture
def hub():
    Hub.repositories, Hub.commits = {}, []
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def push(folder: Path, endpoint: str, *options: str) -> subprocess.CompletedProcess:
    environment = {
        "HF_ENDPOINT": endpoint,
        "HF_TOKEN": "hf_none",
        "PATH": "",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    environment |= {
        "PYTHONPATH": str(SCRIPT.parents[1] / "plugin"),
        "HF_HOME": str(folder.parent / "hf"),
        "HF_HUB_OFFLINE": "0",
    }
    command = [sys.executable, SCRIPT, folder, "repo=me/x", *options]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def test_a_push_is_private_and_holds_the_planned_files(model, hub):
    done = push(model, hub)
    assert done.returncode == 0, done.stderr
    assert "3 files" in done.stdout and "to the model me/x, private" in done.stdout
    assert Hub.repositories == {"me/x": True}
    (commit,) = Hub.commits
    paths = {line["value"]["path"] for line in commit if line["key"] == "file"}
    assert paths == {"README.md", "config.json", "variational_reasoning.json"}


def test_a_public_repository_does_not_get_what_shall_be_private(model, hub):
    Hub.repositories["me/x"] = False
    done = push(model, hub)
    assert done.returncode == 2
    assert "me/x is there already and is public, but private is asked for" in done.stderr
    assert Hub.commits == []
    done = push(model, hub, "private=false")
    assert done.returncode == 0, done.stderr
    assert ", PUBLIC" in done.stdout and len(Hub.commits) == 1


def test_a_dry_run_needs_no_hub(model):
    done = push(model, "http://127.0.0.1:9", "dry_run=true")
    assert done.returncode == 0, done.stderr
    assert "config.json\n" in done.stdout and "nothing was pushed" in done.stdout


def test_wrong_options_are_refused(model):
    done = push(model, "http://127.0.0.1:9", "private=no")
    assert done.returncode == 2 and "private=no is neither true nor false" in done.stderr
