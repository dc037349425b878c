import { createPublicKey, verify as verifies } from 'node:crypto';

// body is the body as it came, before it is parsed. key is the public key that is shown above.
function verify(key, headers, body) {
  const [id, time] = [headers['webhook-id'], headers['webhook-timestamp']];
  if (!(Math.abs(Date.now() / 1000 - time) <= 300)) return false;
  const x = Buffer.from(key.replace(/^whpk_/, ''), 'base64').toString('base64url');
  const known = createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' });
  const signed = Buffer.concat([Buffer.from(id + '.' + time + '.'), Buffer.from(body)]);
  return (headers['webhook-signature'] ?? '').split(' ').some((one) =>
    one.startsWith('v1a,') && verifies(null, signed, known, Buffer.from(one.slice(4), 'base64')));
}
