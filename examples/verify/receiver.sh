#!/usr/bin/env bash
# A receiver of Standard Webhooks in Bash with openssl: one request on standard input, the
# answer on standard output. Whatever starts a program for each connection can serve it:
#
#   export WEBHOOK_SECRET=whsec_…             # several during a rotation, with spaces between
#   export WEBHOOK_HANDLED=/var/lib/hooks     # a folder that keeps the ids of what was handled
#   socat TCP-LISTEN:9000,bind=127.0.0.1,reuseaddr,fork EXEC:./receiver.sh
#   ./receiver.sh < request.txt               # or a request that was saved
set -euof pipefail
export LC_ALL=C          # bytes, not characters
umask 077
TOLERANCE=300            # seconds between the sender's clock and ours
MAX_BODY=1048576

answer() { printf 'HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n' "$1"; exit 0; }

# hmac prints "v1," and the HMAC-SHA256, by a key in hex, of what is signed. It is made of two
# hashes, because openssl takes a key from its command line only, where everybody on the machine
# can read it. A key of Standard Webhooks is 24 to 64 bytes.
hmac() {
  local key=$1 inner='' outer='' i byte
  while ((${#key} < 128)); do key+=00; done
  for ((i = 0; i < 128; i += 2)); do
    printf -v byte '\\x%02x' $((16#${key:i:2} ^ 0x36)); inner+=$byte
    printf -v byte '\\x%02x' $((16#${key:i:2} ^ 0x5c)); outer+=$byte
  done
  printf 'v1,'
  {
    printf "$outer"
    { printf "$inner"; printf '%s' "$id.$timestamp."; cat "$body"; } | openssl dgst -sha256 -binary
  } | openssl dgst -sha256 -binary | openssl base64 -A
}

# same looks at every character, whatever differs, so how long it takes tells nothing.
same() {
  ((${#1} == ${#2})) || return 1
  local i a b differ=0
  for ((i = 0; i < ${#1}; i++)); do
    printf -v a %d "'${1:i:1}"
    printf -v b %d "'${2:i:1}"
    ((differ |= a ^ b, 1))
  done
  ((differ == 0))
}

read -r _ || exit 0 # the request line
id='' timestamp='' signatures='' length=0
while IFS= read -r line && line=${line%$'\r'} && [[ -n $line ]]; do
  name=${line%%:*} value=${line#*:}
  value=${value#"${value%%[![:space:]]*}"}
  case ${name,,} in
    webhook-id) id=$value ;;
    webhook-timestamp) timestamp=$value ;;
    webhook-signature) signatures=$value ;;
    content-length) length=$value ;;
  esac
done
[[ $length =~ ^[0-9]{1,7}$ ]] && ((10#$length <= MAX_BODY)) || answer '413 Content Too Large'
body=$(mktemp)
trap 'rm -f "$body"' EXIT
head -c "$((10#$length))" >"$body" # byte for byte: a variable would lose line ends

# The id becomes a file name, so it is only what Relay lets it be.
[[ $id =~ ^[A-Za-z0-9_-]{1,64}$ && $timestamp =~ ^[0-9]{1,12}$ ]] || answer '401 Unauthorized'
printf -v now '%(%s)T' -1
age=$((now - 10#$timestamp))
((age <= TOLERANCE && age >= -TOLERANCE)) || answer '401 Unauthorized'

good=false
for secret in $WEBHOOK_SECRET; do
  key=$(printf '%s' "${secret#whsec_}" | openssl base64 -d -A | od -An -v -tx1)
  key=${key//[[:space:]]/}
  [[ -n $key ]] || answer '500 Internal Server Error' # it is not whsec_ and base64
  want=$(hmac "$key")
  for signature in $signatures; do # a sender that changes its secret signs with both
    if same "$signature" "$want"; then good=true; fi
  done
done
$good || answer '401 Unauthorized'

# At least once means: sometimes twice. mkdir is one step: only one of two can make a folder.
if mkdir "$WEBHOOK_HANDLED/$id" 2>/dev/null; then
  printf 'handled %s %s\n' "$id" "$(<"$body")" >&2 # the work; what takes long belongs in a queue
elif [[ ! -d $WEBHOOK_HANDLED/$id ]]; then
  answer '500 Internal Server Error' # it could not be noted: the sender comes again
fi
answer '204 No Content'
