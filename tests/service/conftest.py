"""What most parts of the service are tested with."""

import pytest
from iin_bundle import read_bundle
from iin_service.items import Limits

from .fakes import quick_graphs, rpcs_of


@pytest.fixture(scope="session")
def bundle(digits_bundle):
    return read_bundle(digits_bundle)


@pytest.fixture
def rpcs(bundle):
    """RPCs for 8 items at once, whose graphs compute nothing."""
    return rpcs_of(bundle, quick_graphs(bundle), limits=Limits(max_queued_items=8))
