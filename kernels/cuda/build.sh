#!/bin/sh
# build.sh: compiles the kernels into kernels.fatbin, for compute capabilities 8.0 to 9.0 and, as PTX, for later ones. Uses
# nvcc from $NVCC or the PATH; else NVIDIA's own packages for Python, in a folder under build/.
set -eu
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
nvcc=${NVCC:-$(command -v nvcc || true)}
include=
if [ -z "$nvcc" ]; then
	home=$root/build/nvcc
	if [ ! -x "$home/nvidia/cu13/bin/nvcc" ]; then
		echo "fetching nvcc"
		"${PYTHON:-python3}" -m pip install -q --no-deps --target "$home" nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 \
			nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85
		chmod +x "$home"/nvidia/cu13/bin/* "$home"/nvidia/cu13/nvvm/bin/*
	fi
	nvcc=$home/nvidia/cu13/bin/nvcc
	include="-I$home/nvidia/cu13/include -I$home/nvidia/cu13/include/cccl"
fi
targets="-gencode arch=compute_80,code=sm_80 -gencode arch=compute_86,code=sm_86 -gencode arch=compute_89,code=sm_89
	-gencode arch=compute_90a,code=sm_90a -gencode arch=compute_80,code=compute_80"
# shellcheck disable=SC2086 # the words of $targets and $include are options
"$nvcc" -std=c++17 -O3 -Werror all-warnings $include $targets -fatbin -o kernels.fatbin kernels.cu
