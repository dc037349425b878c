import base64, hashlib, hmac, re, time

# body is the body as it came, in bytes, before it is parsed. secret is what is shown above.
def verify(secret, headers, body):
    id, at = headers.get("svix-id", ""), headers.get("svix-timestamp", "")
    if not re.fullmatch("[0-9]{1,12}", at) or abs(time.time() - int(at)) > 300:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.new(key, f"{id}.{at}.".encode() + body, hashlib.sha256).digest()
    want = b"v1," + base64.b64encode(digest)
    return any(hmac.compare_digest(one.encode(), want) for one in headers.get("svix-signature", "").split())
