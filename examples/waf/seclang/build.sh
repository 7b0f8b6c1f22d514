#!/usr/bin/env bash
# Builds seclang-waf.wasm as the rules are built: see ../rules/build.sh. It is not committed: it is too large.
#
#   build.sh FOLDER
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec "$here/../rules/build.sh" "${1:?build.sh FOLDER}" seclang-waf
