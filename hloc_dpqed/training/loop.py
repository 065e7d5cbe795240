"""The optimization loop that all trained codecs share."""

import math
from collections.abc import Callable, Iterable

import torch
from tqdm import tqdm

from .checkpoint import FitCheckpoint


def minimise(
    parameters: Iterable[torch.nn.Parameter],
    batch_loss: Callable[[int], torch.Tensor],
    *,
    steps: int,
    learning_rate: float,
    progress: bool = False,
    description: str = "fit",
    checkpoint: FitCheckpoint | None = None,
    save_every: int = 50,
) -> None:
    """Adam with a cosine decay of the learning rate to zero over a fixed number of steps.

    Args:
        parameters: changed in place.
        batch_loss: step to the scalar loss of that step's batch. To continue from a checkpoint it
            must depend on nothing but the step and the parameters at the last multiple of
            ``save_every``.
        steps: how many batches.
        learning_rate: at the first step.
        progress: show a bar on standard error.
        description: of the bar.
        checkpoint: continue from it, and save there.
        save_every: steps between two savings.

    Raises:
        InputError: the checkpoint cannot be written.
    """
    optimizer = torch.optim.Adam(list(parameters), lr=learning_rate)
    done = 0 if checkpoint is None else checkpoint.load(optimizer)
    bar = tqdm(
        range(done, steps), desc=description, initial=done, total=steps, disable=not progress
    )
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.zero_grad()
        batch_loss(step).backward()
        optimizer.step()
        if checkpoint is not None and ((step + 1) % save_every == 0 or step + 1 == steps):
            checkpoint.save(optimizer, step + 1)
