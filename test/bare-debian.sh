#!/bin/sh
# bare-debian.sh [COMMIT]: what a newcomer does, on a bare Debian in a folder that has nothing but Go, cargo, make and a
# C compiler: `make run`, a request from outside, the Dockerfile's steps and its runtime, `make test`. About 15 minutes
# on two cores, 4 GB of disk, a network that reaches a Debian mirror, Go's proxy and crates.io.
#
# Must run as root (debootstrap, chroot, mounts, in a mount and process namespace of its own); what is built and served
# inside is not root's. Needs debootstrap, curl and git here; Go and Rust are copied from here, so they must be
# installed as their own sites say, not from a distribution. Proxies and certificates of this machine are passed on.
#
#   SUITE   release of Debian (trixie)     MIRROR  where packages come from     TMPDIR  where the folder is made
#   GO, CARGO  programs, where PATH does not have them (sudo drops it)          KEEP=1  leaves the folder
set -eu
cd "$(dirname "$0")/.."
GO=${GO:-go} CARGO=${CARGO:-cargo} SUITE=${SUITE:-trixie} MIRROR=${MIRROR:-http://deb.debian.org/debian}

die() {
	echo "bare-debian: $1" >&2
	exit 1
}

# outside checks what is needed and runs the rest in namespaces of its own, so that no mount and no process is left.
outside() {
	[ "$(id -u)" = 0 ] || die "must run as root: sudo GO=\$(command -v go) CARGO=\$(command -v cargo) sh test/bare-debian.sh"
	for tool in debootstrap curl git unshare "$GO" "$CARGO"; do
		command -v "$tool" >/dev/null || die "$tool is not installed"
	done
	rust=$("$(dirname "$(command -v "$CARGO")")/rustc" --print sysroot)
	{ [ -x "$rust/bin/cargo" ] && [ "$rust" != /usr ]; } || die "cargo is not in a folder of its own (https://rustup.rs)"
	work=$(mktemp -d "${TMPDIR:-/tmp}/bare-debian.XXXXXX")
	[ -n "${KEEP:-}" ] || trap 'rm -rf --one-file-system "$work"' EXIT
	git -c safe.directory="$PWD" archive --output="$work/src.tar" "${1:-HEAD}"
	status=0
	INSIDE=1 WORK=$work RUST=$rust GOROOT=$("$GO" env GOROOT) COMMIT=$(git -c safe.directory="$PWD" rev-parse --short=12 "${1:-HEAD}") \
		unshare --mount --pid --fork --kill-child sh test/bare-debian.sh || status=$?
	[ -z "${KEEP:-}" ] || echo "left in $work"
	exit $status
}

began=$(date +%s)
# step NAME COMMAND...: runs it, tells how long it took; its output is shown only if it fails.
step() {
	name=$1 from=$(date +%s)
	shift
	"$@" >"$WORK/log" 2>&1 & # not before ||, where a shell forgets -e
	wait $! || {
		cat "$WORK/log"
		die "$name: failed"
	}
	echo "$name: $(($(date +%s) - from)) s"
}

# network writes this machine's way to the outside as shell variables.
network() {
	for name in http_proxy https_proxy ftp_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY \
		$(env | sed -n 's/^\(CARGO_\(HTTP\|NET\|SOURCE\|REGISTR\)[A-Z0-9_]*\)=.*/\1/p' | grep -v CAINFO); do
		eval "value=\${$name-}"
		[ -z "$value" ] || echo "export $name=$(quote "$value")"
	done
	for name in GOPROXY GONOPROXY GOSUMDB GONOSUMDB GOPRIVATE GOINSECURE; do
		echo "export $name=$(quote "$("$GO" env $name)")"
	done
}
quote() { printf "'%s'" "$(printf %s "$1" | sed "s/'/'\\\\''/g")"; }

# as USER FOLDER COMMAND...: runs it in that root, with nothing of this machine's environment.
as() {
	user=$1 folder=$2
	shift 2
	chroot --userspec="$user" "$folder" env -i HOME=/newcomer LANG=C.UTF-8 TERM=dumb \
		PATH=/usr/local/go/bin:/usr/local/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin sh -c '
		. /etc/network.sh
		cd /src
		exec "$@"' sh "$@"
}
newcomer() { as 1000:1000 "$root" "$@"; }

mounts() {
	mount -t proc proc "$1/proc"
	mount --rbind /dev "$1/dev"
}

# answers URL: the server there is ready and knows the capital of Japan.
answers() {
	tries=0
	until curl -sf "$1/ready" >/dev/null; do
		tries=$((tries + 1))
		[ $tries -lt 600 ] && kill -0 "$server" 2>/dev/null || return 1
		sleep 0.5
	done
	curl -sf "$1/v1/chat/completions" -H 'Content-Type: application/json' -d '{"model": "pagoda-demo", "temperature": 0,
		"messages": [{"role": "user", "content": "What is the capital of Japan?"}]}' | grep 'The capital of Japan is Tokyo'
}
# address LOG: where the server that writes this log listens; waits for it.
address() {
	until grep -q '"message":"ready"' "$1"; do
		kill -0 "$server" 2>/dev/null || return 1
		sleep 0.5
	done
	sed -n 's/.*"url":"\([^"]*\)".*/\1/p' "$1" | head -n 1
}

bootstrap() {
	debootstrap --variant=minbase "$SUITE" "$runtime" "$MIRROR"
	cp /etc/resolv.conf /etc/hosts "$runtime/etc/"
	cp -a "$runtime" "$root"
	network >"$root/etc/network.sh"
	mounts "$root"
	mkdir -p "$root/src" "$root/out"
	as 0:0 "$root" apt-get update
	as 0:0 "$root" apt-get install -y --no-install-recommends make gcc libc6-dev ca-certificates
	for certificates in "${SSL_CERT_FILE:-}" "${CARGO_HTTP_CAINFO:-}" /etc/ssl/certs/ca-certificates.crt; do
		[ ! -f "$certificates" ] || break
	done
	cp "$certificates" "$root/etc/ssl/certs/ca-certificates.crt"
	as 0:0 "$root" useradd --create-home --home-dir /newcomer --uid 1000 newcomer
	tar -x --no-same-owner -C "$root/src" -f "$WORK/src.tar"
	config=${CARGO_HOME:-$HOME/.cargo}/config.toml
	[ ! -f "$config" ] || install -D -m 644 "$config" "$root/newcomer/.cargo/config.toml"
	chown -R 1000:1000 "$root/src" "$root/out" "$root/newcomer"
}

# lacking: without Go and cargo, one line each says so.
lacking() {
	if newcomer make build 2>"$WORK/missing"; then return 1; fi
	cat "$WORK/missing"
	[ "$(grep -c '^missing: ' "$WORK/missing")" = 2 ] &&
		grep -q '^missing: Go' "$WORK/missing" && grep -q '^missing: cargo' "$WORK/missing"
}

toolchains() {
	cp -a "$GOROOT" "$root/usr/local/go"
	mkdir "$root/usr/local/rust"
	cp -a "$RUST/bin" "$RUST/lib" "$root/usr/local/rust/"
}

# make_run: from sources to an answer.
make_run() {
	newcomer make run ARGS="--port 0 --log_format json" >"$WORK/server.log" 2>&1 &
	server=$!
	if ! url=$(address "$WORK/server.log") || ! answers "$url"; then
		cat "$WORK/server.log"
		return 1
	fi
	kill -TERM "$server"
	wait "$server" || true # make calls its end by a signal an error
}

# image_build: the RUN lines of the Dockerfile, with its COMMIT.
image_build() {
	sed -n 's/^RUN //p' "$root/src/Dockerfile" >"$root/src/build/image.sh"
	grep -q '^make' "$root/src/build/image.sh"
	newcomer env COMMIT="$COMMIT" sh -eux build/image.sh
}

# image_run: the image's last stage: the files of the runtime base and the program, nothing writable, not root.
image_run() {
	install -D -m 755 "$root/out/usr/bin/pagoda" "$runtime/usr/bin/pagoda"
	mount --bind "$runtime" "$runtime"
	mounts "$runtime"
	mount -o remount,bind,ro "$runtime"
	if chroot "$runtime" touch /tmp/x; then return 1; fi
	set -- chroot --userspec=65532:65532 "$runtime" env -i PATH=/usr/bin:/bin PAGODA_HOST=0.0.0.0 PAGODA_PORT="$port"
	"$@" pagoda version
	if "$@" pagoda health; then return 1; fi # nothing listens yet
	"$@" pagoda serve >"$WORK/server.log" 2>&1 &
	server=$!
	if ! answers "http://127.0.0.1:$port" || ! "$@" pagoda health; then
		cat "$WORK/server.log"
		return 1
	fi
	kill -TERM "$server"
	wait "$server"
}

inside() {
	root=$WORK/root runtime=$WORK/runtime port=${PORT:-18417}
	step "a bare Debian $SUITE with make and gcc" bootstrap
	step "make build says what is missing" lacking
	step "copying Go and Rust" toolchains
	step "make run, from sources to an answer" make_run
	step "make build, nothing changed" newcomer make build
	step "make install and the rest of the Dockerfile's steps" image_build
	step "the image's runtime as 65532, read-only" image_run
	step "make test" newcomer make test
	sed -n '/tests passed/p; /^skipped:/,$p' "$WORK/log"
	echo "all: $(($(date +%s) - began)) s"
}

if [ -n "${INSIDE:-}" ]; then inside; else outside "$@"; fi
