#!/bin/sh
# cuda.sh [vet|build|check]: what the build tag cuda needs, and with it
#   (nothing)  the tests of the layer over the driver, which run without one too; into build/skipped.txt goes what did not
#   vet        go vet and staticcheck
#   build      build/gpu/*.test: the tests as programs, to be taken to a machine with a GPU
#   check      builds them where there is a Go, and runs them: the kernels beside their references, and their speed
set -eu
GO=${GO:-go}
what=${1:-test}
programs=build/gpu
run() {
	$programs/cudrv.test -test.v
	exec $programs/cuda.test -test.v
}
[ "$what" != check ] || command -v "$GO" >/dev/null || run
sh kernels/cudrv/libcuda/build.sh
CGO_LDFLAGS="-L$PWD/build/cuda ${CGO_LDFLAGS:-}"
CGO_CFLAGS="-O2 -I$PWD/kernels/cudrv/libcuda ${CGO_CFLAGS:-}"
export CGO_LDFLAGS CGO_CFLAGS
packages=./kernels/cudrv
[ ! -f kernels/cuda/kernels.fatbin ] || packages="$packages ./kernels/cuda"
# shellcheck disable=SC2086 # $packages is a list
case $what in
vet) "$GO" vet -tags cuda $packages && build/staticcheck -tags cuda $packages ;;
test)
	"$GO" run ./test/summary -skips build/skipped-cuda.txt -tags cuda $packages
	cat build/skipped-cuda.txt >>build/skipped.txt
	rm -f build/skipped-cuda.txt
	[ -f kernels/cuda/kernels.fatbin ] || echo "kernels/cuda: not compiled; make cuda does so" | tee -a build/skipped.txt
	;;
build | check)
	sh kernels/cuda/build.sh
	mkdir -p $programs
	"$GO" test -tags cuda -c -o $programs/cudrv.test ./kernels/cudrv
	"$GO" test -tags cuda -c -o $programs/cuda.test ./kernels/cuda
	[ "$what" = build ] || run
	;;
*)
	echo "cuda.sh: no $what" >&2
	exit 2
	;;
esac
