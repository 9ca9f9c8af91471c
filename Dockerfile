# The image of a lab's containers: chitcpd and chisocket on PATH, a user without rights, and the tools with which a script
# of root's shapes and captures links, beside a chitcpd that never has root's rights (testbed/backends/setup.py).
# Ordinary on purpose: any engine's builder takes it, the classic one too.

FROM debian:bookworm-slim AS build
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      ca-certificates gcc libc6-dev python3 python3-dev python3-venv \
 && rm -rf /var/lib/apt/lists/*
# pip has a place of its own: the image needs what pip installs, not pip.
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/chitcp
WORKDIR /src
# The dependencies first, from pyproject.toml alone: a changed source file does not install them anew.
COPY pyproject.toml ./
RUN python3 -c "import tomllib; print('\n'.join(tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies']))" \
      > requirements.txt \
 && /opt/pip/bin/pip --python /opt/chitcp/bin/python install --no-cache-dir -r requirements.txt
COPY LICENSE README.md hatch_build.py ./
COPY chitcpd chitcpd
COPY chisocket chisocket
COPY testbed testbed
RUN /opt/pip/bin/pip --python /opt/chitcp/bin/python install --no-cache-dir --no-deps .

# libchisocket, chirun and the samples in C.
FROM debian:bookworm-slim AS build-c
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      gcc libc6-dev libprotobuf-c-dev meson pkg-config protobuf-c-compiler \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY chisocket/protocol/chitcpd.proto chisocket/protocol/
COPY chisocket/c chisocket/c
RUN meson setup --buildtype release --strip --libdir lib build chisocket/c && DESTDIR=/out meson install -C build

FROM debian:bookworm-slim
# curl, iperf3, netcat and redis are applications for labs (`via: chirun`); the rest is ours.
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      ethtool iproute2 libprotobuf-c1 python3 tcpdump \
      curl iperf3 netcat-openbsd redis-server redis-tools \
 && apt-get clean && rm -rf /var/lib/apt/lists/* \
 # Nobody can become root: root's commands in a host's container have rights that chitcpd must not have.
 && find / -xdev -type f -perm /6000 -exec chmod a-s {} +
# /run/chitcp: the daemon's socket, a volume that applications mount; /run/chitcp-control: its socket for control, which
# they don't; /var/lib/chitcp: captures, written by the daemon and, through the group, by root's tcpdump, which has no
# right to override permissions; /work: an application's files.
RUN groupadd --gid 23300 chitcp \
 && useradd --uid 23300 --gid 23300 --home-dir /work --no-create-home --shell /bin/bash chitcp \
 && install -d -o chitcp -g chitcp -m 0755 /run/chitcp /work \
 && install -d -o chitcp -g chitcp -m 0700 /run/chitcp-control \
 && install -d -o chitcp -g root -m 0775 /var/lib/chitcp
COPY --from=build /opt/chitcp /opt/chitcp
COPY --from=build-c /out/usr/local /usr/local
RUN ldconfig
ENV PATH=/opt/chitcp/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUNBUFFERED=1 \
    CHITCPD_SOCK=/run/chitcp/chitcpd.sock \
    CHITCPD_CONTROL=/run/chitcp-control/chitcpd.sock
USER chitcp
WORKDIR /work
CMD ["chitcpd"]
