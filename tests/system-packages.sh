#!/bin/sh
# Installs the Debian packages that the tests start for real, where one is missing; prints the one line to run as
# root when we are not. The servers are started by the tests themselves, so no service may start on installation.
set -eu
packages="systemd postgresql-15 postgresql-client-15 pgbouncer prometheus prometheus-alertmanager victoria-metrics prometheus-postgres-exporter chromium chromium-driver openssl iproute2 docker-compose netcat-openbsd"
missing=""
for package in $packages; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
# The browser tests fetch axe-core with npm, whoever brought it.
command -v npm >/dev/null || missing="$missing npm"
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "The tests need packages that are not installed. Run once:" >&2
    echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends$missing" >&2
    exit 1
fi
# policy-rc.d keeps packages from starting servers; it is put back as it was.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list of words on purpose
apt-get install -y -qq --no-install-recommends $missing >/dev/null
