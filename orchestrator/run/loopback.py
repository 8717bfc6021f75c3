"""Ray on this machine alone, out of reach of others.

On Linux Ray takes the address the machine has in its network and listens on every interface, and whoever reaches such a
port with the cluster's token runs code there. A Ray that is started for one session needs no network: told that
clusters are off, it takes 127.0.0.1 and every one of its servers listens there and nowhere else (seen with Ray 2.60,
held by a test). Ray has no argument for this: an address of 127.0.0.1 that it is given is replaced by the machine's.
Between users of one machine stands the token, which Ray makes and asks for unless ``RAY_AUTH_MODE`` says otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ray._private import ray_constants

LOCAL = {
    ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0",
    "GLOO_SOCKET_IFNAME": "lo",
    "VLLM_HOST_IP": "127.0.0.1",
}
"""Where Ray, the workers of a lane and vLLM look for the address to use."""


@contextmanager
def on_loopback() -> Iterator[None]:
    """A Ray that is started inside, and the processes it starts later, listen on loopback only."""
    before, known = {name: os.environ.get(name) for name in LOCAL}, ray_constants.ENABLE_RAY_CLUSTER
    os.environ.update(LOCAL)
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = known
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
