"""Pushes a folder with a card to the hub, when somebody asks for it; private by default. No other
command does.
"""

from variational_reasoning.pipeline.commands import read_folders, run_command
from variational_reasoning.report.hub import plan_push, push

USAGE = """usage: python scripts/push_to_hub.py FOLDER repo=ACCOUNT/NAME [kind=model|dataset] [private=false] [dry_run=true]
FOLDER is run_dir/train or run_dir/models/NAME, with the card of scripts/write_cards.py. The account's token is the one of
`hf auth login` or HF_TOKEN. private=false needs a license in the card; dry_run=true lists the files and uses no network"""
SWITCHES = {"true": True, "false": False}


def main() -> None:
    folders, options = read_folders(USAGE, ("repo", "kind", "private", "dry_run"))
    faults = []
    for key in ("private", "dry_run"):
        if options.get(key, "true") not in SWITCHES:
            faults.append(f"{key}={options[key]} is neither true nor false")
    if len(folders) != 1 or "repo" not in options:
        faults.append("say one FOLDER and repo=ACCOUNT/NAME")
    if faults:
        raise ValueError("\n".join([*faults, USAGE]))
    private = SWITCHES[options.get("private", "true")]
    plan = plan_push(folders[0], options["repo"], options.get("kind"), private)
    size = sum((plan.folder / name).stat().st_size for name in plan.files)
    print(
        f"{plan.folder}: {len(plan.files)} files, {size / 2**20:.1f} MiB, to the {plan.kind} "
        f"{plan.repo}",
        end=", ",
    )
    print("private" if plan.private else "PUBLIC")
    if SWITCHES[options.get("dry_run", "false")]:
        print("\n".join(plan.files))
        print("nothing was pushed (dry_run)")
        return
    print(f"pushed: {push(plan)}")


if __name__ == "__main__":
    run_command(main)
