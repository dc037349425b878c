// The platforms' own libraries judge what relay signs: requests as `relay explain
// --sign` shows them, made with the code that sends them, and keys as `relay keys`
// prints them. Run by `make interop`; nothing here goes into the product.
import { execFileSync } from "node:child_process";
import { createHmac, createPublicKey, randomBytes, verify as verifySignature } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import assert from "node:assert/strict";

import * as octokit from "@octokit/webhooks-methods";
import "@shopify/shopify-api/adapters/node";
import { ApiVersion, shopifyApi } from "@shopify/shopify-api";
import slack from "@slack/bolt/dist/receivers/verify-request.js";
import { verifySignature as verifyMessageSig } from "http-message-sig";
import { httpbis } from "http-message-signatures";
import { calculateJwkThumbprint, importJWK } from "jose";
import { Webhook as StandardWebhook } from "standardwebhooks";
import Stripe from "stripe";
import { Webhook as SvixWebhook } from "svix";

const relay = new URL("../../../bin/relay", import.meta.url).pathname;
const folder = mkdtempSync(join(tmpdir(), "relay-interop-"));
after(() => rmSync(folder, { recursive: true }));

const url = "https://example.com:8443/hooks/in?a=1&b=%20c";
const whsec = () => "whsec_" + randomBytes(32).toString("base64");
const secrets = [whsec(), whsec()];
const ed25519 = "whsk_" + randomBytes(32).toString("base64");
const schemes = ["standard", "github", "github-sha1", "stripe", "slack", "shopify", "svix", "rfc9421"];

const endpoint = (name, sign, keys) => `
endpoint "${name}" {
  url     = "${url}"
  secrets = ${JSON.stringify(keys)}
  sign    = ${JSON.stringify(sign)}
}
`;
const config = join(folder, "relay.hcl");
writeFileSync(config, endpoint("one", schemes, secrets.slice(0, 1)) + endpoint("two", schemes, secrets) +
  endpoint("public", ["standard", "rfc9421"], [ed25519]));
const event = { type: "invoice.paid", data: { text: "é ☃ \u2028 </script>", number: 12345678901234567890n.toString(), list: [1, 2.50, null] } };

const run = (args, input) => JSON.parse(execFileSync(relay, [...args, "--config", config, "--json"], { input }));
const explained = run(["explain", "-", "--sign"], JSON.stringify(event));

// request is what an endpoint gets: the body, and header lines by lower-case name.
function request(name) {
  const { body, header } = explained.endpoints.find((e) => e.name === name).request;
  const lines = {};
  for (const { name, value } of header) (lines[name.toLowerCase()] ??= []).push(value);
  const headers = Object.fromEntries(Object.entries(lines).map(([name, values]) => [name, values.join(", ")]));
  return { body, headers, lines };
}

// Each library takes the request with each secret that it should know, and refuses
// another secret and another body.
async function judge(verify, { room }) {
  const takes = async (...args) => {
    try {
      return (await verify(...args)) !== false;
    } catch {
      return false;
    }
  };
  const [one, two] = [request("one"), request("two")];
  assert.equal(await takes(one, secrets[0]), true, "the secret");
  assert.equal(await takes(two, secrets[0]), true, "the newest of two secrets");
  assert.equal(await takes(two, secrets[1]), room, "the older of two secrets");
  assert.equal(await takes(two, whsec()), false, "another secret");
  assert.equal(await takes({ ...one, body: one.body + " " }, secrets[0]), false, "another body");
}

test("standard: standardwebhooks", () =>
  judge(({ body, headers }, secret) => new StandardWebhook(secret).verify(body, headers), { room: true }));

test("svix: svix", () =>
  judge(({ body, headers }, secret) => {
    const own = Object.fromEntries(Object.entries(headers).filter(([name]) => name.startsWith("svix-")));
    new SvixWebhook(secret).verify(body, own);
  }, { room: true }));

test("stripe: stripe", () =>
  judge(({ body, headers }, secret) =>
    new Stripe("sk_test_unused").webhooks.constructEvent(body, headers["stripe-signature"], secret), { room: true }));

test("github: @octokit/webhooks-methods", () =>
  judge(({ body, headers }, secret) => octokit.verify(secret, body, headers["x-hub-signature-256"]), { room: false }));

// No library checks the older header any more.
test("github-sha1: node:crypto", () =>
  judge(({ body, headers }, secret) =>
    headers["x-hub-signature"] === "sha1=" + createHmac("sha1", secret).update(body).digest("hex"), { room: false }));

test("slack: @slack/bolt", () =>
  judge(({ body, headers }, secret) => slack.verifySlackRequest({
    signingSecret: secret, body,
    headers: {
      "x-slack-signature": headers["x-slack-signature"],
      "x-slack-request-timestamp": Number(headers["x-slack-request-timestamp"]),
    },
  }), { room: false }));

test("shopify: @shopify/shopify-api", () =>
  judge(async ({ body, headers }, secret) => {
    const shopify = shopifyApi({
      apiKey: "unused", apiSecretKey: secret, scopes: [], hostName: "example.com",
      apiVersion: ApiVersion.July25, isEmbeddedApp: false, logger: { log: () => {} },
    });
    // What a sender other than Shopify adds by an endpoint's own headers.
    const own = { "x-shopify-api-version": "2025-07", "x-shopify-shop-domain": "a-shop.myshopify.com" };
    const result = await shopify.webhooks.validate({ rawBody: body, rawRequest: { method: "POST", url: "/hooks", headers: { ...headers, ...own } } });
    return result.valid;
  }, { room: false }));

const components = ["@method", "@target-uri", "content-digest", "content-type", "webhook-id"];
const hmac = (secret) => (data) => createHmac("sha256", Buffer.from(secret.slice(6), "base64")).update(data).digest();

// digest checks Content-Digest (RFC 9530), which the libraries leave to the caller.
async function digest({ body, headers }) {
  const sum = await crypto.subtle.digest("SHA-256", Buffer.from(body));
  assert.equal(headers["content-digest"], `sha-256=:${Buffer.from(sum).toString("base64")}:`);
}

// The first library asks for the key of each signature by its keyid, and takes null for
// one that it does not know.
const messageSignatures = async (r, keyid, verify) => {
  await digest(r);
  return (await httpbis.verifyMessage({
    keyLookup: async (parameters) => (parameters.keyid === keyid ? { id: keyid, algs: [parameters.alg], verify } : null),
    requiredParams: ["created", "keyid", "alg"], requiredFields: components, maxAge: 300, tolerance: 5,
  }, { method: "POST", url, headers: r.headers })) === true;
};

// sharedKeyID is the keyid of a shared secret.
const sharedKeyID = (secret) => hmac(secret)("relay: the id of this key").subarray(0, 9).toString("base64url");

test("rfc9421, hmac-sha256: http-message-signatures", () =>
  judge((r, secret) => messageSignatures(r, sharedKeyID(secret), async (data, signature) => hmac(secret)(data).equals(signature)), { room: true }));

// The second library reads the same request by another's code, each signature by its label.
const messageSig = async (r, label, algorithm, verify) => {
  await digest(r);
  const fields = Object.entries(r.lines).flatMap(([name, values]) => values.map((value) => ({ name, value })));
  await verifyMessageSig({ kind: "request", method: "POST", targetUri: url, fields }, {
    label,
    policy: { algorithms: [algorithm], requiredComponents: components, requiredParameters: ["created", "keyid", "alg"], maxAge: 300, clockSkew: 5 },
    resolveVerifier: () => ({ algorithm, verify }),
  });
};

const jwks = run(["keys"]);

test("rfc9421, hmac-sha256: http-message-sig", () =>
  judge(async (r, secret) => {
    const label = r.headers["signature-input"].match(`(sig\\d)=[^=]*;created=\\d+;keyid="${sharedKeyID(secret)}"`)?.[1] ?? "sig1";
    await messageSig(r, label, "hmac-sha256", async (data, signature) => hmac(secret)(data).equals(Buffer.from(signature)));
  }, { room: true }));

test("rfc9421, ed25519, by the keys of relay keys", async () => {
  const [jwk] = jwks.keys;
  const key = createPublicKey({ key: jwk, format: "jwk" });
  const verify = async (data, signature) => verifySignature(null, data, key, signature);
  const r = request("public");
  assert.equal(await messageSignatures(r, jwk.kid, verify), true);
  await messageSig(r, "sig1", "ed25519", verify);
  await assert.rejects(messageSig({ ...r, lines: { ...r.lines, "webhook-id": ["evt_other"] } }, "sig1", "ed25519", verify));
});

test("relay keys: jose", async () => {
  assert.equal(jwks.keys.length, 1);
  const [jwk] = jwks.keys;
  assert.equal(jwk.kid, await calculateJwkThumbprint(jwk));
  const key = await importJWK(jwk);
  // The key verifies a v1a signature of Standard Webhooks.
  const { body, headers } = request("public");
  const signature = Buffer.from(headers["webhook-signature"].replace("v1a,", ""), "base64");
  const signed = Buffer.from(`${headers["webhook-id"]}.${headers["webhook-timestamp"]}.${body}`);
  assert.equal(await crypto.subtle.verify("Ed25519", key, signature, signed), true);
});
