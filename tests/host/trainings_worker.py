"""Several trainings one after another in the processes of one torchrun.

    torchrun --nproc_per_node 2 -m tests.host.trainings_worker CONFIGS.json

CONFIGS.json maps a name to a training configuration. Starting torchrun and importing the host take
longer than a training here.
"""

import gc
import json
import os
import sys
from pathlib import Path

import torch
from accelerate.state import AcceleratorState
from transformers.integrations.deepspeed import unset_hf_deepspeed_config


def main() -> None:
    from llamafactory.train.tuner import run_exp

    # The host ends the process group after each training; here the next one goes on with it.
    torch.distributed.destroy_process_group = lambda *args, **kwargs: None
    environment = dict(os.environ)
    for name, config in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")).items():
        print(f"trains: {name}", file=sys.stderr, flush=True)
        run_exp(config)
        # What a process remembers of its training: the precision and DeepSpeed's configuration.
        AcceleratorState._reset_state(reset_partial_state=True)
        unset_hf_deepspeed_config()
        os.environ.clear()
        os.environ.update(environment)
        gc.collect()
        torch.distributed.barrier()


if __name__ == "__main__":
    main()
