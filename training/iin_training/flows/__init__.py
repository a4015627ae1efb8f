"""Invertible blocks: each has `forward` and `inverse`, both returning `(value, log_abs_det)`."""

from iin_training.flows.blocks import ActNorm, DoubleCoupling, Flatten, FlowBlock, Nets, Permutation
from iin_training.flows.flow import Flow, interpretation_flow

__all__ = ["ActNorm", "DoubleCoupling", "Flatten", "Flow", "FlowBlock", "Nets", "Permutation", "interpretation_flow"]
