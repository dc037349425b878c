import base64, hashlib, hmac

# body is the body as it came, in bytes, before it is parsed. secret is what is shown above.
def verify(secret, headers, body):
    want = base64.b64encode(hmac.new(secret.encode(), body, hashlib.sha256).digest()).decode()
    return hmac.compare_digest(headers.get("X-Shopify-Hmac-Sha256", "").encode(), want.encode())
