"""The whole sequence, stages 0 to 9, evaluation and report: `python scripts/run.py PROFILE`; the
list: scripts/sequence.py.
"""

import os
import subprocess
import sys
from pathlib import Path

from sequence import read_plan, report_failure, run_all
from sequence_arms import run_arms

from variational_reasoning.pipeline.commands import run_command

USAGE = """usage: python scripts/run.py PROFILE [run=DIR] [seed=N] [base=MODEL] [rounds=T] [carry=NAME] [finals=NAME,...]
                             [hints=NAME,...] [gpus=N] [dry_run=true] [key=value ...]
PROFILE is a folder of examples/variational_reasoning, such as tiny, or the path of a folder with a pipeline.yaml;
key=value go to all stages between the trainings. What else a profile needs is in the section `sequence` of its pipeline.yaml.
run      folder of round 1, the profile's run_dir by default; round t > 1 is in DIR/round<t>
base     the model that all trainings start from, in place of the one that the YAMLs name
finals   the trainings of stage 9, every 9_train_*.yaml of the profile by default
carry    the final model that is the next round's reasoner, sequence.carry or the first of finals by default
hints    controls of the posterior's hint in round 1: answer, other_question, none
gpus     accepted and not needed: the trainings have their batch on any number of GPUs (rows_per_step)
dry_run  prints all commands and runs none; those whose results are in the folder already end with `# done`
posterior_prompt is stage 2's prompt_kind too; a model that models.reasoner or models.posterior names is not trained.
posterior=prompted and posterior=own_traces start from questions without traces (docs/own_questions.md).
TRAIN_COMMAND takes the place of `llamafactory-cli train`; for several nodes:
TRAIN_COMMAND="sbatch --wait examples/variational_reasoning/slurm_train.sh" python scripts/run.py ...
Where LLaMA-Factory starts torchrun itself (several GPUs), it splits its arguments at spaces: no path may have one there."""


PATHS = ("base", "data.train", "data.test", "models.reasoner", "models.posterior")
"""Keys whose values may be paths."""


def resolve_typed(words: list[str]) -> list[str]:
    """The command line, with paths relative to the folder where it was typed made absolute.

    Typed in /home/me, where my/questions.jsonl is:

        data.train=my/questions.jsonl    ->  data.train=/home/me/my/questions.jsonl
        data.train=reasoning_gym:NAME    as it is, since there is no such file
    """
    profile, *pairs = words
    if (Path(profile) / "pipeline.yaml").is_file():
        profile = str(Path(profile).resolve())
    resolved = [profile]
    for pair in pairs:
        key, _, value = pair.partition("=")
        if key in PATHS and value and Path(value).exists():
            pair = f"{key}={Path(value).resolve()}"
        resolved.append(pair)
    return resolved


def main() -> None:
    words = sys.argv[1:]
    if not words or {"-h", "--help"} & set(words):
        print(USAGE, file=sys.stdout if words else sys.stderr)
        raise SystemExit(0 if words else 2)
    root = Path(__file__).resolve().parents[1]
    if Path.cwd() != root:
        words = resolve_typed(words)
    os.chdir(root)
    try:
        plan = read_plan(words)
        run_profile = run_arms if plan.config.arms else run_all
        is_evaluated = run_profile(plan)
    except subprocess.CalledProcessError as error:
        report_failure(error)
        raise SystemExit(error.returncode if error.returncode > 0 else 1) from None
    raise SystemExit(0 if is_evaluated else 1)


if __name__ == "__main__":
    run_command(main)
