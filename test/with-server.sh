#!/bin/sh
# with-server.sh COMMAND...: runs COMMAND while bin/pagoda serves the built-in model on a free port; its address is in
# BASE_URL. A file of options, or more of them, go into SERVE_ARGS. Fails if COMMAND fails or the server does not end well.
set -eu
mkdir -p build
log=$(mktemp build/server.XXXXXX)
bin/pagoda serve ${SERVE_ARGS:-} --port 0 --log-format json 2>"$log" &
server=$!
trap 'kill $server 2>/dev/null || true' EXIT
url() { sed -n 's/.*"url":"\([^"]*\)".*"message":"ready".*/\1/p' "$log"; }
tries=0
until [ -n "$(url)" ]; do
	tries=$((tries + 1))
	if [ $tries -gt 300 ] || ! kill -0 $server 2>/dev/null; then
		echo "the server did not start:" >&2
		cat "$log" >&2
		exit 1
	fi
	sleep 0.2
done
BASE_URL=$(url)
export BASE_URL
status=0
"$@" || status=$?
kill -TERM $server
wait $server || {
	echo "the server ended with an error:" >&2
	tail -n 5 "$log" >&2
	status=1
}
trap - EXIT
[ $status -ne 0 ] || rm -f "$log"
exit $status
