"""What steps free stays with the process."""

import ctypes
import subprocess
import sys

import pytest

STEPS = """
import resource, sys
import torch
from iin_training.memory import keep_freed
if sys.argv[1] == "kept":
    keep_freed()
found = []
for _ in range(20):
    tensor = torch.ones(2**24)  # 64 MiB, which glibc gives back by itself
    found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    del tensor
print(found[-1] - found[-2])
"""


def page_faults_of_a_step(how):
    return int(subprocess.run([sys.executable, "-c", STEPS, how], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has no mallopt")
def test_a_step_maps_no_memory_that_the_one_before_had():
    assert page_faults_of_a_step("given back") > 30  # pages of at most 2 MiB
    assert page_faults_of_a_step("kept") < 10
