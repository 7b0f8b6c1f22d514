#!/usr/bin/env bash
# Builds a module, the same bytes wherever the same toolchain builds it, and writes down which toolchain did.
#
#   build.sh [FOLDER [CRATE]]     default: universal-waf, into the folder of this script
#
# Exit status 77: there is no toolchain here that can build for wasm32-unknown-unknown.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
out=$(mkdir -p "${1:-$here}" && cd "${1:-$here}" && pwd)
crate=${2:-universal-waf}
target=wasm32-unknown-unknown

# A cargo that runs this script has settings of its own in the environment; none of them may leak into the bytes.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET CARGO_INCREMENTAL RUSTC RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER

if [ -d "$(rustc --print target-libdir --target $target)" ]; then
    build_std=()
elif [ -d "$(/usr/bin/rustc --print sysroot 2>/dev/null)/lib/rustlib/src/rust/library" ]; then
    # A distribution's toolchain with the sources of the standard library: it is built along.
    PATH="/usr/bin:$PATH:$(dirname "$(rustc --print target-libdir)")/bin"
    export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
    build_std=(-Zbuild-std=std,panic_abort -Zbuild-std-features=)
else
    echo "no toolchain for $target: rustup target add $target" >&2
    exit 77
fi

sysroot=$("${RUSTC:-rustc}" --print sysroot)
sources=$(readlink -f "$sysroot/lib/rustlib/src/rust" || true)
flags=(
    "--remap-path-prefix=$root=/hotslot"
    "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
    "--remap-path-prefix=$sysroot/lib/rustlib/src/rust=/rust"
    "--remap-path-prefix=${sources:-/nowhere}=/rust"
    "-Clink-arg=-zstack-size=262144"
    # As fast as with the default of 225, and a tenth smaller.
    "-Cllvm-args=-inline-threshold=100"
)
separator=$'\x1f'
joined=$(printf "%s$separator" "${flags[@]}")

cd "$root"
export CARGO_ENCODED_RUSTFLAGS=${joined%"$separator"}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}/waf-rules
# The rules read every byte in many ways; what reads a header once had better be small.
level=z
[ "$crate" != universal-waf ] || level=2
export CARGO_PROFILE_RELEASE_{OPT_LEVEL=$level,LTO=fat,CODEGEN_UNITS=1,PANIC=abort,STRIP=symbols,DEBUG=0}
# What reads the rule file runs once per instance: it may be slow, so that it is small.
for package in aho-corasick regex-lite serde_core serde_json; do
    small+=(--config "profile.release.package.$package.opt-level='z'")
done
cargo build --quiet --locked --release "${small[@]}" --target $target "${build_std[@]}" -p "$crate" --lib

cp "$CARGO_TARGET_DIR/$target/release/${crate//-/_}.wasm" "$out/$crate.wasm"
{
    "${RUSTC:-rustc}" --version
    [ ${#build_std[@]} -eq 0 ] || echo "with the standard library built along"
} >"$out/$crate.toolchain"
