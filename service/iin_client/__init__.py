"""A small typed client of the interpretation service."""

from iin_client.async_client import AsyncClient
from iin_client.channel import Tls
from iin_client.client import Client
from iin_client.edits import Edit, Replace, Resample, SetValue, Shift
from iin_client.errors import CallError, Violation
from iin_client.inputs import Factors, Input, Inputs, Latent, RawImage
from iin_client.model import FactorSlice, Figure, Graph, ImageSpec, Limits, Model, Quantile, ServedModel
from iin_client.request_messages import Fixed, Output
from iin_client.results import (
    Answer,
    Edited,
    FactorResponse,
    Frames,
    Images,
    Interpretations,
    Responses,
    Samples,
    StageTiming,
    Timing,
)
from iin_client.settings import Application
from iin_client.walks import Interpolation, LinearWalk, RandomWalk, Walk

__all__ = [
    "Answer",
    "Application",
    "AsyncClient",
    "CallError",
    "Client",
    "Edit",
    "Edited",
    "FactorResponse",
    "FactorSlice",
    "Factors",
    "Figure",
    "Fixed",
    "Frames",
    "Graph",
    "ImageSpec",
    "Images",
    "Input",
    "Inputs",
    "Interpolation",
    "Interpretations",
    "Latent",
    "Limits",
    "LinearWalk",
    "Model",
    "Output",
    "Quantile",
    "RandomWalk",
    "RawImage",
    "Replace",
    "Resample",
    "Responses",
    "Samples",
    "ServedModel",
    "SetValue",
    "Shift",
    "StageTiming",
    "Timing",
    "Tls",
    "Violation",
    "Walk",
]
