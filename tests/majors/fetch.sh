#!/bin/sh
# Fetches PostgreSQL 14, 16 and 17 with npm, as the lock beside this file says, into a cache outside of the repository,
# and prints where they are. Once for each lock; those that come meanwhile wait.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# PostgreSQL does not run as root: the user that it runs as must be able to enter.
if [ "$(id -u)" -eq 0 ]; then cache=/var/cache/batsignal-tests; else cache=${XDG_CACHE_HOME:-$HOME/.cache}/batsignal-tests; fi
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
found=$cache/postgresql-$(sha256sum "$here/package-lock.json" | cut -c1-16)
if [ ! -d "$found" ]; then
    fresh=$(mktemp -d "$cache/fresh.XXXXXX")
    trap 'rm -rf "$fresh"' EXIT
    cp "$here/package.json" "$here/package-lock.json" "$fresh"
    cd "$fresh"
    npm ci --ignore-scripts --no-audit --no-fund >&2
    for package in node_modules/postgresql-*; do
        # npm packs no links: the package lists them, and makes them by this.
        (cd "$package" && node scripts/hydrate-symlinks.js)
    done
    chmod 755 "$fresh"
    mv "$fresh" "$found"
fi
echo "$found/node_modules"
