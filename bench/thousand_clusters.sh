#!/bin/sh
# A round of a federation with very many clusters on this machine, against the real server: how long it takes, and the most
# memory that the server had. Usage: bench/thousand_clusters.sh [CLUSTERS [MODEL [ROUNDS]]], after scripts/build.sh.
set -eu
cd "$(dirname "$0")/.."
clusters=${1:-1000}
model=${2:-fashion_cnn}
rounds=${3:-1}
server=tcp://127.0.0.1:5799
directory=$(mktemp -d "${TMPDIR:-/tmp}/ecopipe-many-XXXXXX")
trap 'rm -rf "$directory"' EXIT
# All of them share this machine's address.
cat > "$directory/server.yaml" <<END
limits: {clusters_max: $clusters, connections_per_address: $((clusters + 64)), connections_per_s: 1000}
END
build/bin/ecopipe-fl-server --bind "$server" --model "$model" --state "$directory/state" --rounds "$rounds" \
    --min-clusters "$clusters" --config "$directory/server.yaml" 2> "$directory/server.log" &
pid=$!
trap 'kill $pid 2> /dev/null || true; rm -rf "$directory"' EXIT
build/bin/ecopipe-bench federation --server "$server" --model "$model" --clusters "$clusters" --server-pid "$pid" ||
    { tail -20 "$directory/server.log" >&2; exit 1; }
wait "$pid"
