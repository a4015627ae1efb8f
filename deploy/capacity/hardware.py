"""Machines to plan for: published peaks, assumed efficiencies and prices. Nothing here was measured by this project."""

from collections.abc import Mapping
from dataclasses import dataclass

from deploy.capacity.inputs import Row

__all__ = ["ASSUMED_PRICE_DATE", "MACHINES", "Machine"]

ASSUMED_PRICE_DATE = "2026-11-22"  # of the assumption, no quotation: AWS on demand, us-east-1; see --usd-an-hour
ASSUMED_COMPUTE_EFFICIENCY = 0.30  # of the peak in float32; small products and convolutions do not fill a GPU
ASSUMED_BANDWIDTH_EFFICIENCY = 0.60
ASSUMED_LAUNCH_MS = 0.006  # a node: one kernel, started by onnxruntime without CUDA graphs
ASSUMED_TRANSFER_MS = 0.05  # a batch: copies to the GPU and back, and waiting for it
BATCHES = (1, 2, 4, 8, 16, 32, 64)  # all that GPU replicas run: others are filled up to these
HOST_CORES = 1.25  # cores of a CPU replica, with its part of HAProxy, raylet and agents: 2.5 for 2 (deploy/RUNBOOK.md)


@dataclass(frozen=True)
class Machine:
    """What a replica runs on."""

    name: str
    """Name of the GPU, or CPU."""
    assumed_usd_an_hour: float
    """US dollars an hour of a whole GPU with its host, or of one core."""
    fp32_tflops: float = 0.0
    """Published peak in float32 without tensor cores, 10^12 a second; 0 for a CPU, whose times are measured."""
    bandwidth_gb: float = 0.0
    """Published memory bandwidth, 10^9 bytes a second."""
    most_replicas: int = 1
    """Replicas for which the instance has cores: two each, one for the event loop, one that starts kernels."""

    @property
    def accelerated(self) -> bool:
        """Whether it is a GPU."""
        return self.fp32_tflops > 0

    def row(self, measured: Row) -> Row:
        """`measured` on one core, as it would be here: as measured on a CPU, by roofline on a GPU."""
        if not self.accelerated:
            return measured
        if not measured.mflop or not measured.nodes:
            raise ValueError("mflop, nodes: expected counts of every row to plan for a GPU; write them with `measure`")
        return Row(ms={batch: self.gpu_ms(measured, batch) for batch in BATCHES})

    def gpu_ms(self, row: Row, batch: int) -> float:
        """Milliseconds of a batch: starting kernels, or what they compute and move, whichever is longer."""
        arithmetic = batch * row.mflop / (1e3 * self.fp32_tflops * ASSUMED_COMPUTE_EFFICIENCY)
        megabytes = row.weights_mb + batch * row.traffic_mb
        memory = megabytes / (self.bandwidth_gb * ASSUMED_BANDWIDTH_EFFICIENCY)
        return ASSUMED_TRANSFER_MS + max(row.nodes * ASSUMED_LAUNCH_MS, arithmetic, memory)

    def usd_a_replica(self, sharing: int) -> float:
        """US dollars an hour of one replica, `sharing` of them on a GPU."""
        return self.assumed_usd_an_hour / sharing if self.accelerated else self.assumed_usd_an_hour * HOST_CORES


# Peaks: NVIDIA's data sheets of L4, A10 (the A10G is AWS's variant), L40S and H100 SXM. Behind each machine the
# instance whose price is taken.
MACHINES: Mapping[str, Machine] = {
    one.name: one
    for one in (
        Machine("CPU", 0.0513),  # c7a, a core
        Machine("L4", 0.805, fp32_tflops=30.3, bandwidth_gb=300, most_replicas=2),  # g6.xlarge
        Machine("A10G", 1.006, fp32_tflops=31.2, bandwidth_gb=600, most_replicas=2),  # g5.xlarge
        Machine("L40S", 1.861, fp32_tflops=91.6, bandwidth_gb=864, most_replicas=2),  # g6e.xlarge
        Machine("H100", 6.88, fp32_tflops=66.9, bandwidth_gb=3350, most_replicas=8),  # p5.4xlarge
    )
}
