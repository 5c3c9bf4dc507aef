#!/bin/sh
# Fill in a picture by the API of `priorpaint serve`, with curl: sh api.sh ADDRESS PICTURE MASK OUT.zip
set -eu
address=${1%/} cookies=$(mktemp)
trap 'rm -f "$cookies"' EXIT
ask() { curl --silent --show-error --fail-with-body -H 'X-Priorpaint: 1' -b "$cookies" -c "$cookies" "$@"; }
id() { sed 's/^{"id":"\([^"]*\)".*/\1/'; }

picture=$(ask -F "file=@$2" "$address/api/pictures" | id)
job=$(ask -F "picture=$picture" -F "mask=@$3" -F samples=2 -F 'settings={"steps": 15}' "$address/api/jobs" | id)
ask --no-buffer "$address/api/jobs/$job/events"
ask -o "$4" "$address/api/jobs/$job/all.zip"
