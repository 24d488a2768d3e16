#!/bin/sh
# Does what a manifest's program is asked for: reads its configuration, keeps its data, says its words, listens at the ports in
# LISTEN. Its name is the program's.
say="$*"
www=/www
listening() { netstat -ltn | grep -q ":$1 "; }
case ${0##*/} in
nginx)
    [ "$1" = -s ] && { echo "nginx $*" >/proc/1/fd/1; exit 0; }
    LISTEN=$(sed -n 's/^ *listen \([0-9]*\);.*/\1/p' /etc/nginx/conf.d/default.conf) || exit 1
    www=$(sed -n 's/^ *root \([^;]*\);.*/\1/p' /etc/nginx/conf.d/default.conf)
    say="nginx serves $www on $LISTEN" ;;
redis-server) say="redis reads $(grep '^maxmemory ' "$1")" || exit 1; : >/redis-master-data/dump.rdb || exit 1 ;;
redis-cli) listening 6379 && echo PONG; exit ;;
mysqld)
    [ -n "$MYSQL_ROOT_PASSWORD" ] && grep -q server-id=100 /etc/mysql/conf.d/server-id.cnf || exit 1
    : >/var/lib/mysql/ibdata1 || exit 1
    say="mysqld keeps its data in /var/lib/mysql" ;;
mysql | mysqladmin) listening 3306; exit ;;
postgres)
    secret=$(cat "$POSTGRES_PASSWORD_FILE") && mkdir -p -m 700 "$PGDATA" && echo 18 >"$PGDATA/PG_VERSION" && : >/dev/shm/x || exit 1
    say="postgres as $(id -u):$(id -g) with a password of ${#secret} characters" ;;
pg_isready) listening 5432; exit ;;
mosquitto)
    LISTEN=$(sed -n 's/^listener //p' "$2") || exit 1
    : >/mosquitto/data/mosquitto.db && : >/mosquitto/log/mosquitto.log || exit 1
    say="mosquitto as $(id -u):$(id -g)" ;;
start-zookeeper) mkdir -p "${2#*=}" || exit 1; say="start-zookeeper $* as $(id -u)" ;;
zookeeper-ready) listening "$1"; exit ;;
ready-probe.sh) listening 9042; exit ;;
nodetool | wait-shutdown) echo "${0##*/} $*" >/proc/1/fd/1; exit ;;
perl) echo 3.14159; exit ;;
vault | kube-proxy | local-path-provisioner) say="${0##*/} $*" ;;
esac
for port in $LISTEN; do httpd -p "$port" -h "$www" || exit 1; done
echo "$say${LISTEN:+ listens on $LISTEN}"
trap 'exit 0' TERM INT
while :; do sleep 3600 & wait $!; done
