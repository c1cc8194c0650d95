#!/bin/sh
# Start the model on loopback, and nginx in front of it. Azure ML mounts the model at AZUREML_MODEL_DIR.
set -eu
export PORT="${PORT:-5001}" CHAKU_PORT="${CHAKU_PORT:-8000}" CHAKU_DATA="${CHAKU_DATA:-/tmp/chaku}"
mkdir -p "$CHAKU_DATA"
model="${CHAKU_MODEL:-$(find "$AZUREML_MODEL_DIR" -name '*.gguf' | head -n 1)}"
here=$(dirname "$0")

# The key lives as long as this container.
chaku keys revoke endpoint >/dev/null 2>&1 || true
CHAKU_KEY=$(chaku keys create endpoint --scope infer)
export CHAKU_KEY
(umask 077 && envsubst '$PORT $CHAKU_PORT $CHAKU_DATA $CHAKU_KEY' <"$here/nginx.conf.template" >"$CHAKU_DATA/nginx.conf")
unset CHAKU_KEY

nginx -c "$CHAKU_DATA/nginx.conf"
exec chaku serve "model=$model" --port "$CHAKU_PORT"
