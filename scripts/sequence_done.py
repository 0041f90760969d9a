"""Which commands of a sequence have their results already, for dry_run: by the files alone, which
each command writes last.

    python scripts/sample_traces.py ... run_dir=runs/a     runs/a/traces/manifest.json
    llamafactory-cli train ... output_dir=runs/a/models/b  runs/a/models/b/train_results.json

Whether these fit the inputs of today is asked by the command itself when it runs.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from variational_reasoning.pipeline.config import Config, load_config
from variational_reasoning.pipeline.rows import MANIFEST

TABLES = {
    "prepare_data": "questions",
    "sample_traces": "traces",
    "sample_answers": "answers",
    "verify_answers": "verdicts",
}
"""Scripts that write one table, and its folder."""

OWN_WORDS = (
    "model",
    "name",
    "names",
    "out",
    "symbols",
    "init",
    "clusters",
    "noise",
    "untie",
)
"""What a script takes that is not a key of a pipeline.yaml."""


def is_done(command: Sequence[str]) -> bool:
    """Whether all files that a command writes last are there; False where it has no such file."""
    files = last_files(command)
    if not files:
        return False
    return all(path.is_file() for path in files)


def last_files(command: Sequence[str]) -> list[Path]:
    """What a command writes last; nothing for a report, or a command of the profile's own."""
    pairs = _pairs(command)
    if "export_dir" in pairs:
        return [Path(pairs["export_dir"], "config.json")]
    if "output_dir" in pairs:
        return [Path(pairs["output_dir"], "train_results.json")]
    script = Path(command[1])
    if script.stem == "extend_vocabulary":
        return [Path(pairs["out"], "config.json")]
    is_ours = script.parent.name in ("scripts", "evals")
    if not is_ours or not command[2].endswith(".yaml"):
        return []
    settings = []
    for key, value in pairs.items():
        if key not in OWN_WORDS:
            settings.append(f"{key}={value}")
    config = load_config(command[2], settings)
    if script.parent.name == "evals":
        return [config.folder("evals", pairs["name"], "result.json")]
    return _of_stage(script.stem, config, pairs)


def _pairs(command: Sequence[str]) -> dict[str, str]:
    """The key=value among the words of a command; of a key given twice, the last."""
    pairs = {}
    for word in command:
        if "=" in word:
            key, value = word.split("=", 1)
            pairs[key] = value
    return pairs


def _of_stage(stage: str, config: Config, pairs: Mapping[str, str]) -> list[Path]:
    """What the script of a stage writes last.

    Args:
        stage: the name of its script. pairs: the command's key=value.
    """
    if stage in TABLES:
        return [config.folder(TABLES[stage], MANIFEST)]
    if stage == "score_traces":
        return [config.folder("trace_logps", pairs["model"], MANIFEST)]
    if stage == "cluster_steps":
        return [config.folder("step_clusters", "clusters.json")]
    if stage == "bottleneck_oracle":
        return [config.folder("evals", pairs["name"], "oracle.json")]
    if stage == "evaluate_arm":
        return _of_evaluation(config, pairs["name"])
    if stage == "build_arms":
        names = pairs["names"].split(",")
        return [config.train_file(name) for name in names]
    if stage == "build_dataset":
        outputs = [each for each in config.build.outputs if config.is_of_these_traces(each)]
        return [config.train_file(output.name) for output in outputs]
    return []


def _of_evaluation(config: Config, name: str) -> list[Path]:
    files = [config.folder("evals", name, "controls.json")]
    if config.sequence.sampled_at is not None:
        sampled = f"{name}_sampled"
        files.append(config.folder("evals", sampled, "result.json"))
    return files
