"""Trainings of several configurations in the processes of one torchrun, with their gradients kept.

    torchrun --nproc_per_node 2 -m tests.host.steps_worker CONFIGS.json GRADIENTS.pt

CONFIGS.json holds a list of training configurations. GRADIENTS.pt gets, for each of them, a list
with the gradients of every optimizer step, in float64.
"""

import json
import sys
from pathlib import Path

import torch
from accelerate.state import AcceleratorState
from transformers import TrainerCallback


class StepGradients(TrainerCallback):
    """Casts the model to float64 before it is wrapped; keeps the gradients of every step."""

    def __init__(self):
        self.steps: list[dict[str, torch.Tensor]] = []

    def on_init_end(self, args, state, control, model=None, **kwargs):
        model.to(torch.float64)

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        gradients = {}
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:  # an adapter's model has parameters that are not trained
                gradients[name.removeprefix("module.")] = parameter.grad.clone()
        self.steps.append(gradients)


def main() -> None:
    from llamafactory.train.tuner import run_exp

    # The host ends the process group after each training; here the next one goes on with it.
    torch.distributed.destroy_process_group = lambda *args, **kwargs: None
    configs = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    found = []
    for config in configs:
        capture = StepGradients()
        run_exp(config, callbacks=[capture])
        found.append(capture.steps)
        AcceleratorState._reset_state(reset_partial_state=True)
    if torch.distributed.get_rank() == 0:
        torch.save(found, sys.argv[2])
    torch.distributed.barrier()


if __name__ == "__main__":
    main()
