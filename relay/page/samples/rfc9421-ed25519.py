import base64, hashlib, re, time
from cryptography.exceptions import InvalidSignature  # the package cryptography: Python itself has no Ed25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

INPUT = re.compile(r'(?:^|,\s*)(sig\d)=(\("@method" "@target-uri" "content-digest" "content-type" "webhook-id"\)'
                   r';created=([0-9]{1,12});keyid="[^"]*";alg="ed25519")')

# body is the body as it came, in bytes, before it is parsed. url is the URL of this endpoint, key is the public key that is shown above.
def verify(key, url, headers, body):
    digest = "sha-256=:" + base64.b64encode(hashlib.sha256(body).digest()).decode() + ":"
    if headers.get("Content-Digest") != digest:
        return False
    known = Ed25519PublicKey.from_public_bytes(base64.b64decode(key.removeprefix("whpk_")))
    for label, params, created in INPUT.findall(headers.get("Signature-Input", "")):
        signed = "\n".join([
            '"@method": POST', f'"@target-uri": {url}', f'"content-digest": {digest}',
            f'"content-type": {headers.get("Content-Type")}', f'"webhook-id": {headers.get("webhook-id")}', f'"@signature-params": {params}',
        ])
        got = re.search(r"(?:^|,\s*)" + label + "=:([^:]*):", headers.get("Signature", ""))
        try:
            if got and abs(time.time() - int(created)) <= 300:
                known.verify(base64.b64decode(got[1]), signed.encode())
                return True
        except (InvalidSignature, ValueError):
            pass  # another key may have signed, too
    return False
