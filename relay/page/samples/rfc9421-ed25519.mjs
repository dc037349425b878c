import { createHash, createPublicKey, verify as verifies } from 'node:crypto';

// body is the body as it came, before it is parsed. url is the URL of this endpoint, key is the public key that is shown above.
function verify(key, url, headers, body) {
  const digest = 'sha-256=:' + createHash('sha256').update(body).digest('base64') + ':';
  if (headers['content-digest'] !== digest) return false;
  const x = Buffer.from(key.replace(/^whpk_/, ''), 'base64').toString('base64url');
  const known = createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' });
  const input = /(?:^|,\s*)(sig\d)=(\("@method" "@target-uri" "content-digest" "content-type" "webhook-id"\);created=(\d{1,12});keyid="[^"]*";alg="ed25519")/g;
  return [...(headers['signature-input'] ?? '').matchAll(input)].some(([, label, params, created]) => {
    if (Math.abs(Date.now() / 1000 - created) > 300) return false;
    const signed = [
      '"@method": POST', '"@target-uri": ' + url, '"content-digest": ' + digest,
      '"content-type": ' + headers['content-type'], '"webhook-id": ' + headers['webhook-id'], '"@signature-params": ' + params,
    ].join('\n');
    const [, text] = (headers['signature'] ?? '').match('(?:^|,\\s*)' + label + '=:([^:]*):') ?? [];
    return verifies(null, Buffer.from(signed), known, Buffer.from(text ?? '', 'base64'));
  });
}
