"""GPUs by name: memory and peak rate of bfloat16 products, as their makers are said to state them.

The figures come from public pages that cite the data sheets named here, not from the sheets, and none was measured:
a plan calls them assumptions. Dense rates: those stated with 2:4 sparsity are halved. A model reaches a share (MFU).
"""

from __future__ import annotations

from dataclasses import dataclass

USABLE = 0.95  # of the memory: the rest is CUDA's context, NCCL's buffers and gaps of the allocator; an assumption


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU."""

    memory_gb: int  # GB of 10^9 bytes
    peak_tflops: int  # 10^12 floating-point operations a second, dense bfloat16 with float32 sums

    @property
    def usable_bytes(self) -> float:
        """Bytes that training can take."""
        return USABLE * self.memory_gb * 1e9


GPUS: dict[str, Gpu] = {
    "a100-40": Gpu(40, 312),  # NVIDIA A100 data sheet: 312 (624 sparse)
    "a100-80": Gpu(80, 312),  # the same
    "b200": Gpu(180, 2250),  # NVIDIA HGX B200 data sheet: 36 PFLOPS sparse and 1.4 TB for eight of them
    "h100": Gpu(80, 989),  # NVIDIA H100 data sheet, SXM: 1,979 sparse
    "h200": Gpu(141, 989),  # NVIDIA H200 data sheet, SXM: 1,979 sparse
    "l4": Gpu(24, 121),  # NVIDIA L4 data sheet: 242 sparse
    "l40s": Gpu(48, 362),  # NVIDIA L40S data sheet: 362.05 (733 sparse)
    "mi300x": Gpu(192, 1307),  # AMD Instinct MI300X data sheet: 1,307.4
    "rtx3090": Gpu(24, 71),  # NVIDIA GA102 white paper: 71 with float32 sums
    "rtx4090": Gpu(24, 165),  # NVIDIA Ada white paper: 165.2 with float32 sums
}
