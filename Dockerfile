# A static binary and the CA certificates, nothing else; runs as nobody.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /out/relay ./relay \
 && /out/relay version \
 && mkdir -p /out/state /out/run

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/relay /relay
# The outbox and the socket; mount volumes here. Mode 0700, owned by the user below.
COPY --from=build --chown=65532:65532 --chmod=0700 /out/state /var/lib/relay
COPY --from=build --chown=65532:65532 --chmod=0750 /out/run /run/relay
USER 65532:65532
ENV STATE_DIRECTORY=/var/lib/relay
VOLUME ["/var/lib/relay", "/run/relay"]
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/relay", "health"]
ENTRYPOINT ["/relay"]
CMD ["serve"]
