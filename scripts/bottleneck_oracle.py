"""What the symbols of phase A carry to the answer while the chain is in view (docs/abstract.md)."""

from pathlib import Path

from variational_reasoning.pipeline.commands import read_command, run_command
from variational_reasoning.pipeline.oracle import describe_oracle, measure_oracle
from variational_reasoning.pipeline.work.timings import timed

USAGE = """usage: python scripts/bottleneck_oracle.py CONFIG.yaml model=FOLDER|NAME name=NAME [key=value ...]
For a model that was trained under the bottleneck mask: it writes symbols with the chain in view, and the answer is
read without it. Prints the share of right answers to the test questions.
reads run_dir/questions; writes run_dir/evals/NAME/oracle.json"""


def main() -> None:
    config, own = read_command(USAGE, own=("model", "name"))
    with timed(config.run_dir, f"oracle_{own['name']}"):
        folder = Path(own["model"])
        if not folder.is_dir():
            folder = config.model_folder(own["model"])
        result = measure_oracle(config, folder, own["name"])
    print(describe_oracle(own["name"], result))


if __name__ == "__main__":
    run_command(main)
