"""Files read and replaced whole."""

import json
import os
import platform
import re
import signal
import subprocess
import sys
import time

import pytest

from variational_reasoning.files import is_abandoned, read_json_lines


def test_lines_end_at_newlines_only(tmp_path):
    # U+2028, U+0085 and a lone carriage return are ends of lines to str.splitlines, and may stand
    # inside a JSON text.
    rows = [{"text": "a\u2028b\u0085c"}, {"text": "d"}]
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\r\n", encoding="utf-8"
    )
    assert list(read_json_lines(path)) == [(1, rows[0]), (3, rows[1])]


def test_faults_are_raised_or_collected(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n[1]\n{"a"\n{"a": 2}\n{"a": "\xe9"}\n')  # the last in Latin-1
    with pytest.raises(ValueError, match=re.escape("rows.jsonl, line 2 is not an object: [1]")):
        list(read_json_lines(path))
    faults = []
    assert list(read_json_lines(path, faults)) == [(1, {"a": 1}), (4, {"a": 2})]
    assert faults[0] == "line 2 is not an object: [1]" and faults[1].startswith(
        "line 3 is not valid JSON"
    )
    assert len(faults) == 3 and faults[2].startswith("line 5 is not UTF-8")


def test_half_a_surrogate_pair_is_a_fault_of_its_line(tmp_path):
    # "\ud83d\ude00" is one character; "\ud800" alone is none, and no tokenizer and no file can hold
    # it.
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": "\\ud83d\\ude00"}\n{"a": 1, "b": ["x\\ud800"]}\n', encoding="utf-8")
    faults = []
    assert list(read_json_lines(path, faults)) == [(1, {"a": "\U0001f600"})]
    assert faults == [
        "line 2, column 'b' holds '\\ud800', half of a surrogate pair, which no tokenizer can "
        "read; "
        "remove it from the text"
    ]


def test_half_a_pair_is_found_in_a_key_and_in_raw_bytes(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b'{"a": "\\ud83d\\ude00"}\n'  # a whole pair is one character
        b'{"a": {"b": ["", "\\ud800"]}}\n'
        b'{"a\\udfff": 1}\n'
        b'{"a": "\xed\xa0\x80"}\n'  # the same in UTF-8's pattern, which Python's json lets pass
        b'{"a": "\\\\ud800"}\n'  # a backslash and five letters
    )
    faults = []
    rows = list(read_json_lines(path, faults))
    assert rows == [(1, {"a": "\U0001f600"}), (5, {"a": "\\ud800"})]
    assert [fault.partition(" holds ")[0] for fault in faults] == [
        "line 2, column 'a'",
        "line 3, column 'a\\udfff'",
        "line 4, column 'a'",
    ]


def test_numbers_that_python_refuses_and_deep_nesting_are_faults(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": ' + "1" * 5000 + "}\n" + "[" * 100_000 + "\n")
    faults = []
    assert list(read_json_lines(path, faults)) == []
    assert [fault.partition(" (")[0] for fault in faults] == [
        "line 1 is not valid JSON",
        "line 2 is not valid JSON",
    ]


def test_a_killed_writer_is_gone_before_its_parent_has_asked(tmp_path):
    """A killed child of a parent that does not wait stays a zombie, which `kill -0` finds."""
    writer = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])

    def temporary_of(process: int):
        path = tmp_path / f"shard-00000.parquet.{platform.node()}.{process}.tmp"
        path.write_bytes(b"half")
        return path

    assert not is_abandoned(temporary_of(writer.pid))
    assert not is_abandoned(temporary_of(os.getpid()))
    writer.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while not is_abandoned(temporary_of(writer.pid)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(writer.pid, 0)  # it still has its number
    writer.wait()
    assert is_abandoned(temporary_of(writer.pid))
