#!/bin/sh
# schemathesis.sh BINARY: valid and invalid requests made from /openapi.json; each answer is held to the contract.
# BINARY is a path from here. One worker: hypothesis is not safe for more. The server wants the key in API_KEY.
set -eu
here=$PWD
rm -rf build/schemathesis
mkdir -p build/schemathesis # schemathesis leaves its cache where it runs
cd build/schemathesis
export SCHEMATHESIS_HOOKS="$here/test/python/hooks.py"
"$here/$1" --config-file "$here/test/python/schemathesis.toml" run "$BASE_URL/openapi.json" \
	--header "Authorization: Bearer $API_KEY" --mode all --checks all --max-examples "${MAX_EXAMPLES:-100}" \
	--seed 20261124 --no-color
