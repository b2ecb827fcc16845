#!/bin/sh
# schemathesis.sh BINARY: valid and invalid requests made from /openapi.json; each answer is held to the contract.
# The server wants the key in API_KEY.
set -eu
"$1" --config-file test/python/schemathesis.toml run "$BASE_URL/openapi.json" --header "Authorization: Bearer $API_KEY" \
	--mode all --checks all --max-examples "${MAX_EXAMPLES:-100}" --seed 20261124 --workers 2 --no-color
