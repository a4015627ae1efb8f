"""What a replica's sessions are asked for on a GPU; that CUDA keeps to it shows on a GPU only."""

import pytest
from iin_service import app
from iin_service.sessions import memory_limit
from pydantic import ValidationError

GIB = 2**30


def test_the_graphs_share_the_cap():
    assert memory_limit(4 * GIB, graphs=4) == {"gpu_mem_limit": GIB}
    assert memory_limit(4 * GIB, graphs=5)["gpu_mem_limit"] * 5 <= 4 * GIB
    assert memory_limit(None, graphs=4) == {}, "onnxruntime's own default"


@pytest.mark.parametrize("cap", [None, GIB])
def test_the_cap_reaches_the_replica(cap):
    arguments = app.BuildArguments(gpus=0.5, gpu_memory_bytes=cap)
    assert app.build(arguments)._bound_deployment.init_kwargs == {"threads": 1, "gpu": True, "gpu_memory_bytes": cap}


@pytest.mark.parametrize(("gpus", "cap"), [(0, GIB), (1, 0), (1, -1)])
def test_a_cap_needs_a_gpu_and_is_positive(gpus, cap):
    with pytest.raises(ValidationError, match="gpu_memory_bytes"):
        app.BuildArguments(gpus=gpus, gpu_memory_bytes=cap)
