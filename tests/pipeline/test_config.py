"""The pipeline's configuration: strict keys, types and bounds, overrides, all faults together."""

import json
from pathlib import Path

import pytest

from variational_reasoning.pipeline.commands import read_command
from variational_reasoning.pipeline.config import Config, load_config, resolved, with_overrides


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)
    return path


def test_an_empty_file_gives_the_defaults_of_the_paper(tmp_path):
    config = load_config(write(tmp_path, ""))
    assert config == Config()
    assert (
        config.sampling.temperature == 0.7
        and config.sampling.num_traces == 8
        and config.scoring.temperature == 1.0
    )
    assert config.folder("traces") == Path("runs/tiny/traces")
    assert config.model_folder("posterior") == Path("runs/tiny/models/posterior")
    assert config.model_folder("final_acc") == Path("runs/tiny/models/final_acc")


def test_values_and_overrides(tmp_path):
    text = "models: {reasoner: elsewhere}\nsampling:\n  temperature: 1e-1\n  top_p: 1\nbuild:\n  outputs:\n  - {name: acc}\n"
    overrides = [
        "sampling.num_traces=4",
        "build.outputs.0.estimator=gml",
        "base=null",
        "data.columns.question=q",
    ]
    config = load_config(write(tmp_path, text), overrides)
    assert (
        config.sampling.temperature == 0.1
        and config.sampling.top_p == 1.0
        and config.sampling.num_traces == 4
    )
    assert config.build.outputs[0].estimator == "gml" and config.data.columns == {"question": "q"}
    assert config.model_folder("reasoner") == Path("elsewhere")


def test_all_faults_are_reported_together_with_dotted_names(tmp_path):
    text = """
sampling: {num_trace: 3, top_p: 1.5, num_answers: 2.5, engine: sglang}
scoring: 3
cutof_len: 4
seed: true
chat_format: nope
build: {outputs: [{name: a, estimatr: acc}, {name: a}, {}]}
"""
    with pytest.raises(ValueError) as error:
        load_config(write(tmp_path, text), ["eval.num_samples=0", "nonsense", "sampling.x.y=1"])
    message = str(error.value)
    for part in (
        "sampling.num_trace: unknown key; did you mean 'sampling.num_traces'?",
        "sampling.top_p: 1.5 must be at most 1",
        "sampling.num_answers: 2.5 is not a whole number",
        "sampling.engine: 'sglang' is not one of auto, transformers, vllm",
        "sampling.x: unknown key",
        "scoring: 3 is not a section of keys",
        "cutof_len: unknown key; did you mean 'cutoff_len'?",
        "seed: True is not a whole number",
        "chat_format 'nope' is neither one of chatml, llama3",
        "build.outputs.0.estimatr: unknown key; did you mean 'build.outputs.0.estimator'?",
        "build.outputs: the name 'a' is there twice",
        "build.outputs.2.name: is empty",
        "eval.num_samples: 0 must be at least 1",
        "override 'nonsense' is not of the form key=value",
    ):
        assert part in message, part


def test_files_that_are_no_configuration(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no configuration file"):
        load_config(tmp_path / "absent.yaml")
    with pytest.raises(ValueError, match="not valid YAML"):
        load_config(write(tmp_path, "a: [1"))
    with pytest.raises(ValueError, match="is a mapping"):
        load_config(write(tmp_path, "- 1"))


def test_a_questions_weight_is_a_name_or_a_power(tmp_path):
    def outputs(*weights) -> str:
        rows = [{"name": f"o{i}", "question_weight": w} for i, w in enumerate(weights)]
        return json.dumps({"build": {"outputs": rows}})

    config = load_config(write(tmp_path, outputs("grpo", {"power": -0.5}, {"power": 0})))
    factors = [output.question_factor for output in config.build.outputs]
    assert factors == ["grpo", -0.5, "none"]
    with pytest.raises(ValueError) as error:
        load_config(write(tmp_path, outputs("rft", {"powr": 1}, {"power": 99}, 2)))
    for part in (
        "0.question_weight: 'rft' is not one of none, accuracy, grpo, or a section of the keys "
        "power",
        "1.question_weight.powr: unknown key",
        "2.question_weight.power: 99.0 must be at most 10",
        "3.question_weight: 2 is not one of none, accuracy, grpo",
    ):
        assert part in str(error.value), part
    with pytest.raises(ValueError, match="at_least 0.9 is above at_most 0.1"):
        accuracy = "build.question_accuracy"
        load_config(write(tmp_path, "{}"), [f"{accuracy}.at_least=0.9", f"{accuracy}.at_most=0.1"])


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "/tmp/x", ".."])
def test_names_that_would_write_somewhere_else_are_refused(tmp_path, name):
    text = json.dumps({"data": {"name": name}, "build": {"outputs": [{"name": name}]}})
    with pytest.raises(ValueError) as error:
        load_config(write(tmp_path, text))
    for key in ("data.name", "build.outputs.0.name"):
        assert f"{key}: {name!r} cannot be part of a file's name" in str(error.value)


@pytest.mark.parametrize("name", ["reasoner", "posterior", "chosen", "extended", "base"])
def test_names_of_what_a_run_writes_itself_are_refused(tmp_path, name):
    """An arm `posterior` would overwrite stage 0's train file of that name."""
    text = json.dumps({"build": {"outputs": [{"name": name}]}, "arms": [{"name": name}]})
    with pytest.raises(ValueError) as error:
        load_config(write(tmp_path, text))
    for key in ("build.outputs.0.name", "arms.0.name"):
        assert f"{key}: {name!r} is reserved (" in str(error.value)


def test_names_of_other_evaluations_are_refused(tmp_path):
    arms = [{"name": name, "trace": "policy"} for name in ("a", "a_sampled", "a_2", "base_sampled")]
    values = {"arms": arms, "sequence": {"sampled_at": 0.7}}
    values["loops"] = [{"name": "models", "phases": [{"train": ["a"]}]}]
    values["loops"].append({"name": "round2", "phases": [{"train": ["a"]}]})
    with pytest.raises(ValueError) as error:
        load_config(write(tmp_path, json.dumps(values)))
    for part in (
        "arms.1.name: 'a_sampled' is reserved (it is the name of the evaluation of 'a' at",
        "arms.2.name: 'a_2' is reserved (it is the name of the evaluation of 'a' in round 2",
        "arms.3.name: 'base_sampled' is reserved (it is the name of the evaluation of 'base'",
        "loops.0.name: 'models' is reserved (it is a folder of every run)",
        "loops.1.name: 'round2' is reserved",
    ):
        assert part in str(error.value), part
    del values["loops"], values["sequence"]
    load_config(write(tmp_path, json.dumps(values)))


def test_a_round_samples_once_from_each_model(tmp_path):
    """What a phase trains changes the models, and a round has one table of each one's traces."""
    taught = {"name": "taught", "target": "posterior", "ratio": "none", "selection": "weighted"}
    values = {"build": {"outputs": [{"name": "weighted"}, taught]}}
    values["arms"] = [{"name": "policy", "trace": "policy"}]

    def load(*phases: list[str]) -> None:
        loop = {"name": "loop", "phases": [{"train": names} for names in phases]}
        load_config(write(tmp_path, json.dumps(values | {"loops": [loop]})))

    load(["taught"], ["weighted", "policy"])
    load(["weighted"], ["policy"])
    expected = r"loops.0.phases.1.train: samples from the reasoner again, whose traces of this"
    with pytest.raises(ValueError, match=expected):
        load(["weighted", "policy"], ["taught"])
    with pytest.raises(ValueError, match="phases.1.train: samples from the posterior again"):
        load(["weighted"], ["weighted"])


def test_overrides_leave_the_values_alone():
    values, faults = {"sampling": {"top_p": 1.0}}, []
    assert with_overrides(values, ["sampling.top_p=0.5", "eval.split=train"], faults) == {
        "sampling": {"top_p": 0.5},
        "eval": {"split": "train"},
    }
    assert values == {"sampling": {"top_p": 1.0}} and not faults
    with_overrides(values, ["sampling.top_p.x=1"], faults)
    assert "there is no section 'sampling.top_p'" in faults[0]


def test_an_override_of_the_place_after_a_list_adds_to_it():
    values, faults = {"build": {"outputs": [{"name": "a"}]}}, []
    found = with_overrides(values, ["build.outputs.1={name: b}"], faults)
    assert found["build"]["outputs"] == [{"name": "a"}, {"name": "b"}] and not faults
    with_overrides(values, ["build.outputs.3={name: c}"], faults)
    assert "there is no section 'build.outputs'" in faults[0]


def test_resolved_parts_are_plain_values():
    parts = resolved(Config(), "seed", "sampling.top_p", "verify")
    assert parts["seed"] == 0 and parts["sampling.top_p"] == 1.0 and parts["verify"]["workers"] == 2
    with pytest.raises(AttributeError):
        resolved(Config(), "sampling.topp")


def test_a_command_takes_its_own_keys_and_the_configurations(tmp_path):
    path = str(write(tmp_path, ""))
    config, own = read_command("usage", own=("model",), argv=[path, "seed=2", "model=reasoner"])
    assert config.seed == 2 and own == {"model": "reasoner"}
    with pytest.raises(ValueError, match=r"missing: model=\.\.\."):
        read_command("usage", own=("model",), argv=[path])
    with pytest.raises(ValueError, match=r"first argument must be a pipeline\.yaml"):
        read_command("usage", argv=["seed=2"])
    with pytest.raises(SystemExit):
        read_command("usage", argv=["--help"])
