#!/usr/bin/env bash
# Installs the real servers and clients that the tests run against. Says what it installs; needs apt for what is missing.
set -euo pipefail

declare -A package=(
  [/usr/sbin/sshd]=openssh-server
  [/usr/bin/ssh]=openssh-client
  [/usr/bin/psql]=postgresql-client
  [/usr/bin/asciinema]=asciinema
  [/usr/sbin/pgbouncer]=pgbouncer
  [/usr/bin/jq]=jq
  [/usr/bin/git]=git
  [/usr/bin/rsync]=rsync
  [/usr/bin/chromium]=chromium
  [/bin/busybox]=busybox
)
missing=()
for file in "${!package[@]}"; do [ -e "$file" ] || missing+=("${package[$file]}"); done
compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || missing+=(postgresql)
[ ${#missing[@]} -eq 0 ] && exit 0

echo "setup-test: installing from Debian's packages: ${missing[*]}"
sudo=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "setup-test: run as root, or install these yourself: ${missing[*]}"; exit 2; }
  sudo=(sudo)
fi
export DEBIAN_FRONTEND=noninteractive
"${sudo[@]}" apt-get update -qq
# The packages' own services are not wanted: every test starts its servers itself, in a scratch directory.
"${sudo[@]}" env RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
