"""The cards (README.md) next to a run's train files and next to every model that was trained in it."""

from variational_reasoning.pipeline.commands import read_command, run_command
from variational_reasoning.report.cards import UNKNOWN, write_cards

USAGE = """usage: python scripts/write_cards.py CONFIG.yaml [cards.data_license=NAME] [cards.model_license=NAME] [key=value ...]
reads run_dir; writes run_dir/train/README.md and run_dir/models/NAME/README.md in place of the host's. A license that is not
given is written as `unknown`, and such a folder can only be pushed privately"""


def main() -> None:
    config, _ = read_command(USAGE)
    for path in write_cards(config):
        print(f"wrote {path}")
    for name in ("data_license", "model_license"):
        if getattr(config.cards, name) == UNKNOWN:
            print(f"cards.{name} is not set, so these cards say `{UNKNOWN}`")


if __name__ == "__main__":
    run_command(main)
