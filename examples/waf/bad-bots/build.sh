#!/usr/bin/env bash
# Builds bad-bot-blocker.wasm as the rules are built: see ../rules/build.sh.
#
#   build.sh [FOLDER]     default: the folder of this script
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
exec "$here/../rules/build.sh" "${1:-$here}" bad-bot-blocker
