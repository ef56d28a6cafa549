# One program, already built: `make images` puts the static binaries into bin/ and builds this for each of them.
# Nothing is pulled and nothing is compiled here.
FROM scratch
ARG BINARY
COPY ${BINARY} /program
# Numeric, so that the kubelet can check runAsNonRoot.
USER 65532:65532
ENTRYPOINT ["/program"]
