"""The folder of the model that `model=` names: here, in the run, or downloaded from the hub."""

import difflib
import os
from dataclasses import replace
from pathlib import Path

from variational_evals.hub import network_errors
from variational_evals.models import (
    POSTERIORS,
    REASONERS,
    reasoner_renderer,
    tensor_parallel_size,
)
from variational_reasoning.method.prompts import Renderer
from variational_reasoning.pipeline.config import Config
from variational_reasoning.pipeline.engines import engine_name
from variational_reasoning.pipeline.evaluate import recorded_renderer

HUB = "hub:"
"""A name with this prefix is one of the hub, even if a folder has the same name."""


def find_model(config: Config, named: str) -> tuple[Path, Renderer]:
    """The folder that `model=` names, downloaded from the hub if needed, and its prompts.

    `a/b` is a folder, or else a name on the hub. If there is a folder `a` without `b`, the path is
    mistyped, and the hub is not asked.

    Raises: ValueError for a model that does not exist, or that does not show that it knows the
        reasoner's prompt.
    """
    if not named.startswith(HUB):
        folder = Path(named) if Path(named).is_dir() else config.model_folder(named)
        if folder.is_dir():
            _refuse_no_model(folder)
            return folder, recorded_renderer(folder, config)
        owner, slash, rest = named.partition("/")
        is_path = not slash or "/" in rest or not rest or owner.startswith((".", "~"))
        if is_path or not owner or Path(owner).is_dir():
            raise ValueError(_no_such_folder(named, folder))
    return download_model(config, named.removeprefix(HUB))


def download_model(config: Config, name: str) -> tuple[Path, Renderer]:
    """The folder of a model of the hub in the local cache, and its prompts.

    Raises: ValueError for a model that cannot be downloaded or evaluated.
    """
    renderer = reasoner_renderer(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
    )

    print(f"there is no folder {name} here; looking for it on the hub")
    near = difflib.get_close_matches(name, [*REASONERS, *POSTERIORS], n=1, cutoff=0.8)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    try:
        if renderer is None:  # read its record, if it has one, before gigabytes of weights
            folder = Path(snapshot_download(name, allow_patterns=["*.json"]))
            renderer = recorded_renderer(folder, config)
        return Path(snapshot_download(name)), renderer
    except GatedRepoError as error:
        why = "it is gated: accept its terms on the hub, then run `hf auth login`"
        raise ValueError(_not_downloaded(name, why, hint)) from error
    except RepositoryNotFoundError as error:
        why = "the hub has no model of this name, or it is private (`hf auth login`)"
        raise ValueError(_not_downloaded(name, why, hint)) from error
    except HFValidationError as error:
        why = f"it is not a name there ({error})"
        raise ValueError(_not_downloaded(name, why, hint)) from error
    except network_errors() as error:
        why = f"the hub does not answer, and it is not in the cache ({type(error).__name__})"
        raise ValueError(_not_downloaded(name, why, hint)) from error


def with_parallelism(config: Config, folder: Path) -> Config:
    """The configuration with the number of GPUs that one copy of the model takes. Prints it."""
    size = config.eval.tensor_parallel_size
    if size is None or engine_name(config) != "vllm":
        return config
    if size == 0:
        num_processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        size = tensor_parallel_size(str(folder), num_processes)
        print(f"tensor_parallel_size {size}; another: eval.tensor_parallel_size=N")
    return replace(config, sampling=replace(config.sampling, tensor_parallel_size=size))


def _refuse_no_model(folder: Path) -> None:
    names = ("config.json", "adapter_config.json")
    if any((folder / name).is_file() for name in names):
        return
    found = sorted(path.name for path in folder.iterdir())
    if not found:
        raise ValueError(f"the model folder {folder} is empty; did its training or download end?")
    models = [name for name in found if (folder / name / "config.json").is_file()]
    hint = f"; it has the models {', '.join(models[:5])} in it" if models else ""
    listed = ", ".join(found[:5])
    if len(found) > 5:
        listed += ", ..."
    raise ValueError(f"{folder} holds no model: it has no config.json, only {listed}{hint}")


def _no_such_folder(named: str, in_run: Path) -> str:
    """Why `model=` is refused where it does not name a folder, and what may have been meant."""
    tried = [Path(named)]
    if not tried[0].is_absolute():
        tried.append(in_run)
    near = []
    for path in tried:
        if not path.parent.is_dir():
            continue
        folders = [each.name for each in path.parent.iterdir() if each.is_dir()]
        for name in difflib.get_close_matches(path.name, folders, n=1):
            near.append(path.parent / name)
    hint = f"; did you mean {str(near[0])!r}?" if near else ""
    where = " and ".join(f"{str(path)!r}" for path in tried)
    return (
        f"model={named!r} is not a folder: {where} do not exist{hint} "
        f"(a model of the hub: model={HUB}OWNER/NAME)"
    )


def _not_downloaded(name: str, why: str, hint: str) -> str:
    return f"model={name!r} is not a folder, and cannot be downloaded from the hub: {why}{hint}"
