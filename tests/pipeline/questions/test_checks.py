"""Checks by source, and that the published references pass them."""

import json

import pytest

from tests.hub import PUBLISHED, published_rows
from variational_reasoning.pipeline.config import DataConfig, ProgramTestsConfig
from variational_reasoning.pipeline.questions.checks import QuestionChecks
from variational_reasoning.verify.pool import Job, ProgramSettings, VerifierPool
from variational_reasoning.verify.sandbox.probe import probe
from variational_reasoning.verify.sandbox.sandbox import Limits
from variational_reasoning.verify.verdicts import Verdict

TESTS = [
    ProgramTestsConfig(source="apps", file=str(PUBLISHED / "apps.jsonl")),
    ProgramTestsConfig(source="taco", file=str(PUBLISHED / "TACO_subset.jsonl")),
]


def row(source, **values):
    return {"source": source, "check": None, "gold": None} | values


def published_checks():
    checks = QuestionChecks(DataConfig(tests=TESTS, check_kinds={"ruc": "none"}))
    found = {}
    for record in published_rows("Bespoke-Stratos-17k-Source"):
        check, fault = checks.of(row(record["source"]), record["solution_content"])
        assert fault is None
        found[record["source"]] = (check, record["solution_content"])
    return checks, found


def test_every_published_source_has_its_check():
    checks, found = published_checks()
    records = published_rows("apps")
    assert {source: check for source, (check, _) in found.items()} == {
        "numina/123": {"kind": "math", "gold": "58"},
        "apps/1": {"kind": "program", "tests": records[1]["input_output"]},
        "taco/0": {"kind": "program", "tests": published_rows("TACO_subset")[0]["input_output"]},
        "ruc/2": {"kind": "none"},
        "numina/7": {"kind": "math", "gold": r"\dfrac{3}{4}"},
    }
    assert not checks.unusable and set(checks.digests) == {"tests.apps", "tests.taco"}
    checks.refuse_unused()


def test_the_references_pass_their_own_checks():
    _, found = published_checks()
    found.pop("ruc/2")
    limits = Limits(cpu_seconds=4, wall_seconds=20, memory_mib=1024, output_mib=8)
    with VerifierPool(1, 20, 2048, ProgramSettings(probe(None).tier, limits, 60, None)) as pool:
        verdicts = {
            name: result.verdict
            for name, result in pool.check([Job(n, c, s) for n, (c, s) in found.items()])
        }
    assert verdicts == dict.fromkeys(found, Verdict.CORRECT)


def test_what_a_row_says_of_itself_comes_first():
    checks = QuestionChecks(DataConfig(tests=TESTS[:1], check_kinds={"words": "exact"}))
    assert checks.of(row("apps/1", check={"kind": "exact", "gold": "x"}), "")[0] == {
        "kind": "exact",
        "gold": "x",
    }
    assert checks.of(row("apps/1", gold="7"), "")[0]["kind"] == "program"
    assert checks.of(row("words", gold="7"), "")[0] == {"kind": "exact", "gold": "7"}
    assert checks.of(row("words/3"), " six ")[0] == {"kind": "exact", "gold": "six"}
    assert checks.of(row(None), r"\boxed{2}")[0] == {"kind": "math", "gold": "2"}


def test_tests_that_cannot_be_used_are_counted_by_name(tmp_path):
    records = [{"input_output": text} for text in ("", json.dumps({"inputs": [], "outputs": []}))]
    (tmp_path / "apps.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    checks = QuestionChecks(
        DataConfig(tests=[ProgramTestsConfig(source="apps", file=str(tmp_path / "apps.jsonl"))])
    )
    assert checks.of(row("apps/0"), "") == checks.of(row("apps/1"), "") == ({"kind": "none"}, None)
    assert set(checks.unusable) == {"apps/0", "apps/1"}
    assert "tests has no test" in checks.unusable["apps/1"]


@pytest.mark.parametrize("source", ["apps/2", "apps/", "apps", "apps/-1", "apps/x"])
def test_records_that_are_not_there(source):
    check, fault = QuestionChecks(DataConfig(tests=TESTS)).of(row(source), "")
    assert fault.endswith("names no record of data.tests; there are apps/0 to apps/1")


def test_names_that_no_row_has_are_refused(tmp_path):
    checks = QuestionChecks(DataConfig(tests=TESTS, check_kinds={"rux": "none"}))
    checks.of(row("apps/1"), "")
    with pytest.raises(ValueError, match=r"begins with 'rux', 'taco'; the sources are 'apps'"):
        checks.refuse_unused()
    (tmp_path / "apps.jsonl").write_text('{"tests": 1}\n')
    with pytest.raises(ValueError, match="lacks the column 'input_output'; it has tests"):
        QuestionChecks(
            DataConfig(tests=[ProgramTestsConfig(source="apps", file=str(tmp_path / "apps.jsonl"))])
        )
