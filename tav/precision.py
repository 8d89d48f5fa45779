"""The precisions a network is loaded in, and seeing early that one does not suffice."""

from __future__ import annotations

import torch
from torch import Tensor

from tav.errors import NanLoss
from tav.memory import Precision

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def remedy(dtype: torch.dtype) -> str:
    """Say what to try when arithmetic in `dtype` gave NaN or infinities."""
    if dtype == torch.float16:
        return "fp16 ends at 65504, so load the base in bf16 or fp32"
    return "tune again with a lower learning rate" + (" or load the base in fp32" if dtype == torch.bfloat16 else "")


class FiniteWatch:
    """Sees NaN and infinities in the latents of a loop, without making the device wait for the host.

    Reading a result waits for it. So after the first step each is read when the next is already under way.

    Args:
        doing: of the sentence, e.g. `sampling`.
        dtype: the network's.
        at_once: read every result when it is made, as costs nothing on the CPU.
    """

    def __init__(self, doing: str, dtype: torch.dtype, at_once: bool) -> None:
        self._doing, self._dtype, self._at_once = doing, dtype, at_once
        self._unread: tuple[int, Tensor] | None = None

    def see(self, step: int, latents: Tensor) -> None:
        """Look at the latents after step 1, 2, ….

        Raises:
            NanLoss: this step's latents, or those of the one before, are not finite.
        """
        earlier, self._unread = self._unread, (step, latents.isfinite().all())
        if earlier:
            self._read(*earlier)
        if step == 1 or self._at_once:
            self.end()

    def end(self) -> None:
        """Read what is unread, after the last step.

        Raises:
            NanLoss: its latents are not finite.
        """
        if self._unread:
            self._read(*self._unread)
        self._unread = None

    def _read(self, step: int, finite: Tensor) -> None:
        if not finite:
            raise NanLoss(f"{self._doing} gave values that are not finite in step {step}: {remedy(self._dtype)}")
