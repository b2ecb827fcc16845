# The CPU image: the server with its built-in model, on Debian without anything added, not as root.
#
#   docker build -t pagoda --build-arg COMMIT=$(git rev-parse --short=12 HEAD) .
#   docker run --rm -p 8000:8000 pagoda
#   docker run --rm -p 8000:8000 -v /models/Qwen3-0.6B:/model:ro pagoda serve --model /model
#
# Options may come as variables too (-e PAGODA_PORT=9000); the health check heeds those.
# Each RUN is a make target; test/bare-debian.sh runs these same lines on a bare Debian, and the runtime too.
ARG DEBIAN=trixie
ARG GO_VERSION=1.26.8
ARG RUST_VERSION=1.95.0

FROM rust:${RUST_VERSION}-slim-${DEBIAN} AS rust

FROM golang:${GO_VERSION}-${DEBIAN} AS build
COPY --from=rust /usr/local/rustup /usr/local/rustup
COPY --from=rust /usr/local/cargo /usr/local/cargo
ENV RUSTUP_HOME=/usr/local/rustup CARGO_HOME=/usr/local/cargo PATH=/usr/local/cargo/bin:$PATH
WORKDIR /src
# The Rust archive takes minutes and changes seldom: a layer of its own, which -o below keeps.
COPY Makefile VERSION go.mod ./
COPY test/need.sh test/need.sh
COPY ffi/rust ffi/rust
RUN make build/lib/libtokenizers.a
COPY . .
ARG COMMIT=unknown
RUN make -o build/lib/libtokenizers.a install COMMIT=$COMMIT DESTDIR=/out PREFIX=/usr

FROM debian:${DEBIAN}-slim
LABEL org.opencontainers.image.title="Pagoda" \
      org.opencontainers.image.description="OpenAI-compatible inference server with a small built-in model" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/LICENSE /usr/share/doc/pagoda/LICENSE
COPY --from=build /out/usr/bin/pagoda /usr/bin/pagoda
ENV PAGODA_HOST=0.0.0.0
USER 65532:65532
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s CMD ["pagoda", "health"]
ENTRYPOINT ["pagoda"]
CMD ["serve"]
