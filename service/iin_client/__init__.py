"""A small typed client of the interpretation service."""

from iin_client.channel import Tls
from iin_client.client import AsyncClient, Client
from iin_client.edits import Edit, Replace, Resample, SetValue, Shift
from iin_client.errors import CallError, Violation
from iin_client.inputs import Factors, Input, Inputs, Latent, RawImage
from iin_client.messages import Fixed, Output
from iin_client.model import FactorSlice, Figure, Graph, ImageSpec, Limits, Model, Quantile
from iin_client.results import Edited, Images, Interpretations, Samples, StageTiming, Timing

__all__ = [
    "AsyncClient",
    "CallError",
    "Client",
    "Edit",
    "Edited",
    "FactorSlice",
    "Factors",
    "Figure",
    "Fixed",
    "Graph",
    "ImageSpec",
    "Images",
    "Input",
    "Inputs",
    "Interpretations",
    "Latent",
    "Limits",
    "Model",
    "Output",
    "Quantile",
    "RawImage",
    "Replace",
    "Resample",
    "Samples",
    "SetValue",
    "Shift",
    "StageTiming",
    "Timing",
    "Tls",
    "Violation",
]
