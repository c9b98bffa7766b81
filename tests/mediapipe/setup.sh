#!/bin/sh
# MediaPipe's wheel links to EGL and GLES, even to compute on the CPU. Installed only as root on Debian.
set -eu

{ ldconfig -p || true; } | grep -q libGLESv2.so.2 && { ldconfig -p || true; } | grep -q libEGL.so.1 && exit 0
if [ "$(id -u)" -ne 0 ] || [ ! -f /etc/debian_version ]; then
    echo "error: MediaPipe needs libEGL.so.1 and libGLESv2.so.2" >&2
    echo "hint: apt install libegl1 libgles2" >&2
    exit 3
fi
apt-get update --quiet --quiet
DEBIAN_FRONTEND=noninteractive apt-get install --quiet --quiet --yes --no-install-recommends libegl1 libgles2
