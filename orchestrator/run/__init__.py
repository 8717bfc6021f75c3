"""One session of a run: what comes next, who does it on which GPUs, and what is said of it."""

import os

# Tune's thread may outlive Ray for a moment after Ctrl-C, and what it asks then must not start another Ray.
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
