# Stand-ins for the official images of Prometheus and Alertmanager, where no registry of images is reached: Debian's.
FROM debian:bookworm-slim AS monitoring
RUN apt-get update \
    && apt-get install -y --no-install-recommends prometheus prometheus-alertmanager tini \
    && rm -rf /var/lib/apt/lists/* \
    && install --directory --owner=nobody --group=nogroup /prometheus /alertmanager
COPY docker/page-answers /usr/local/bin/
ENTRYPOINT ["tini", "--"]
