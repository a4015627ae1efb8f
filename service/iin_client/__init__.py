"""A small typed client of the interpretation service."""
# ruff: noqa: F403 - each module's `__all__` is the list of what it adds here

from iin_client import inputs, model, results
from iin_client.async_client import AsyncClient
from iin_client.base import Application
from iin_client.channel import Tls
from iin_client.client import Client
from iin_client.errors import CallError, Violation
from iin_client.inputs import *
from iin_client.model import *
from iin_client.results import *

__all__ = ["Application", "AsyncClient", "CallError", "Client", "Tls", "Violation"]
__all__ += inputs.__all__
__all__ += model.__all__
__all__ += results.__all__
