"""A profile for your own questions and model: a folder with a pipeline.yaml and its training YAMLs.

Reads the model's config.json and tokenizer and the data, says everything that will not work, and
writes nothing then. Otherwise it prints what it chose and why, what to check, and the next command.
"""

import shlex
import sys
from pathlib import Path

from variational_reasoning.pipeline.commands import run_command
from variational_reasoning.pipeline.options import read_options
from variational_reasoning.pipeline.profiles.choose import choose
from variational_reasoning.pipeline.profiles.options import ProfileOptions
from variational_reasoning.pipeline.profiles.write import write_profile

ROOT = Path(__file__).resolve().parents[1]
USAGE = """usage: python scripts/new_profile.py NAME base=FOLDER data=FILE [key=value ...]
NAME        writes profiles/NAME; with a slash, the folder of that path
base        the folder of the model to start from
data        a .jsonl, .json or .parquet file, a folder, or reasoning_gym:TASK; allow_hub=true for a hub data set
test        questions for the evaluation, in the same form; without it, a tenth of the data, test_size at most (200)
question, gold, solution, trace   names of the data's columns, where they are not guessed
check_kind  math or exact; by default from the golds
start       questions, or traces where the data has a column of them
posterior   of start=questions: prompted or own_traces (docs/own_questions.md)
family      think, paper or a .yaml file; instruction: a text after each question, or none
chat_format by default the model's own template, else the format whose tokens it knows
gpus        1 by default; 0 for a CPU; gpu_gb: memory of one, 24 by default
lora        auto, true or false; auto: where full fine-tuning does not fit
cutoff_len, num_traces (8), num_answers (8), epochs (3), train_size (1000, of reasoning_gym)"""


def main() -> None:
    words = sys.argv[1:]
    if not words or "=" in words[0] or words[0].startswith("-"):
        print(USAGE, file=sys.stderr if not {"-h", "--help"} & set(words) else sys.stdout)
        raise SystemExit(0 if {"-h", "--help"} & set(words) else 2)
    place = words[0].rstrip("/")
    folder = Path(place) if "/" in place else Path("profiles", place)
    options = read_options(USAGE, ProfileOptions, words[1:])
    choices = choose(folder.name, folder, options, ROOT)
    paths = write_profile(choices)
    print("chosen:")
    print("".join(f"  {reason}\n" for reason in choices.reasons), end="")
    print(f"wrote {folder}: {', '.join(path.name for path in paths)}")
    print("check:")
    notes = [*choices.notes, "the learning rate, rows_per_step and the prompts are not tuned"]
    print("".join(f"  {note}\n" for note in notes), end="")
    # With the path of scripts/ as it was typed, so that the lines can be pasted where they appear.
    command = shlex.join(["python", str(Path(sys.argv[0]).with_name("run.py")), str(folder)])
    print(f"next:\n  {command} dry_run=true\n  {command}")


if __name__ == "__main__":
    run_command(main)
