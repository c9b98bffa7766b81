#!/bin/sh
# Install the system tools that the tests on emulated devices need. Only as root on Debian; elsewhere the tests name what is missing.
set -eu

if [ "$(id -u)" -ne 0 ] || [ ! -f /etc/debian_version ]; then
    echo "tests/setup_devices.sh: not root on Debian: nothing installed" >&2
    exit 0
fi

packages=""
command -v mmdebstrap >/dev/null || packages="$packages mmdebstrap"
command -v ssh >/dev/null || packages="$packages openssh-client"
command -v adb >/dev/null || packages="$packages adb"
command -v ip >/dev/null || packages="$packages iproute2"
[ -x /usr/sbin/sshd ] || packages="$packages openssh-server"
[ -f /usr/share/keyrings/debian-archive-trixie-stable.gpg ] || packages="$packages debian-archive-keyring"
[ -z "$packages" ] && exit 0

apt-get update --quiet --quiet
# Policy 101: nothing that is installed here may start a service.
RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install --quiet --quiet --yes --no-install-recommends $packages
