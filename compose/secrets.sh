#!/bin/sh
# Makes the passwords of the stack at its first start, each service's in a volume of its own, readable by it alone.
# A password that is there already is kept: `docker compose down -v` takes them away with the data they belong to.
set -eu
umask 077
cd "${SECRETS:-/secrets}"

new() {
    [ -s "$1" ] || od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"$1"
}

new postgres/superuser
new postgres/batsignal
new postgres/shop
new grafana/admin_password
batsignal=$(cat postgres/batsignal)
shop=$(cat postgres/shop)
printf '"batsignal" "%s"\n"shop" "%s"\n' "$batsignal" "$shop" >pgbouncer/userlist.txt
printf 'postgres:5432:*:batsignal:%s\npgbouncer:6432:*:batsignal:%s\n' "$batsignal" "$batsignal" >batsignal/pgpass
printf 'postgres:5432:*:shop:%s\npgbouncer:6432:*:shop:%s\n' "$shop" "$shop" >shop/pgpass

# The users that the images run as.
give() {
    chown -R "$2:$2" "$1"
    chmod 0500 "$1"
    chmod 0400 "$1"/*
}
give postgres 999
give pgbouncer 70
give batsignal 10001
give shop 10001
give grafana 472
