# The images of docker-compose.yml: ticketd, which is what `docker build .` makes, and its two servers with their
# settings inside. All that they are made of is pinned to a release. Compose v2 builds with BuildKit, which COPY --chmod
# needs; an old `docker build` does so with DOCKER_BUILDKIT=1.

# The servers read their settings as users of their own, whatever umask the checkout was made with. Copied only into
# folders that are there: of one that COPY has to make, --chmod would take the right to enter it.
FROM postgres:18.6 AS postgres
COPY --chmod=644 deploy/conf/postgresql.conf /etc/postgresql.conf

FROM rabbitmq:4.3.6 AS rabbitmq
COPY --chmod=644 deploy/conf/rabbitmq.conf /etc/rabbitmq/conf.d/20-ticketd.conf
COPY --chmod=644 deploy/conf/advanced.config /etc/rabbitmq/advanced.config

# The same for the profile tls, which mounts the certificates.
FROM postgres AS postgres-tls
COPY --chmod=644 deploy/conf/pg_hba-tls.conf /etc/postgresql-hba.conf

FROM rabbitmq AS rabbitmq-tls
COPY --chmod=644 deploy/conf/rabbitmq-tls.conf /etc/rabbitmq/conf.d/30-tls.conf

# For the profile observability.
FROM prom/prometheus:v3.5.0 AS prometheus
COPY --chmod=644 deploy/prometheus/prometheus.yml /etc/prometheus/prometheus.yml
COPY --chmod=644 deploy/prometheus/ticketd.rules.yml /etc/prometheus/ticketd.rules.yml

FROM grafana/grafana:12.1.0 AS grafana
COPY --chmod=644 deploy/grafana/datasource.yml /etc/grafana/provisioning/datasources/ticketd.yml
COPY --chmod=644 deploy/grafana/dashboards.yml /etc/grafana/provisioning/dashboards/ticketd.yml
COPY --chmod=644 deploy/grafana/ticketd.json /etc/grafana/provisioning/dashboards/ticketd.json

# For the profile scale.
FROM haproxy:3.2.4 AS balancer
COPY --chmod=644 deploy/conf/haproxy.cfg /usr/local/etc/haproxy/haproxy.cfg

# Of the same Debian release as what the binary runs on, so that it finds the C library it was built with.
FROM rust:1.95.0-bookworm AS build
WORKDIR /build
# The image gets no debug information, three quarters of the binary; function names stay, for backtraces.
ENV CARGO_PROFILE_RELEASE_DEBUG=none CARGO_PROFILE_RELEASE_STRIP=debuginfo
# The dependencies first, with nothing in the place of the sources: a layer that only the manifests and Cargo.lock
# invalidate. A cache mount for target/ would be quicker still, but every checkout on the machine would share it.
# Nothing of the workspace's other members is built, but cargo reads their manifests and asks for a target in each.
COPY Cargo.toml Cargo.lock ./
COPY loadtest/Cargo.toml loadtest/
COPY tests/support/Cargo.toml tests/support/
RUN mkdir -p src benches loadtest/src tests/support/src && touch src/lib.rs tests/support/src/lib.rs && \
    echo 'fn main() {}' >src/main.rs && cp src/main.rs benches/tickets.rs && cp src/main.rs loadtest/src/main.rs && \
    cargo build --release --locked --bin ticketd
COPY . .
# What `ticketd --version` and /version say of the source: git is not here to ask.
ARG REVISION=unknown
# cargo goes by times, and these files may be older than what stood in their place.
RUN touch src/lib.rs src/main.rs && TICKETD_REVISION=$REVISION cargo build --release --locked --bin ticketd

FROM debian:bookworm-20261005-slim AS ticketd
COPY --from=build /build/target/release/ticketd /usr/local/bin/ticketd
# The CAs that count for amqps:// and sslmode=verify-full where none are set.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# A number, so that an orchestrator can check that it is not root; the process writes no files.
USER 10001:10001
# Other containers and the host reach the service from outside; the default of the binary is loopback. Not LISTEN, which
# would count more than the port that a platform sets.
ENV PORT=8080
EXPOSE 8080
# Drains: no new tickets, open confirms awaited, batches stored, then the exit.
STOPSIGNAL SIGTERM
# Longer than the command itself waits, so that it can say what is wrong.
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=3 CMD ["ticketd", "healthcheck"]
ENTRYPOINT ["ticketd"]
CMD ["serve"]
# For a release: --build-arg REVISION="$(git rev-parse HEAD)" --build-arg SOURCE=URL, where the source is to be had.
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG SOURCE=
LABEL org.opencontainers.image.title="ticketd" \
      org.opencontainers.image.description="Takes sales receipts over HTTP and puts each one into PostgreSQL exactly once, through RabbitMQ." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
