import hashlib, hmac

# body is the body as it came, in bytes, before it is parsed. secret is what is shown above.
def verify(secret, headers, body):
    want = "sha1=" + hmac.new(secret.encode(), body, hashlib.sha1).hexdigest()
    return hmac.compare_digest(headers.get("X-Hub-Signature", "").encode(), want.encode())
