import base64, re, time
from cryptography.exceptions import InvalidSignature  # the package cryptography: Python itself has no Ed25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

# body is the body as it came, in bytes, before it is parsed. key is the public key that is shown above.
def verify(key, headers, body):
    id, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not re.fullmatch("[0-9]{1,12}", at) or abs(time.time() - int(at)) > 300:
        return False
    known = Ed25519PublicKey.from_public_bytes(base64.b64decode(key.removeprefix("whpk_")))
    for one in headers.get("webhook-signature", "").split():
        try:
            if one.startswith("v1a,"):
                known.verify(base64.b64decode(one[4:]), f"{id}.{at}.".encode() + body)
                return True
        except (InvalidSignature, ValueError):
            pass  # another key may have signed, too
    return False
