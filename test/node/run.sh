#!/bin/sh
# The openai package for Node.js against a real server. Where it cannot be set up, says so in build/skipped.txt.
set -eu
skip() {
	echo "clients (Node.js): $1" | tee -a build/skipped.txt
	exit 0
}
mkdir -p build/node
command -v node >/dev/null || skip "node is not installed"
command -v npm >/dev/null || skip "npm is not installed"
[ "$(node -p 'process.versions.node.split(".")[0]')" -ge 20 ] || skip "node is older than 20"
cp test/node/package.json test/node/package-lock.json test/node/openai.test.mjs build/node/
(cd build/node && npm ci --no-audit --no-fund --loglevel=error) >build/npm.log 2>&1 || skip "npm could not install openai"
SERVE_ARGS=test/clients.yaml exec sh test/with-server.sh node --test --test-reporter=dot build/node/openai.test.mjs
