#!/usr/bin/env bash
# The demo's door: says what is missing before it starts, then hands over to demo.py.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

if [ "${BASH_VERSINFO[0]}" -lt 5 ]; then
  echo "demo: bash 5 or newer is missing (this is $BASH_VERSION): apt-get install bash"; exit 2
fi
for tool in ssh ssh-keygen; do
  command -v "$tool" >/dev/null || { echo "demo: an OpenSSH client is missing ($tool): apt-get install openssh-client"; exit 2; }
done
exec "$root/.venv/bin/python" "$here/demo.py" "$@"
