#!/bin/sh
# Installs what grading needs, builds everything, and grades the starter. Gradescope runs this once, as root.
set -e
export HOME="${HOME:-/root}"
apt-get update
apt-get install -y build-essential curl python3 strace
curl -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal
export PATH="$HOME/.cargo/bin:$PATH"
cd /autograder/source/zen
# A starter passes the first stage, so a fault of this script shows now and not at the first submission.
cargo xtask challenge --stage 1 -- python3 xtask/challenge/starter.py {port}
