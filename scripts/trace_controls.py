"""Does a model use its trace? Its answers after other traces than its own (docs/abstract.md)."""

import sys
from contextlib import closing
from pathlib import Path

from variational_reasoning.pipeline.commands import read_command, run_command
from variational_reasoning.pipeline.controls.describe import describe_controls
from variational_reasoning.pipeline.controls.result import run_controls
from variational_reasoning.pipeline.evaluate import Model
from variational_reasoning.pipeline.work.timings import timed

USAGE = """usage: python scripts/trace_controls.py CONFIG.yaml model=FOLDER|NAME name=NAME [key=value ...]
For a model whose evaluation NAME is done: its answers to the same questions when the trace is another question's,
random, shuffled, changed in one token, left out, or the one that the question's verbal chain gives. A model that
uses its trace loses its accuracy. Traces of words and of symbols; section eval.controls of CONFIG.yaml.
reads run_dir/evals/NAME; writes controls/ and controls.json there. Run again, it goes on where it was."""


def main() -> None:
    # The questions and the model are those of evals/run.py, which knows the benchmarks.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "evals"))
    import run as evaluation
    from variational_evals.model_folders import find_model, with_parallelism

    config, own = read_command(USAGE, own=("model", "name"))
    name = evaluation.checked_name(own["name"])
    folder, renderer = find_model(config, own["model"])
    model = Model(name, folder, renderer, with_parallelism(config, folder))
    benchmarks = evaluation.benchmarks_of(config, name, with_chains=True)
    with timed(config.run_dir, f"controls_{name}"), closing(model):
        for benchmark in benchmarks:
            result = run_controls(benchmark, model)
            if result is None:
                print(f"{benchmark.folder}: other processes' shards are still missing")
            else:
                print(describe_controls(benchmark.task or name, result))


if __name__ == "__main__":
    run_command(main)
