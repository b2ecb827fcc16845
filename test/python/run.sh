#!/bin/sh
# run.sh clients|schemathesis|hub: a suite in Python against a real server, in a virtual environment under build/. Where it
# cannot be set up, says so in build/skipped.txt.
set -eu
suite=$1
skip() {
	echo "$suite (Python): $1" | tee -a build/skipped.txt
	exit 0
}
python=${PYTHON:-python3}
case $suite in
clients) requirements=test/python/requirements.txt ;;
schemathesis) requirements=test/python/requirements-schemathesis.txt ;;
hub) requirements=test/python/requirements-hub.txt ;;
esac
mkdir -p build
command -v "$python" >/dev/null || skip "python3 is not installed"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || skip "python3 is older than 3.10"
"$python" -c 'import venv, ensurepip' 2>/dev/null || skip "python3 has no venv (apt-get install python3-venv)"
venv=build/venv-$suite
if ! cmp -s "$requirements" "$venv/installed"; then
	rm -rf "$venv"
	"$python" -m venv "$venv"
	"$venv/bin/pip" install -q -r "$requirements" >build/pip.log 2>&1 ||
		skip "pip could not install $(tr '\n' ' ' <"$requirements")"
	cp "$requirements" "$venv/installed"
fi
export SERVE_ARGS=test/clients.yaml
case $suite in
hub) ;; # the tests of package hub find it
clients) exec sh test/with-server.sh "$venv/bin/python" test/python/test_openai.py -q ;;
schemathesis) API_KEY=schemathesis exec sh test/with-server.sh sh test/python/schemathesis.sh "$venv/bin/schemathesis" ;;
esac
