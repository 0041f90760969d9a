"""What scripts/run.py and k_scaling.sh would run for the recipes, and what run.py refuses;
test_end_to_end runs tiny's.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from variational_reasoning.pipeline.config import load_config

ROOT = Path(__file__).parents[2]
RECORDER = """#!/usr/bin/env bash
echo "$(basename "$0") $*" >>"$RECORD"
[[ $1 != scripts/trained.py ]]
"""


@pytest.fixture
def run_profile():
    """scripts/run.py in a process of its own."""

    def run(*words: str, **variables: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "scripts/run.py", *words]
        environment = os.environ | variables
        return subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run


@pytest.fixture
def commands(run_profile, tmp_path):
    """The commands of a profile in a run folder of its own, as words."""

    def planned(profile: str, *more: str, **variables: str) -> list[list[str]]:
        done = run_profile(profile, f"run={tmp_path}/run", "dry_run=true", *more, **variables)
        assert done.returncode == 0, done.stderr
        assert not (tmp_path / "run").exists()
        return [
            words
            for line in done.stdout.splitlines()
            if (words := shlex.split(line))[0] != "nothing"
        ]

    return planned


def trainings(lines: list[list[str]]) -> dict[str, dict[str, str]]:
    """Output folder, below the run's, to the overrides of its training."""
    found = [
        dict(word.split("=", 1) for word in line[3:])
        for line in lines
        if line[:2] == ["llamafactory-cli", "train"] and len(line) > 3
    ]
    return {str(Path(*Path(values["output_dir"]).parts[-2:])): values for values in found}


def test_the_other_template_reaches_stage_2_and_the_pipeline(commands, monkeypatch):
    monkeypatch.chdir(ROOT)
    lines = commands("qwen2_5_7b", "base=/models/base", "posterior_prompt=posterior_b")
    trained = trainings(lines)
    assert sorted(trained) == [
        "models/final_acc",
        "models/final_gml",
        "models/posterior",
        "models/reasoner",
    ]
    assert {name: values.get("prompt_kind") for name, values in trained.items()} == {
        "models/final_acc": None,
        "models/final_gml": None,
        "models/posterior": "posterior_b",
        "models/reasoner": None,
    }
    assert {values["model_name_or_path"] for values in trained.values()} == {"/models/base"}
    stages = [
        line for line in lines if line[1] in ("scripts/prepare_data.py", "scripts/sample_traces.py")
    ]
    assert [load_config(line[2], line[3:]).posterior_prompt for line in stages] == [
        "posterior_b"
    ] * 2


def test_named_models_are_not_trained_again(commands):
    named = [
        "models.reasoner=runs/qwen2_5_7b/models/reasoner",
        "models.posterior=runs/qwen2_5_7b/models/posterior",
    ]
    lines = commands("qwen2_5_7b_1k", *named)
    assert sorted(trainings(lines)) == [
        f"models/{n}" for n in ("final_acc", "final_gml", "final_likelihood", "sft")
    ]
    assert all(set(named) < set(line) for line in lines if line[1] == "scripts/sample_answers.py")


def test_adapters_are_merged_before_they_are_used(commands):
    lines = commands("qwen3_8b_lora", "base=/models/base")
    names = ["reasoner", "posterior", "final_acc", "final_gml"]
    assert list(trainings(lines)) == [f"adapters/{name}" for name in names]
    order = [line[2].rpartition("/")[2] for line in lines if line[0] == "llamafactory-cli"]
    assert order[::2] == [
        "1_train_reasoner.yaml",
        "2_train_posterior.yaml",
        *(f"9_train_{name}.yaml" for name in names[2:]),
    ]
    assert order[1::2] == ["export.yaml"] * 4
    for name, line in zip(names, [line for line in lines if line[1] == "export"], strict=True):
        values = dict(word.split("=", 1) for word in line[3:])
        assert values["adapter_name_or_path"].endswith(f"/run/adapters/{name}")
        assert (
            values["export_dir"].endswith(f"/run/models/{name}")
            and values["model_name_or_path"] == "/models/base"
        )
    first_use = next(i for i, line in enumerate(lines) if line[1] == "scripts/sample_traces.py")
    assert [line[1] for line in lines[:first_use]].count("export") == 2


def test_another_number_of_gpus_changes_no_command(commands):
    # rows_per_step is the batch on any number of GPUs.
    assert commands("qwen3_4b", "gpus=4", "finals=final_gml") == commands(
        "qwen3_4b", "finals=final_gml"
    )


def test_base_takes_the_place_of_the_model_that_a_start_from_questions_names_twice(commands):
    lines = commands("qwen3_4b_think", "base=/models/base")
    stages = [line for line in lines if line[1] == "scripts/sample_traces.py"]
    assert all(
        {"base=/models/base", "models.reasoner=/models/base"} <= set(line) for line in stages
    )
    assert list(trainings(lines)) == ["models/final_acc"]
    lines = commands("qwen3_4b_think_lora", "base=/models/base", "posterior=own_traces")
    assert list(trainings(lines)) == ["adapters/posterior", "adapters/final_acc"]


def test_several_nodes(commands):
    lines = commands(
        "qwen2_5_32b", TRAIN_COMMAND="sbatch --wait examples/variational_reasoning/slurm_train.sh"
    )
    jobs = [line for line in lines if line[0] == "sbatch"]
    assert [line[3].rpartition("/")[2] for line in jobs] == [
        *(
            "1_train_reasoner.yaml",
            "2_train_posterior.yaml",
            "9_train_final_acc.yaml",
            "9_train_final_gml.yaml",
        ),
    ]
    assert {line[2] for line in jobs} == {
        "examples/variational_reasoning/slurm_train.sh"
    } and not trainings(lines)


def test_two_rounds(commands):
    lines = commands("tiny", "rounds=2", "seed=3", "finals=final_acc_mixed,final_acc_weighted")
    stages = [
        (Path(line[1]).stem, dict(word.split("=", 1) for word in line[3:]))
        for line in lines
        if line[0] == "python"
    ]
    rounds = [stages[i:] for i, (name, _) in enumerate(stages) if name == "prepare_data"]
    second = [(name, values) for name, values in rounds[1] if name != "report"]
    assert {values["seed"] for _, values in second} == {"1003"}
    assert [
        name for name, values in second if values.get("sampling.traces_from") == "reasoner"
    ] == [
        *("sample_traces", "sample_answers", "verify_answers", "build_dataset"),
    ]
    assert [values["model"] for name, values in second if name == "score_traces"] == [
        "reasoner",
        "posterior",
    ]
    assert sorted(
        values["name"] for name, values in rounds[0] if name == "run" and values["seed"] == "3"
    ) == [
        *("base", "final_acc_mixed", "final_acc_weighted", "reasoner"),
    ]
    started = [
        values.get("model_name_or_path", "").rpartition("/run/")[2]
        for values in trainings(lines).values()
    ]
    carried = "models/final_acc_weighted"
    assert started[-3:] == [
        "models/posterior",
        carried,
        carried,
    ]  # the posterior from the one before, the finals from the carried


def stages_of(lines: list[list[str]]) -> list[tuple[str, dict[str, str]]]:
    """Script and settings of the stages between the trainings."""
    return [
        (Path(line[1]).stem, dict(word.split("=", 1) for word in line[3:]))
        for line in lines
        if line[0] == "python"
    ]


@pytest.mark.parametrize("profile", ["qwen3_4b", "qwen3_8b_lora"])
def test_two_rounds_of_a_profile_without_a_yaml_for_them(commands, profile):
    lines = commands(profile, "rounds=2", "base=/models/base")
    [build] = [
        line
        for line in lines
        if line[1] == "scripts/build_dataset.py" and "sampling.traces_from=reasoner" in line
    ]
    config = load_config(ROOT / build[2], build[3:])
    [output] = [output for output in config.build.outputs if config.is_of_these_traces(output)]
    assert (output.name, output.target, output.ratio) == ("posterior_weighted", "posterior", "none")
    taught = [values for values in trainings(lines).values() if "dataset" in values]
    assert [values["dataset"] for values in taught] == [f"{profile}_posterior_weighted"]
    assert taught[0]["model_name_or_path"].endswith("run/models/posterior")
    recipes = [line[2].rpartition("/")[2] for line in lines if line[:2] == RUNS_TRAINING]
    assert recipes.count("2_train_posterior.yaml") == 2


RUNS_TRAINING = ["llamafactory-cli", "train"]
FROM_QUESTIONS = ["models.reasoner=/models/instruct", "models.allow_unrecorded=true"]


def test_a_prompted_posterior_is_the_reasoner_and_nothing_is_trained_before_stage_9(commands):
    lines = commands("qwen3_4b", "posterior=prompted", *FROM_QUESTIONS, "rounds=2")
    assert [name.rpartition("/")[2] for name in trainings(lines)] == ["final_acc", "final_gml"] * (
        len(trainings(lines)) // 2
    )
    stages = stages_of(lines)
    assert not [name for name, values in stages if "sampling.traces_from" in values]
    named = [values.get("models.reasoner") for name, values in stages if name == "sample_traces"]
    assert named[0] == "/models/instruct" and named[1].endswith("/run/models/final_acc")
    for line in lines:
        if line[1] == "scripts/score_traces.py":
            words = [word for word in line[3:] if not word.startswith("model=")]
            config = load_config(ROOT / line[2], words)
            assert config.model_folder("posterior") == config.model_folder("reasoner")


def test_a_posterior_of_own_traces_is_taught_in_round_1(commands):
    lines = commands("qwen3_4b", "posterior=own_traces", *FROM_QUESTIONS)
    trained = trainings(lines)
    assert sorted(trained) == ["models/final_acc", "models/final_gml", "models/posterior"]
    assert trained["models/posterior"]["model_name_or_path"] == "/models/instruct"
    assert trained["models/posterior"]["dataset"] == "qwen3_4b_posterior_weighted"
    own = [
        name
        for name, values in stages_of(lines)
        if values.get("sampling.traces_from") == "reasoner"
    ]
    assert own == ["sample_traces", "sample_answers", "verify_answers", "build_dataset"]


def test_hints_are_sampled_with_the_reference_and_nothing_is_built_from_them(commands):
    plain = stages_of(commands("tiny"))
    more = stages_of(commands("tiny", "hints=answer,none"))
    kinds = [values.get("sampling.hint") for name, values in more if name == "sample_traces"]
    assert kinds == [None, "answer", "none"]
    assert len(more) == len(plain) + 2 * 5  # stages 3 to 7 of two kinds
    built = [values for name, values in more if name == "build_dataset"]
    assert len(built) == 1 and "sampling.hint" not in built[0]


@pytest.mark.parametrize("score_only", ["all", "verified"])
def test_scores_of_verified_traces_wait_for_the_verdicts(commands, score_only):
    lines = commands("tiny", "finals=final_acc_weighted", f"scoring.score_only={score_only}")
    names = [Path(line[1]).stem for line in lines]
    first = names.index("sample_traces") + 1
    scores, verdicts = ["score_traces"] * 2, ["sample_answers", "verify_answers"]
    order = [*verdicts, *scores] if score_only == "verified" else [*scores, *verdicts]
    assert names[first : first + 5] == [*order, "build_dataset"]


def test_rejection_sampling_alone_has_no_posterior(commands):
    output = "{name: final_acc_weighted, traces_from: reasoner, ratio: none, selection: weighted}"
    words = ["finals=final_acc_weighted", f"build.outputs.2={output}"]
    lines = commands("tiny", "rounds=2", *words)
    trained = {name.rpartition("/")[2] for name in trainings(lines)}
    assert trained == {"reasoner", "final_acc_weighted"}
    samplers = [
        values.get("sampling.traces_from")
        for name, values in stages_of(lines)
        if name in ("sample_traces", "score_traces", "sample_answers")
    ]
    assert samplers == ["reasoner"] * 4
    with_hints = trainings(commands("tiny", "hints=none", *words))
    assert any(name.endswith("models/posterior") for name in with_hints)


def test_starts_that_do_not_fit_are_refused_together(run_profile):
    done = run_profile("tiny", "rounds=2", "carry=nothing", "hints=wrong,answer", "dry_run=true")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "needs carry=nothing among the finals" in done.stderr
    assert "hints: wrong is not among answer, none, other_question" in done.stderr
    done = run_profile("tiny", "posterior=prompted", "models.posterior=/some", "dry_run=true")
    assert done.returncode == 2 and "models.posterior: '/some' would not be used" in done.stderr


def test_paths_may_have_spaces(commands, tmp_path):
    named = ["base=/my models/base", "data.train=/my data/rows.jsonl", f"run={tmp_path}/a run"]
    lines = commands("qwen3_4b", *named)
    assert {values["model_name_or_path"] for values in trainings(lines).values()} == {
        "/my models/base"
    }
    assert all(
        f"run_dir={tmp_path}/a run" in line
        for line in lines
        if line[1] == "scripts/build_dataset.py"
    )
    assert lines[-1] == ["python", "scripts/report.py", f"{tmp_path}/a run"]


@pytest.fixture
def written_profile(tmp_path):
    """A profile in a folder of its own, whose name has a space."""
    folder = tmp_path / "my profiles" / "mine"
    folder.mkdir(parents=True)
    (folder / "pipeline.yaml").write_text(
        "run_dir: runs/mine\nbase: /models/base\n"
        "data: {name: mine, train: runs/mine/source/rows.jsonl, test: /data/test.jsonl}\n"
        "build: {outputs: [{name: final_acc}, {name: final_gml, estimator: gml}]}\n"
        "sequence:\n"
        '  before: ["python {profile}/task.py run={run} seed={seed}", "echo \'two words\'"]\n'
        "  carry: final_gml\n",
        encoding="utf-8",
    )
    for name in ("0_pretrain_base", "1_train_reasoner", "2_train_posterior"):
        (folder / f"{name}.yaml").write_text("rows_per_step: 4\n", encoding="utf-8")
    for name in ("acc", "gml"):
        (folder / f"9_train_final_{name}.yaml").write_text("rows_per_step: 4\n", encoding="utf-8")
    return folder


def test_a_profile_by_its_path(run_profile, written_profile, tmp_path):
    done = run_profile(str(written_profile), f"run={tmp_path}/a run", "seed=3", "dry_run=true")
    assert done.returncode == 0, done.stderr
    lines = [shlex.split(line) for line in done.stdout.splitlines()]
    assert lines[0] == [
        "python",
        f"{written_profile}/task.py",
        f"run={tmp_path}/a run",
        "seed=3",
    ]
    assert lines[1] == ["echo", "two words"]
    assert lines[2] == ["llamafactory-cli", "train", f"{written_profile}/0_pretrain_base.yaml"]
    stage_0 = dict(word.split("=", 1) for word in lines[3][3:])
    # A file in the run folder follows run=DIR; one that is elsewhere stays.
    assert stage_0["data.train"] == f"{tmp_path}/a run/source/rows.jsonl"
    assert "data.test" not in stage_0
    assert lines[-1] == ["python", "scripts/report.py", f"{tmp_path}/a run"]
    evaluated = [line[-2:] for line in lines if line[1] == "evals/run.py"]
    assert ["model=/models/base", "models.allow_unrecorded=true"] in evaluated


def test_a_path_is_relative_to_where_it_is_typed(written_profile):
    questions = written_profile.parent / "questions.jsonl"
    questions.write_text("{}\n")
    paths = ["data.train=questions.jsonl", "data.test=absent.jsonl", "dry_run=true"]
    command = [sys.executable, str(ROOT / "scripts/run.py"), "mine", *paths]
    done = subprocess.run(
        command,
        cwd=written_profile.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert shlex.split(lines[-1]) == ["python", "scripts/report.py", "runs/mine"]
    settings = {f"data.train={questions}", "data.test=absent.jsonl"}
    assert settings <= set(shlex.split(done.stdout))


def test_a_profile_names_the_model_that_the_next_round_starts_from(run_profile, written_profile):
    (written_profile / "2_train_posterior_weighted.yaml").write_text("rows_per_step: 4\n")
    pipeline = written_profile / "pipeline.yaml"
    learned = "{name: posterior_weighted, target: posterior, ratio: none}]}"
    pipeline.write_text(pipeline.read_text().replace("}]}", "}, " + learned))
    done = run_profile(str(written_profile), "rounds=2", "dry_run=true")
    assert done.returncode == 0, done.stderr
    assert "models.reasoner=runs/mine/models/final_gml" in done.stdout


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ('["python {folder}/x.py"]', "placeholders are {profile}, {run} and {seed}"),
        ('["echo \'a"]', "quotes must be closed"),
        ('[""]', "sequence.before.0: is empty"),
    ],
)
def test_commands_that_cannot_be_read_are_refused(run_profile, tmp_path, before, expected):
    (tmp_path / "pipeline.yaml").write_text(f"sequence: {{before: {before}}}\n")
    (tmp_path / "9_train_final.yaml").write_text("{}\n")
    done = run_profile(str(tmp_path), "dry_run=true")
    assert done.returncode == 2 and expected in done.stderr and "Traceback" not in done.stderr


def documented() -> list[str]:
    """Every call of run.py with a profile of its own that a README, a page of docs/ or a YAML's
    header shows.
    """
    files = [
        ROOT / "README.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
        *(ROOT / "examples").rglob("*.yaml"),
    ]
    calls = []
    for path in files:
        text = re.sub(r"\\\n[# ]*", "", path.read_text(encoding="utf-8"))  # continued lines are one
        calls += re.findall(r"run\.py ([a-z][\w]* ?[^`\n]*)", text)
    return sorted(
        {re.sub(r"\$\([^)]*\)|\$base", "MODEL", call).strip() for call in calls if profile_of(call)}
    )


def profile_of(call: str) -> bool:
    return (ROOT / "examples/variational_reasoning" / call.split()[0] / "pipeline.yaml").is_file()


@pytest.mark.parametrize("call", documented())
def test_the_documented_calls_are_accepted(run_profile, call):
    done = run_profile(*call.split(), "dry_run=true")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("python scripts/report.py ")


def test_the_documentation_shows_every_variant():
    assert len(documented()) >= 8


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "usage: python scripts/run.py PROFILE"),
        (["nope"], "'nope' is not a profile; there are qwen2_5_32b, "),
        (["tiny", "foo"], "not of the form key=value: 'foo'"),
        (["tiny", "rounds=0"], "rounds=0 is not a whole number from 1"),
        (
            ["qwen3_4b", "rounds=2", "finals=final_acc", "carry=final_gml"],
            "needs carry=final_gml among the finals final_acc",
        ),
        (
            ["tiny", "rounds=2", "finals=final_acc_mixed"],
            "carry=final_acc_weighted among the finals final_acc_mixed",
        ),
        (["tiny", "finals=final_best"], "no 9_train_*.yaml for final_best"),
        (["tiny", "sampling.num_trace=4", "seed=1"], "did you mean 'sampling.num_traces'?"),
        (["qwen3_4b", "gpus=0"], "gpus=0 is not a whole number from 1"),
        (["tiny", "dry_run=yes"], "dry_run is 'yes'"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(run_profile, tmp_path, words, expected):
    done = run_profile(*words[:1], *([f"run={tmp_path}/run"] if words else []), *words[1:])
    assert done.returncode == 2 and expected in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_failed_command_is_named_and_ends_the_run(run_profile, tmp_path):
    done = run_profile("qwen3_4b", f"run={tmp_path}/run", "data.train=none.jsonl")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        "failed with exit code 2: python scripts/prepare_data.py"
    )


@pytest.fixture
def recorded(tmp_path):
    """Run a shell script with a recorder in place of python and llamafactory-cli, to which no
    training seems finished.
    """

    def run(*words: str, **variables: str) -> list[list[str]]:
        for name in ("python", "llamafactory-cli"):
            (tmp_path / name).write_text(RECORDER, encoding="utf-8")
            (tmp_path / name).chmod(0o755)
        record = tmp_path / "record"
        path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "RECORD": str(record)} | variables
        subprocess.run(
            ["bash", *words],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            check=True,
            timeout=120,
        )
        return [line.split() for line in record.read_text(encoding="utf-8").splitlines()]

    return run


@pytest.mark.parametrize("profile", ["tiny", "tiny_questions"])
def test_a_demo_over_seeds_runs_what_can_be_run(recorded, run_profile, profile):
    lines = recorded("scripts/demo.sh", "2", profile)
    calls = [line[2:] for line in lines if line[1] == "scripts/run.py"]
    assert [call[0] for call in calls] == [profile] * len(calls)
    folders = [f"runs/{profile}", f"runs/{profile}-seed1"]
    wanted = [[f"run={folder}", f"seed={seed}"] for seed, folder in enumerate(folders)]
    assert [call[1:] for call in calls if len(call) == 3] == wanted
    report = ["python", "scripts/report.py", *folders, f"output=runs/{profile}-seeds.md"]
    assert lines[-1] == report
    others = [call for call in calls[: len(calls) // 2] if len(call) > 3]
    assert len(others) == (2 if profile == "tiny_questions" else 0)
    for call in others:
        done = run_profile(*call, "dry_run=true")
        assert done.returncode == 0, done.stderr
        trained = trainings([shlex.split(line) for line in done.stdout.splitlines()])
        assert set(trained) - {"models/reasoner"} in ({"models/final_rft"}, {"models/final_hint"})


def test_k_scaling(recorded, monkeypatch):
    monkeypatch.chdir(ROOT)
    folder = "examples/variational_reasoning/qwen2_5_7b_1k"
    lines = recorded(f"{folder}/k_scaling.sh", "seed=1", BASE="/models/base", ESTIMATOR="gml")
    config = load_config(lines[0][2], lines[0][3:])
    assert (config.base, config.seed, config.run_dir) == ("/models/base", 1, "runs/qwen2_5_7b_k")
    trained = trainings(lines)
    built = {f"{config.data.name}_{output.name}": output for output in config.build.outputs}
    assert [built[values["dataset"]].num_traces for values in trained.values()] == [
        1,
        2,
        4,
        8,
        16,
        32,
    ]
    assert {built[values["dataset"]].estimator for values in trained.values()} == {"gml"}
    assert {values["dataset_dir"] for values in trained.values()} == {f"{config.run_dir}/train"}
    batches = [values["rows_per_step"] for values in trained.values()]
    assert batches == [str(16 * k) for k in (1, 2, 4, 8, 16, 32)]
