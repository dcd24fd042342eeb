"""The README.txt of every bundle: how to check it with tools that are not ours.

The script is tested as it stands here (tests/interop/test_readme_script.py).
"""

README = r"""This folder is the signed transcript of one session, written by Interlock.

  events.jsonl        what happened: one JSON object a line, each naming the hash of the line before
  disclosures.jsonl   the texts (commands, input, output) that events.jsonl holds only salted hashes of
  seal.json(.sig)     number of events, last hash, hashes of all files; signed (SSHSIG) by the session's own key
  policies/           the exact policies that decided
  replay.cast         a recording for asciinema (only in an export), derived from the above

`interlock verify FOLDER --trust DIR` checks everything. To check signature, files, chain and texts without us, save the
lines from #! to the end as check.sh and run `bash check.sh FOLDER ALLOWED_SIGNERS`. Obtain ALLOWED_SIGNERS from the
operator's auditors, never from whoever gave you this folder.

#!/bin/bash
set -euo pipefail; shopt -s lastpipe; trust=$(realpath "$2"); cd "$1"; n=0; prev=$(printf '0%.0s' {1..64})
ssh-keygen -Y verify -f "$trust" -I "$(jq -r .session seal.json)" -n session-seal@interlock -s seal.json.sig \
  -Overify-time="$(jq -r '.closed[:19] | gsub("[-T:]"; "")' seal.json)Z" < seal.json
jq -r '.files | to_entries[] | .value + "  " + .key' seal.json | sha256sum --check --strict --quiet
jq -r '[.seq, .prev] | join(" ")' events.jsonl | while read -r seq link && IFS= read -r line <&3; do
  [ "$seq $link" = "$n $prev" ] || { echo "the chain breaks at event $n"; exit 8; }
  prev=$(printf '\0%s' "$line" | sha256sum); prev=${prev%% *}; n=$((n + 1))
done 3< events.jsonl
[ "$(jq -r '[.events, .head] | join(" ")' seal.json)" = "$n $prev" ] || { echo "the seal is of other events"; exit 8; }
b64() { openssl dgst -sha256 -binary | basenc --base64url | tr -d =; }
diff <(jq -r '._sd[]?, (.cast // empty)' events.jsonl seal.json | sort) \
  <(jq -r .d disclosures.jsonl | while read -r d; do printf %s "$d" | b64; done | sort) || { echo "texts are missing"; exit 8; }
echo "good: $n events, signed, unbroken, with every text"
"""
