"""The optimization loop that all trained codecs share."""

import math
from collections.abc import Callable, Iterable

import torch
from tqdm import tqdm


def minimise(
    parameters: Iterable[torch.nn.Parameter],
    batch_loss: Callable[[int], torch.Tensor],
    *,
    steps: int,
    learning_rate: float,
    progress: bool = False,
    description: str = "fit",
) -> None:
    """Adam with a cosine decay of the learning rate to zero over a fixed number of steps.

    Args:
        parameters: changed in place.
        batch_loss: step to the scalar loss of that step's batch.
        steps: how many batches.
        learning_rate: at the first step.
        progress: show a bar on standard error.
        description: of the bar.
    """
    optimizer = torch.optim.Adam(list(parameters), lr=learning_rate)
    for step in tqdm(range(steps), desc=description, disable=not progress):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.zero_grad()
        batch_loss(step).backward()
        optimizer.step()
