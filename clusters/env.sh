# The environment of Ray on every node, and so of every job: sourced before each `ray start`, and by whoever runs pinch on a node.
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

# What no file of this repository may hold (HF_TOKEN, a judge's key), as lines NAME=VALUE.
if [ -f "$HOME/.pinch.env" ]; then
  set -a
  # shellcheck source=/dev/null
  . "$HOME/.pinch.env"
  set +a
fi

export PATH="$here/.venv/bin:$PATH" # pinch for jobs; ninja for what is compiled when it is first used
export RAY_AUTH_MODE=token          # the token is ~/.ray/auth_token, which `ray up` brings to every node
export MLFLOW_TRACKING_URI=http://127.0.0.1:5000 # only a sweep's driver asks, and it runs on the head; see mlflow.sh
export RAY_USAGE_STATS_ENABLED=0 HF_HUB_DISABLE_TELEMETRY=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 MLFLOW_DISABLE_TELEMETRY=true

ulimit -n 65536 2>/dev/null || true # Ray holds many sockets and files open

# Models and checkpoints under way: on the machine's fast disk, where the image has mounted one.
if [ -d /opt/dlami/nvme ] && [ -w /opt/dlami/nvme ]; then
  export PINCH_CACHE=/opt/dlami/nvme/pinch HF_HOME=/opt/dlami/nvme/huggingface
fi

# Images with a driver and no CUDA toolkit: the compiler that the lock brings.
toolkit="$here/.venv/lib/python3.11/site-packages/nvidia/cu13"
if [ -z "${CUDA_HOME:-}" ] && ! command -v nvcc >/dev/null && [ -x "$toolkit/bin/nvcc" ]; then
  export CUDA_HOME="$toolkit"
fi
unset here toolkit
