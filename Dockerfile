# syntax=docker/dockerfile:1

# The base of both images is the same Debian release, so that the binary finds the C library it was built with.
FROM rust:1-bookworm AS build
WORKDIR /build
COPY . .
# The caches outlive the layer: after a change, only ticketd itself is compiled again, not its dependencies.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin ticketd && \
    install -D target/release/ticketd /out/ticketd

FROM debian:bookworm-slim
COPY --from=build /out/ticketd /usr/local/bin/ticketd
# A number, so that an orchestrator can check that it is not root; the process writes no files.
USER 10001:10001
# Other containers and the host reach the service from outside; the default of the binary is loopback.
ENV LISTEN=0.0.0.0:8080
EXPOSE 8080
# Drains: no new tickets, open confirms awaited, batches stored, then the exit.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["ticketd", "healthcheck"]
ENTRYPOINT ["ticketd"]
CMD ["serve"]
