"""Invertible blocks: each has `forward` and `inverse`, both returning `(value, log_abs_det)`."""

from iin_training.flows.actnorm import ActNorm
from iin_training.flows.coupling import DoubleCoupling, Nets
from iin_training.flows.flatten import Flatten
from iin_training.flows.flow import Flow, FlowBlock, interpretation_flow
from iin_training.flows.permutation import Permutation

__all__ = ["ActNorm", "DoubleCoupling", "Flatten", "Flow", "FlowBlock", "Nets", "Permutation", "interpretation_flow"]
