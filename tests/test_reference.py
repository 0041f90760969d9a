"""The generated reference of the configuration: current, complete, and in agreement with the
loader.
"""

import importlib.util
import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from variational_reasoning.pipeline.config import load_config

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("reference", ROOT / "docs/reference.py")
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)
SCHEMA = ROOT / "docs/pipeline.schema.json"
VALIDATOR = jsonschema.Draft202012Validator(json.loads(reference.schema_text()))
CONFIGURATIONS = sorted(
    [
        *(ROOT / "examples").rglob("pipeline.yaml"),
        *(ROOT / "examples").rglob("k_scaling.yaml"),
        ROOT / "evals/paper.yaml",
    ]
)


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=label)
def test_every_pipeline_yaml_names_the_schema_and_fits_it(path):
    text = path.read_text(encoding="utf-8")
    named = re.fullmatch(r"# yaml-language-server: \$schema=(.*)", text.splitlines()[0])
    assert named and (path.parent / named[1]).resolve() == SCHEMA
    VALIDATOR.validate(yaml.safe_load(text))
    load_config(path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sampling": {"num_trace": 8}}, "'num_trace' was unexpected"),
        ({"sampling": {"num_traces": 0}}, "0 is less than the minimum of 1"),
        ({"sampling": {"top_p": 0}}, "0 is less than or equal to the minimum of 0"),
        ({"sampling": {"top_p": 1.5}}, "1.5 is greater than the maximum of 1"),
        ({"sampling": {"num_traces": True}}, "True is not of type 'integer'"),
        ({"sampling": {"engine": "sglang"}}, "'sglang' is not one of"),
        ({"build": {"outputs": [{"name": "x", "names": "x"}]}}, "'names' was unexpected"),
        ({"data": {"check_kinds": {"ruc": 1}}}, "1 is not of type 'string'"),
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(tmp_path, values, message):
    (error,) = VALIDATOR.iter_errors(values)
    assert message in error.message
    path = tmp_path / "pipeline.yaml"
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"1 fault\(s\)"):
        load_config(path)


@pytest.mark.parametrize(
    "values",
    [
        {"sampling": None},
        {"build": {"outputs": [{"name": "x", "num_traces": None, "weight_cap": 0.5}]}},
        {"data": {"decontaminate": {"benchmarks": [{"name": "a", "file": "b.jsonl"}]}}},
        {"cutoff_len": 8, "sampling": {"temperature": 1}},
    ],
)
def test_the_schema_accepts_what_the_loader_accepts(tmp_path, values):
    VALIDATOR.validate(values)
    path = tmp_path / "pipeline.yaml"
    path.write_text(json.dumps(values))
    load_config(path)


def test_a_comment_belongs_to_the_key_it_is_written_at():
    keys = {key.name: key for key in reference.keys_of(dict(SECTIONS)["sampling"])}
    assert keys["num_traces"].text == "K, per question"  # at the end of its line
    assert keys["batch_tokens"].text.startswith("transformers: rows x")  # the line above
    assert (keys["top_p"].default, keys["top_p"].limits) == (1.0, {"above": 0, "at_most": 1})


SECTIONS = list(reference.subsections(reference.Config))


def test_the_page_has_every_section_and_key():
    page = reference.page()
    assert {"", "data.decontaminate.benchmarks", "build.outputs", "eval.tasks"} <= dict(
        SECTIONS
    ).keys()
    for name, section in SECTIONS:
        assert f"\n## {name or 'The top level'}\n" in page
        for key in reference.keys_of(section):
            assert f"| `{key.name}` |" in page or f"{name}.{key.name}".strip(".") in dict(SECTIONS)
