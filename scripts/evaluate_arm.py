"""All that is asked of one arm, in one process: accuracy, tokens, controls (docs/abstract.md)."""

import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from variational_reasoning.pipeline.commands import read_command, run_command
from variational_reasoning.pipeline.controls.describe import describe_controls
from variational_reasoning.pipeline.controls.result import run_controls
from variational_reasoning.pipeline.evaluate import Model
from variational_reasoning.pipeline.work.timings import timed

USAGE = """usage: python scripts/evaluate_arm.py CONFIG.yaml model=FOLDER|NAME name=NAME [key=value ...]
The evaluation of a model (evals/run.py), its answers after other traces (scripts/trace_controls.py) and, with
sequence.sampled_at, the evaluation at that temperature, NAME_sampled. A model with symbols is loaded once for each.
reads run_dir/questions; writes run_dir/evals"""


def main() -> None:
    # The questions and the model are those of evals/run.py, which knows the benchmarks.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "evals"))
    import run as evaluation
    from variational_evals.model_folders import find_model

    config, own = read_command(USAGE, own=("model", "name"))
    name = evaluation.checked_name(own["name"])
    for line in evaluation.run(config, own["model"], name):
        print(line)
    folder, renderer = find_model(config, own["model"])
    model = Model(name, folder, renderer, config)
    with timed(config.run_dir, f"controls_{name}"), closing(model):
        result = run_controls(evaluation.own_benchmark(config, name, with_chains=True), model)
    if result is not None:  # other processes have shards of it otherwise
        print(describe_controls(name, result))
    if config.sequence.sampled_at is not None:
        sampled = replace(config.eval, temperature=config.sequence.sampled_at)
        for line in evaluation.run(replace(config, eval=sampled), own["model"], f"{name}_sampled"):
            print(line)


if __name__ == "__main__":
    run_command(main)
