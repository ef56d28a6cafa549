# One program, already built: `make images` puts the static binaries into bin/ and builds this for each of them.
# Nothing is pulled and nothing is compiled here.
FROM scratch AS program
ARG BINARY
COPY ${BINARY} /program
# Numeric, so that the kubelet can check runAsNonRoot.
USER 65532:65532
ENTRYPOINT ["/program"]

# Threads that nobody needs cost every Pod a third of a megabyte, and there are as many as processors when a program starts.
FROM program AS small
ENV GOMAXPROCS=1
