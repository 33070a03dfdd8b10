# One small target per binary, FROM scratch, one static executable in it.
#
#   docker build --target engine -t weft.storage/weft-engine:dev .
#
# The stages `build` and `tools` can be replaced by directories with the same content
# (`--build-context build=DIR`), so the final stages also work on their own.

FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends musl-tools
WORKDIR /src
COPY . .
RUN rustup target add x86_64-unknown-linux-musl \
 && cargo build --locked --profile image --target x86_64-unknown-linux-musl \
      -p weft-operator -p weft-drive -p weft-engine -p weft-initiator -p weft-csi \
 && mkdir /out && cd target/x86_64-unknown-linux-musl/image \
 && cp weft-operator weft-drive weft-engine weft-initiator weft-csi /out/ \
 && mkdir -p /rootfs && cp -a /out/. /rootfs/

# The closed list of file system tools that the CSI node plugin runs by absolute path:
# mkfs, fsck and grow for ext4 and xfs, each with the libraries it loads, nothing else.
FROM debian:bookworm AS tools
RUN apt-get update && apt-get install -y --no-install-recommends e2fsprogs xfsprogs
COPY clients/csi/collect-tools.sh /
RUN sh /collect-tools.sh /rootfs

FROM scratch AS operator
COPY --from=build /rootfs/weft-operator /weft-operator
USER 65532:65532
ENTRYPOINT ["/weft-operator"]

FROM scratch AS drive
COPY --from=build /rootfs/weft-drive /weft-drive
ENTRYPOINT ["/weft-drive"]

FROM scratch AS engine
COPY --from=build /rootfs/weft-engine /weft-engine
USER 65532:65532
ENTRYPOINT ["/weft-engine"]

FROM scratch AS initiator
COPY --from=build /rootfs/weft-initiator /weft-initiator
ENTRYPOINT ["/weft-initiator"]

FROM scratch AS csi
COPY --from=tools /rootfs/ /
COPY --from=build /rootfs/weft-csi /weft-csi
ENTRYPOINT ["/weft-csi"]
