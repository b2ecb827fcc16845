#!/bin/sh
# arm64.sh: builds the kernels for 64-bit ARM and runs their tests, shortened, under an emulator; about a minute, half of
# it once. What is missing for that becomes a line of build/skipped.txt. On ARM itself the Go tests cover them.
set -eu
GO=${GO:-go} CC=aarch64-linux-gnu-gcc
mkdir -p build
skip() {
	echo "kernels neon: $1" | tee -a build/skipped.txt
	exit 0
}
[ "$("$GO" env GOARCH)" != arm64 ] || exit 0
command -v $CC >/dev/null || skip "neither built nor tested, no $CC (apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross)"
# Static, so that the emulator need not find libraries.
GOOS=linux GOARCH=arm64 CGO_ENABLED=1 CC=$CC "$GO" test -c -ldflags '-linkmode external -extldflags -static' \
	-o build/kernels-arm64.test ./kernels
emulator=$(command -v qemu-aarch64 || command -v qemu-aarch64-static) || skip "built, but not tested, no qemu-aarch64 (apt-get install qemu-user)"
# Tests without variants have nothing to show here; those left out take long and measure the machine.
"$emulator" build/kernels-arm64.test -test.short -test.run '/^neon$' -test.skip '^(TestNoLeak|TestMeasureLimits)$'
