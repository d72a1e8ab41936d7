#!/usr/bin/env bash
# Sees the power cuts find out brokers that are broken on purpose: one without syncs, and one that
# acknowledges before they are done. Each is a patch of the device boundary, applied to a copy of the
# tree, so that nothing in the product can be switched to it. Needs what the power cuts need (root,
# FUSE, loop devices, mkfs); takes some minutes, most of them for two more builds.
set -euo pipefail
cd "$(dirname "$0")/../../.."
here=broker/tests/crash/broken
target=${CARGO_TARGET_DIR:-$PWD/target}/broken
tree=$target/tree
log=$target/log
mkdir -p "$target"

cuts() {
    RINGWAY_TEST_REQUIRE=all cargo test -p ringway-broker --test crash -- power_cut --test-threads=1
}

echo "as it is: has to pass"
cuts

for patch in "$here"/*.patch; do
    name=$(basename "$patch" .patch)
    echo "$name: has to be found out"
    rm -rf "$tree"
    mkdir "$tree"
    git ls-files -z | xargs -0 cp --parents -t "$tree"
    git -C "$tree" init -q
    git -C "$tree" apply "$PWD/$patch"
    (cd "$tree" && CARGO_TARGET_DIR=$target/build cargo build -p ringway-broker)
    if RINGWAY_CRASH_BROKER=$target/build/debug/ringway-broker cuts >"$log" 2>&1; then
        echo "FAILED: $name passed every power cut"
        exit 1
    fi
    # It has to fail for the right reason.
    if ! grep -m 2 "acknowledged and lost" "$log"; then
        echo "FAILED: $name failed, but lost nothing; see $log"
        exit 1
    fi
done
rm -rf "$tree"
echo "each was found out"
