#!/usr/bin/env bash
# Installs the real servers and clients that the tests run against. Says what it installs; needs apt for what is missing.
set -euo pipefail

declare -A package=(
  [/usr/sbin/sshd]=openssh-server
  [/usr/bin/ssh]=openssh-client
  [/usr/bin/psql]=postgresql-client
  [/usr/bin/asciinema]=asciinema
  [/usr/sbin/pgbouncer]=pgbouncer
  [/usr/sbin/haproxy]=haproxy
  [/usr/bin/jq]=jq
  [/usr/bin/git]=git
  [/usr/bin/rsync]=rsync
  [/usr/bin/chromium]=chromium
  [/bin/busybox]=busybox
  [/usr/bin/node]=nodejs
  [/usr/bin/npm]=npm
)
missing=()
for file in "${!package[@]}"; do [ -e "$file" ] || missing+=("${package[$file]}"); done
compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || missing+=(postgresql)

# The identity provider of the login tests, from the lock beside it: nothing of a package runs while it is installed.
install_provider() {
  local folder="$(dirname "$0")/../tests/idp"
  [ "$folder/node_modules/.package-lock.json" -nt "$folder/package-lock.json" ] && return
  echo "setup-test: installing the tests' identity provider by npm ci into tests/idp/node_modules"
  (cd "$folder" && npm ci --ignore-scripts --no-audit --no-fund --silent)
  touch "$folder/node_modules/.package-lock.json"
}

if [ ${#missing[@]} -eq 0 ]; then
  install_provider
  exit 0
fi

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
install_provider
