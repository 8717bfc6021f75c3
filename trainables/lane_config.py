"""How the workers of a lane find each other: as Ray Train does it, on the named address alone (see `rendezvous`).

A file of its own because Ray and torch are imported here, which an engine's process has no need of.
"""

from __future__ import annotations

from typing import Any

from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

from trainables.rendezvous import listen_where_named


class LaneTorchConfig(TorchConfig):
    """See :class:`ray.train.torch.TorchConfig`."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _Backend


class _Backend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        try:
            worker_group.execute(listen_where_named)
            super().on_start(worker_group, backend_config)
        except BaseException:
            # Ray Train (2.60) ends a run whose workers do not find each other, and keeps their room for itself.
            worker_group.shutdown()
            raise
