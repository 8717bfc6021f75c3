#!/usr/bin/env bash
# MLflow's server on the head, for the sweep's driver beside it and for whoever comes through the tunnel: on loopback only.
# Its database and files are in ~/mlflow. `mlflow.sh` starts it in the background and waits until it answers; nothing
# happens where one answers already. `mlflow.sh --foreground` stays, for a container.
set -euo pipefail
PORT=${PINCH_MLFLOW_PORT:-5000}
HOME_OF_MLFLOW="$HOME/mlflow"

serve() {
  # MLflow answers 403 to a Host header that is not named here: no web page can reach it under a name of its own.
  exec mlflow server --host 127.0.0.1 --port "$PORT" --workers 1 --allowed-hosts "127.0.0.1:$PORT,localhost:$PORT" \
    --backend-store-uri "sqlite:///$HOME_OF_MLFLOW/mlflow.db" --artifacts-destination "$HOME_OF_MLFLOW/artifacts"
}

answers() { curl -sf --max-time 5 "http://127.0.0.1:$PORT/health" >/dev/null; }

# shellcheck source=clusters/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false # its own workers would idle
mkdir -p "$HOME_OF_MLFLOW"
if [ "${1:-}" = --foreground ]; then serve; fi
if answers; then exit 0; fi
# A session of its own: it must outlive the connection that started it.
setsid bash "${BASH_SOURCE[0]}" --foreground </dev/null >"$HOME_OF_MLFLOW/server.log" 2>&1 &
server=$!
for _ in $(seq 120); do
  if answers; then exit 0; fi
  kill -0 "$server" 2>/dev/null || break
  sleep 1
done
kill "$server" 2>/dev/null || true
echo "MLflow did not start; the end of $HOME_OF_MLFLOW/server.log:" >&2
tail -n 20 "$HOME_OF_MLFLOW/server.log" >&2
exit 1
