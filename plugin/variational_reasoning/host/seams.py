"""Every name of LLaMA-Factory that the plugin replaces or uses.

All of them are checked first, then they are replaced together, once.

    replaced                                 with                    why
    hparams.parser._parse_train_args         parse_train_args        our YAML keys, their checks
    hparams.parser._parse_train_mca_args     refusal of ours         Megatron has its own trainers
    train.tuner._ray_training_function       refusal of ours         Ray workers are not tested
    train.tuner.get_train_args               check_parsed_arguments  unknown launchers, checkpoints
    train.tuner.run_sft                      enter_run_sft           unknown workflows
    train.tuner.export_model                 export_with_record      merged adapters, their record
    data.parser.DatasetAttr.join             join_columns            columns of our formats
    data.loader.align_dataset                align_rows              rows of our formats to texts
    data.loader._get_dataset_processor       row_processor           texts to ids, with weights
    data.loader._get_preprocessed_dataset    preprocess_and_count    counts, weights, C
    train.sft.workflow.CustomSeq2SeqTrainer  choose_trainer          the loss

    added to the host's objects       what it is
    data_args.variational             args.VariationalConfig, our keys, which the host hashes
    finetuning_args.variational       args.VariationalRun, what else a training keeps
    training_args.variational         the same object
    DatasetAttr.variational_columns   `columns` of an entry of dataset_info.json

A replacement calls the original unless a YAML uses our keys or formats. So any other training is
the host's own. If a host does not fit, only its entry is replaced: it refuses YAMLs that use our
features, and only those.
"""

import functools
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from variational_reasoning.host.leaving import wait_for_gloo_at_exit
from variational_reasoning.seam import Seam, faults, replace_all


class HostMismatchError(RuntimeError):
    """The installed LLaMA-Factory lacks a name that the plugin needs."""


_seam = functools.partial(Seam, "llamafactory")


def _parse_train_args(original: Callable) -> Callable:
    @functools.wraps(original)
    def parse_train_args(args: Any = None) -> Any:
        from dataclasses import fields

        from llamafactory.hparams import parser as host
        from transformers import HfArgumentParser

        from variational_reasoning.host import args as ours
        from variational_reasoning.model_record import masked

        raw = host.read_args(args)
        if isinstance(raw, list) and {"-h", "--help"} & set(raw):
            groups: Any = [*host._TRAIN_ARGS, ours.VariationalArguments]
            HfArgumentParser(groups).parse_args_into_dataclasses(raw)
        host_keys = {f.name for group in host._TRAIN_ARGS for f in fields(group)}
        keys, rest, faults = ours.split_arguments(raw, host_keys)
        if not (keys or faults or ours.uses_our_features(raw)):
            return original(args)
        _PARSED.calls += 1
        host_words, given_batch = ours.take_batch_keys(keys, rest)
        parsed = original(host_words)
        model_args, data_args, training_args, finetuning_args, generating_args = parsed
        faults = [*faults, *ours.settle_best_metric(ours.as_mapping(rest), training_args)]
        config = ours.check(
            keys, faults, model_args, data_args, training_args, finetuning_args, given_batch
        )
        if data_args.packing and not data_args.neat_packing:
            # Rows are independent in the loss, so they must not attend to each other in a pack.
            data_args.neat_packing = True
        data_args.variational = config
        run = ours.VariationalRun(
            config,
            yaml=masked(ours.as_mapping(rest) | keys),
            trace_loss_weight=float(keys.get("trace_loss_weight", 1.0)),
            bottleneck_attention=keys.get("bottleneck_attention", ours.AUTO_ATTENTION),
            **ours.step_keys(keys, data_args.cutoff_len),
        )
        if isinstance(config.constant_loss_normalizer, float):
            run.constant_loss_normalizer = config.constant_loss_normalizer
        finetuning_args.variational = training_args.variational = run
        return parsed

    return parse_train_args


class _Parsed:
    """How often this process has parsed arguments with our keys. One counter, `_PARSED`."""

    calls = 0


_PARSED = _Parsed()


def _unknown_launcher(what: str) -> str:
    """The refusal of an unknown launcher. It names the variables that may have chosen it."""
    chosen = []
    for name, value in sorted(os.environ.items()):
        if name.startswith("USE_") and value.lower() in ("1", "true", "y", "yes", "on"):
            chosen.append(f"{name}={value}")
    hint = f"unset {', '.join(chosen)}" if chosen else "use `llamafactory-cli train`"
    return (
        f"variational_reasoning: this launcher reads {what} than LLaMA-Factory's supervised "
        f"fine-tuning does, so it would not train as our keys and formats say; {hint}"
    )


def _check_parsed(original: Callable) -> Callable:
    @functools.wraps(original)
    def check_parsed_arguments(args: Any = None) -> Any:
        """Check that `_parse_train_args` has parsed the arguments of a training of ours."""
        from llamafactory.hparams.parser import read_args

        from variational_reasoning.host.args import uses_our_features

        raw = read_args(args)
        if not uses_our_features(raw):
            return original(args)
        calls_before = _PARSED.calls
        try:
            parsed = original(args)
        except (ValueError, ImportError) as error:
            if _PARSED.calls == calls_before:
                raise ValueError(_unknown_launcher("other arguments")) from error
            raise
        if _PARSED.calls == calls_before:
            raise ValueError(_unknown_launcher("other arguments"))
        from variational_reasoning.host.resume import check_resume

        run = parsed[3].variational
        run.expects_run_sft = True
        check_resume(run, parsed)
        return parsed

    return check_parsed_arguments


def _enter_sft(original: Callable) -> Callable:
    @functools.wraps(original)
    def enter_run_sft(
        model_args: Any,
        data_args: Any,
        training_args: Any,
        finetuning_args: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        run = getattr(finetuning_args, "variational", None)
        if run is not None:
            from variational_reasoning.host.resume import settle_inputs

            run.expects_run_sft = False
            settle_inputs(run, data_args, training_args.world_size)
        return original(model_args, data_args, training_args, finetuning_args, *args, **kwargs)

    return enter_run_sft


def _refuse(launcher: str) -> Callable:
    def replace(original: Callable) -> Callable:
        @functools.wraps(original)
        def refuse_our_features(*args: Any, **kwargs: Any) -> Any:
            from llamafactory.hparams.parser import read_args

            from variational_reasoning.host.args import uses_our_features

            # Called as (args) by the parser, and as (ray_args, config) by Ray.
            config = kwargs.get("config", args[1] if len(args) > 1 else None)
            if isinstance(config, dict) and "args" in config:
                raw = config["args"]
            else:
                raw = read_args(args[0] if args else None)
            if uses_our_features(raw):
                raise ValueError(
                    f"variational_reasoning: {launcher} is not supported with our keys and "
                    "formats; unset it and use `llamafactory-cli train`, with FORCE_TORCHRUN=1 "
                    "for several processes"
                )
            return original(*args, **kwargs)

        return refuse_our_features

    return replace


def _export(original: Callable) -> Callable:
    @functools.wraps(original)
    def export_with_record(args: Any = None) -> Any:
        from llamafactory.hparams.parser import read_args

        from variational_reasoning.host.args import as_mapping
        from variational_reasoning.model_record import read_record, write_record

        original(args)
        raw = as_mapping(read_args(args))
        adapters = raw.get("adapter_name_or_path") or raw.get("model_name_or_path")
        source = str(adapters).split(",")[-1].strip()
        record = read_record(source)
        if record is not None:
            write_record(raw["export_dir"], record | {"exported_from": source})

    return export_with_record


def _join(original: Callable) -> Callable:
    @functools.wraps(original)
    def join_columns(self: Any, attr: Any) -> Any:
        original(self, attr)
        self.variational_columns = attr.get("columns", {})

    return join_columns


def _align(original: Callable) -> Callable:
    @functools.wraps(original)
    def align_rows(dataset: Any, dataset_attr: Any, data_args: Any, training_args: Any) -> Any:
        from variational_reasoning.host.formats import FORMATS

        if dataset_attr.formatting in FORMATS:
            from variational_reasoning.host.dataset import align

            if training_args.variational.expects_run_sft:
                raise ValueError(_unknown_launcher("data in another place"))
            return align(dataset, dataset_attr, data_args, training_args)
        aligned = original(dataset, dataset_attr, data_args, training_args)
        if hasattr(data_args, "variational") and data_args.streaming:
            from variational_reasoning.host.dataset import with_our_columns

            return with_our_columns(aligned)
        return aligned

    return align_rows


def _processor(original: Callable) -> Callable:
    @functools.wraps(original)
    def row_processor(
        data_args: Any,
        stage: Any,
        template: Any,
        tokenizer: Any,
        processor: Any,
        do_generate: Any = False,
    ) -> Any:
        host_processor = original(data_args, stage, template, tokenizer, processor, do_generate)
        if not hasattr(data_args, "variational"):
            return host_processor
        from variational_reasoning.host.dataset import PackedRowProcessor, RowProcessor

        kind = PackedRowProcessor if data_args.packing else RowProcessor
        return kind(
            template=template, tokenizer=tokenizer, processor=processor, data_args=data_args
        )

    return row_processor


def _preprocess(original: Callable) -> Callable:
    @functools.wraps(original)
    def preprocess_and_count(
        dataset: Any,
        data_args: Any,
        training_args: Any,
        *args: Any,
        is_eval: bool = False,
        **kwargs: Any,
    ) -> Any:
        if not hasattr(data_args, "variational") or dataset is None:
            return original(dataset, data_args, training_args, *args, is_eval=is_eval, **kwargs)
        from variational_reasoning.host import dataset as ours

        try:
            tokenized = original(
                dataset, data_args, training_args, *args, is_eval=is_eval, **kwargs
            )
        except RuntimeError as error:
            error.add_note(
                f"variational_reasoning: rows longer than cutoff_len {ours.longest_row(data_args)} "
                "are dropped; if that is all of them, raise cutoff_len or set `overlong: truncate`"
            )
            raise
        run = training_args.variational
        if run.expects_run_sft:
            raise ValueError(_unknown_launcher("data in another place"))
        facts = None
        if not data_args.streaming:
            facts = ours.gather_facts(tokenized, len(dataset))
            ours.refuse_ignored_weights(run.config, facts, is_eval)
        if not is_eval:
            run.facts = facts
            run.constant_loss_normalizer = ours.settle_constant_loss_normalizer(run.config, facts)
            run.sources = run.sources or ours.source_hashes(data_args)
        return tokenized

    return preprocess_and_count


def _trainer(original: Callable) -> Callable:
    @functools.wraps(original, updated=())
    def choose_trainer(*args: Any, finetuning_args: Any, **kwargs: Any) -> Any:
        if not hasattr(finetuning_args, "variational"):
            return original(*args, finetuning_args=finetuning_args, **kwargs)
        from variational_reasoning.host.trainer import VariationalTrainer

        return VariationalTrainer(*args, finetuning_args=finetuning_args, **kwargs)

    return choose_trainer


REPLACED = (
    _seam("hparams.parser", "_parse_train_args", ("args",), _parse_train_args),
    _seam("hparams.parser", "_parse_train_mca_args", ("args",), _refuse("USE_MCA=1 (Megatron)")),
    _seam("train.tuner", "_ray_training_function", ("ray_args", "config"), _refuse("USE_RAY=1")),
    _seam("train.tuner", "get_train_args", ("args",), _check_parsed),
    _seam(
        "train.tuner",
        "run_sft",
        ("model_args", "data_args", "training_args", "finetuning_args"),
        _enter_sft,
    ),
    _seam("train.tuner", "export_model", ("args",), _export),
    _seam("data.parser", "DatasetAttr.join", ("self", "attr"), _join),
    _seam(
        "data.loader",
        "align_dataset",
        ("dataset", "dataset_attr", "data_args", "training_args"),
        _align,
    ),
    _seam(
        "data.loader",
        "_get_dataset_processor",
        ("data_args", "stage", "template", "tokenizer", "processor", "do_generate"),
        _processor,
    ),
    _seam(
        "data.loader",
        "_get_preprocessed_dataset",
        ("dataset", "data_args", "training_args", "is_eval"),
        _preprocess,
    ),
    _seam("train.sft.workflow", "CustomSeq2SeqTrainer", ("finetuning_args", "processor"), _trainer),
)

USED = (
    _seam("train.tuner", "run_exp", ("args", "callbacks")),
    _seam("hparams.parser", "read_args", ("args",)),
    _seam("data.processor.processor_utils", "greedy_knapsack", ("numbers", "capacity")),
    _seam(
        "data.processor.supervised",
        "PackingParams",
        ("sequence_boundaries", "right_padding_length"),
    ),
    _seam(
        "data.processor.supervised",
        "SupervisedDatasetProcessor._encode_data_example",
        ("prompt", "response", "system", "tools", "images", "videos", "audios"),
    ),
    _seam("train.sft.trainer", "CustomSeq2SeqTrainer.compute_loss", ("model", "inputs")),
    _seam("extras.logging", "get_logger", ("name",)),
)


def activate(entry: str) -> None:
    """Put all seams in place, after the host module `entry` has been imported.

    For a host that does not fit, only the refusal is put in place.
    """
    if entry.startswith("llamafactory.v1"):
        _refuse_words(
            "USE_V1=1 (the host's rewrite has none of the names that the plugin replaces)"
        )
        return
    found = faults((*REPLACED, *USED))
    if found:
        owner, attribute, run_exp = _seam("train.tuner", "run_exp", ()).find()
        setattr(owner, attribute, _refuse_misfit(run_exp, found))
        return
    replace_all(REPLACED)
    wait_for_gloo_at_exit()


def _refuse_misfit(run_exp: Callable, found: list[str]) -> Callable:
    @functools.wraps(run_exp)
    def refuse_our_features(args: Any = None, callbacks: Any = None) -> Any:
        from variational_reasoning.host.args import uses_our_features

        if uses_our_features(_words() if args is None else args):
            listing = "".join(f"\n  {fault}" for fault in found)
            raise HostMismatchError(
                f"variational_reasoning: LLaMA-Factory {version('llamafactory')} does not fit "
                "this plugin, so this YAML would not train as it says. Install "
                f"`llamafactory==0.9.5`, or a plugin for your version. Missing:{listing}"
            )
        return run_exp(args, callbacks)

    return refuse_our_features


def _refuse_words(launcher: str) -> None:
    from variational_reasoning.host.args import uses_our_features

    if uses_our_features(_words()):
        raise ValueError(
            f"variational_reasoning: {launcher} is not supported with our keys and formats; "
            "unset it"
        )


def _words() -> dict[str, Any] | list[str]:
    """The command line as the host will read it, without using any name of the host.

    `train TRAIN.yaml seed=1` is the contents of TRAIN.yaml, with seed 1.
    """
    import yaml

    words = sys.argv[1:]
    for position, word in enumerate(words):
        if word.endswith((".yaml", ".yml", ".json")) and Path(word).is_file():
            config = yaml.safe_load(Path(word).read_text(encoding="utf-8")) or {}
            for override in words[position + 1 :]:
                key, equals, value = override.partition("=")
                if equals:
                    config[key] = yaml.safe_load(value)
            return config
    return words
