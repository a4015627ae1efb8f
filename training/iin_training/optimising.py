"""An update of Adam with the gradient's norm limited, in one pass over the weights."""

import torch

__all__ = ["update"]


def update(optimiser: torch.optim.Adam, clip_norm: float) -> None:
    """Make a step of a fused `optimiser` with gradients scaled down to the norm `clip_norm`; 0 leaves them as they are.

    The same as `torch.nn.utils.clip_grad_norm_` and a step, but the optimiser scales each gradient as it reads it,
    which saves reading and writing all of them once more.
    """
    if clip_norm:
        gradients = [p.grad for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        # What a gradient scaler for mixed precision sets: gradients are divided by it.
        optimiser.grad_scale = ((norm + 1e-6) / clip_norm).clamp_min(1.0)  # type: ignore[attr-defined]
    optimiser.step()
