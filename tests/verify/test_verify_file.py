"""The stand-alone command: the same rows in the same order, and every faulty line named before
anything runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import need_tier

SCRIPT = Path(__file__).parents[2] / "scripts/verify_file.py"


def verify_file(folder, lines, *options):
    (folder / "rows.jsonl").write_text(
        "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
    )
    command = [sys.executable, SCRIPT, "input=rows.jsonl", "output=out.jsonl", *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)


def test_rows_come_back_in_order_with_their_verdicts(tmp_path):
    rows = [
        {"id": "a", "kind": "math", "gold": "x+1", "answer": r"\boxed{9^{9^{9^9}}}"},
        {"id": "b", "kind": "math", "gold": "x+1", "answer": r"\boxed{1+x}"},
        {"id": 3, "kind": "exact", "gold": "5", "answer": "6"},
        {
            "id": 4,
            "kind": "program",
            "tests": {"inputs": ["3"], "outputs": ["4"]},
            "answer": "```py\nprint(int(input()) + 1)\n```",
        },
        {"id": 5, "kind": "exact", "gold": "5", "answer": None},
    ]
    done = verify_file(tmp_path, rows, "timeout_seconds=2", "workers=2")
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["id"] for row in found] == ["a", "b", 3, 4, 5]
    assert [row["verdict"] for row in found] == [
        "timeout",
        "correct",
        "wrong",
        "correct",
        "no_answer",
    ]
    assert found[1]["gold"] == "x+1"


def test_further_columns_pass_through_and_old_results_are_replaced(tmp_path):
    rows = [
        {"id": 1, "kind": "exact", "gold": "5", "answer": "5", "source": {"file": "a"}, "n": None},
        {"id": 2, "kind": "exact", "gold": "5", "answer": "6", "tests": "of another kind"},
        {"id": 3, "kind": "exact", "gold": "5", "answer": "5", "verdict": "wrong", "tier": "T3"},
    ]
    done = verify_file(tmp_path, rows)
    assert done.returncode == 0, done.stderr
    assert "further columns, passed through: n, source, tests" in done.stdout
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    for row, after in zip(rows, found, strict=True):
        result = {name: after.pop(name) for name in ("verdict", "reason", "seconds")}
        assert result["verdict"] == ("wrong" if row["id"] == 2 else "correct")
        assert after == {name: row[name] for name in row if name not in ("verdict", "tier")}


def test_half_of_a_surrogate_pair_is_named_with_its_line_before_any_work(tmp_path):
    row = {"id": 1, "kind": "exact", "gold": "5", "answer": "5"}
    whole = "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")
    lines = [row | {"answer": whole}, row | {"answer": "\ud800"}, row | {"note": ["a", "\udfff"]}]
    done = verify_file(tmp_path, lines)
    assert done.returncode == 2 and not (tmp_path / "out.jsonl").exists()
    assert "2 faults" in done.stderr and "Traceback" not in done.stderr
    assert "line 2, column 'answer' holds '\\ud800', half of a surrogate pair" in done.stderr
    assert "line 3, column 'note' holds '\\udfff', half of a surrogate pair" in done.stderr


PROGRAMS = {  # what n is makes every row another text; the costly ones are few
    "print(int(input()) + {n})": "correct",
    "import sys\nprint(sum(map(int, sys.stdin)) + {n})": "correct",
    (
        "def main():\n    x = int(input())\n    for _ in range({n}): x += 1\n    print(x)\nmain()"
    ): "correct",
    "open('f', 'w').write(input())\nprint(int(open('f').read()) + {n})": "correct",
    "print(int(input()) - {n})": "wrong",
    "pass  # {n}": "wrong",
    "print({n}": "compile_error",
    "print([][{n}])": "runtime_error",
    "print(int(input()) + {n}); raise SystemExit(3)": "runtime_error",
    None: "no_answer",
}
COSTLY = {
    "while {n}: pass": "timeout",
    "x = bytearray({n} << 40)": "memory_limit",
    "while True: print('{n}' * 9999)": "output_limit",
}


@pytest.mark.slow
def test_500_programs_get_the_same_verdicts_in_the_same_order_with_1_4_and_16_workers(
    tmp_path,
):  # attack group 32
    rows, expected = [], []
    for number in range(500):
        kinds = COSTLY if number % 50 == 7 else PROGRAMS
        template = list(kinds)[number // (50 if kinds is COSTLY else 1) % len(kinds)]
        n = number + 1
        tests = {"inputs": ["3\n"], "outputs": [f"{3 + n}\n"]}
        answer = (
            f"```python\n{template.replace('{n}', str(n))}\n```" if template else "I do not know."
        )
        rows.append({"id": f"row {number}", "kind": "program", "tests": tests, "answer": answer})
        expected.append(kinds[template])
    for workers in (1, 4, 16):
        done = verify_file(
            tmp_path, rows, f"workers={workers}", "program_cpu_seconds=1", "program_memory_mib=512"
        )
        assert done.returncode == 0, done.stderr
        found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert [row["id"] for row in found] == [row["id"] for row in rows]
        wrong = [
            (row, verdict)
            for row, verdict in zip(found, expected, strict=True)
            if row["verdict"] != verdict
        ]
        assert not wrong, (workers, wrong)


def test_every_faulty_line_is_named(tmp_path):
    lines = [
        {"id": 1, "kind": "math", "answer": "x"},
        "not json\n",
        "[1]\n",
        {"id": 4, "kind": "mth", "answer": 5},
    ]
    lines.append({"id": 5, "kind": ["program"], "answer": "x"})
    done = verify_file(tmp_path, lines)
    assert done.returncode == 2
    for message in (
        "line 1 (id 1): check of kind math lacks 'gold'",
        "line 2 is not valid JSON",
        "line 3 is not an object",
        "line 4 (id 4): answer is 5",
        "line 4 (id 4): check kind 'mth' is not one of",
        "line 5 (id 5): check kind ['program'] is not one of",
    ):
        assert message in done.stderr
    assert not (tmp_path / "out.jsonl").exists()


def test_unknown_options_and_missing_files_are_refused(tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPT, "inptu=x"], capture_output=True, text=True, timeout=60
    )
    assert (
        done.returncode,
        "unknown key 'inptu'; did you mean 'input'?" in done.stderr,
        "input=... is missing" in done.stderr,
    ) == (2, 1, 1)
    done = subprocess.run(
        [sys.executable, SCRIPT, "input=no.jsonl", "output=o"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert (done.returncode, "there is no file no.jsonl" in done.stderr) == (2, True)


def test_options_that_cannot_be_right_are_refused_before_anything_runs(tmp_path):
    row = {
        "id": 1,
        "kind": "program",
        "tests": {"inputs": ["3"], "outputs": ["4"]},
        "answer": "```py\nprint(4)\n```",
    }
    options = [
        "workers=1.5",
        "program_cpu_seconds=nan",
        "program_memory_mib=0",
        "output=no/out.jsonl",
    ]
    done = verify_file(tmp_path, [row], *options)
    assert done.returncode == 2
    for message in (
        "workers='1.5' is not a whole number above 0",
        "program_cpu_seconds='nan' is not a number above 0",
        "program_memory_mib='0' is not a whole number above 0",
        "output='no/out.jsonl' is in no folder that exists",
    ):
        assert message in done.stderr
    for python, why in (
        ("/bin/false", "exit code 1"),
        ("/bin/true", "it answers ''"),
        ("./none", "No such file"),
    ):
        done = verify_file(tmp_path, [row], f"program_python={python}")
        assert (
            done.returncode,
            "does not run as a Python interpreter" in done.stderr,
            why in done.stderr,
        ) == (2, True, True)


DENY = """
import os, platform, sys
from variational_reasoning.verify.sandbox.inside import confine
from variational_reasoning.verify.sandbox.inside.filters import ALLOW, DENY, GIVE, LOAD
from variational_reasoning.verify.sandbox.inside.filters import by_number, op
from variational_reasoning.verify.sandbox.inside.syscalls import ARCHITECTURES
column = ARCHITECTURES[platform.machine()][1]
numbers = {"unshare": (272, 97)[column], "landlock": 444}
rules = {numbers[name]: op(GIVE, DENY) for name in sys.argv[1].split(",")}
confine.no_new_privileges()
confine._Filter(op(LOAD, 0) + by_number(rules, op(GIVE, ALLOW))).install()
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
"""Runs a command without some system calls, as the profile of a container does."""


def test_what_a_container_forbids_lowers_the_tier_or_refuses(tmp_path):
    need_tier(3)
    source = "import numpy\nprint(numpy.int64(input()) + 1)"
    row = {
        "id": 1,
        "kind": "program",
        "tests": {"inputs": ["3"], "outputs": ["4"]},
        "answer": f"```py\n{source}\n```",
    }
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")

    def run(denied, *options):
        command = [
            sys.executable,
            "-c",
            DENY,
            denied,
            SCRIPT,
            "input=rows.jsonl",
            "output=out.jsonl",
            *options,
        ]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)

    done = run("unshare")  # Docker's default
    assert (
        done.returncode == 0
        and "programs run in tier T2" in done.stdout
        and "unshare" in done.stdout
    ), done
    found = json.loads((tmp_path / "out.jsonl").read_text())
    assert (found["verdict"], found["tier"]) == ("correct", "T2")
    (tmp_path / "out.jsonl").unlink()
    done = run("unshare,landlock")
    assert (
        done.returncode == 2
        and "below T2" in done.stderr
        and "set allow_unsandboxed_code to true" in done.stderr
    ), done
    assert not (tmp_path / "out.jsonl").exists()
    done = run("unshare,landlock", "allow_unsandboxed_code=true")
    assert (
        done.returncode == 0 and "warning: allow_unsandboxed_code accepts the risk" in done.stderr
    ), done
    assert json.loads((tmp_path / "out.jsonl").read_text())["tier"] == "T1"


@pytest.mark.slow
def test_answers_without_a_box_are_found_unless_forbidden(tmp_path):
    texts = [
        "$1+x$",
        "x+1",
        "The answer is x+1",
        r"\boxed{1+x}",
        "",
        "it may be x+1 or perhaps something else",
    ]
    rows = [
        {"id": i, "kind": "math", "gold": "x+1", "answer": text} for i, text in enumerate(texts)
    ]
    for option, expected in (
        ("answers=auto", ["correct", "correct", "correct", "correct", "no_answer", "no_answer"]),
        (
            "answers=solution",
            ["no_answer", "no_answer", "no_answer", "correct", "no_answer", "no_answer"],
        ),
    ):
        done = verify_file(tmp_path, rows, option)
        assert done.returncode == 0, done.stderr
        found = [
            json.loads(line)["verdict"]
            for line in (tmp_path / "out.jsonl").read_text().splitlines()
        ]
        assert found == expected
