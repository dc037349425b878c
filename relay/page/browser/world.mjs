import { Receiver } from './receiver.mjs';
import { adminToken, Relay } from './relay.mjs';
import { until } from './wait.mjs';

export const linkKey = 'key-of-links-0123456789abcdef0123';
export const readerToken = 'token-of-a-reader';

// file is a configuration with an endpoint in every state. more is added to its admin block.
export function file(receiver, more = '') {
  return `
secrets_key = ["0123456789abcdef0123456789abcdef"]
ingest {
  http "127.0.0.1:0" {}
  index = ["data.customer"]
}
admin {
  http     = "127.0.0.1:0"
  token    = "${adminToken}"
  link_key = ["${linkKey}"]
  access "reader" {
    token = "${readerToken}"
    may   = ["read"]
  }
  ${more}
}
outbox "sqlite" {
  path = "\${dir}/outbox"
}
policy "default" {
  retry {
    schedule = ["1h", "2h"]
  }
  egress {
    allow_private   = ["127.0.0.0/8"]
    allow_plaintext = true
  }
}
policy "customer" {
  concurrency = 4
}
runtime {
  policies = ["customer"]
}
alert "dead" {
  on  = "disabled"
  for = "0s"
}
event_type "order.created" {
  description = "An order was placed"
  schema = jsonencode({
    type       = "object"
    required   = ["amount"]
    properties = {
      amount   = { type = "integer", description = "in cents" }
      customer = { type = "string" }
    }
  })
  example = jsonencode({ amount = 1200, customer = "c-17" })
}
event_type "invoice.paid" {
  description = "An invoice was paid"
}
body "chat" {
  body = { text = "\${event.type}: \${event.id}" }
}
endpoint "billing" {
  description = "Books and reminders"
  labels      = { project = "shop" }
  url         = "${receiver.url}/billing"
  events      = ["order.*", "invoice.*"]
  secrets     = ["whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3"]
}
endpoint "crm" {
  url    = "${receiver.url}/crm"
  events = ["order.*"]
  sign   = ["none"]
}
endpoint "warehouse" {
  url    = "${receiver.url}/warehouse"
  events = ["order.*"]
  sign   = ["none"]
  breaker {
    enabled = false
  }
}
endpoint "archive" {
  url    = "${receiver.url}/archive"
  events = ["order.*"]
  sign   = ["none"]
}
endpoint "old" {
  url    = "${receiver.url}/old"
  events = ["device.*"]
  sign   = ["none"]
}
endpoint "acme" {
  url     = "${receiver.url}/acme"
  tenants = ["acme"]
  sign    = ["none"]
}
endpoint "globex" {
  url     = "${receiver.url}/globex"
  tenants = ["globex"]
  sign    = ["none"]
}
`;
}

// World is a Relay whose outbox has deliveries in every state, and their receiver.
export class World {
  static async begin(more) {
    const w = new World();
    w.receiver = await Receiver.start();
    w.relay = await Relay.start(file(w.receiver, more));
    await w.#seed();
    return w;
  }

  async #seed() {
    const { relay, receiver } = this;
    receiver.answer('/crm', { status: 422, headers: ['Content-Type', 'application/json', 'X-Request-Id', 'req-42'], body: '{"error":"customer c-17 is not known"}' });
    receiver.answer('/warehouse', { status: 503, headers: ['Content-Type', 'text/html'], body: '<h1>Maintenance</h1>' });
    receiver.answer('/old', { status: 410, body: 'moved away' });
    await relay.api('POST', '/v1/endpoints/archive/pause');
    await relay.api('POST', '/v1/endpoints', { name: 'shop-of-acme', url: `${receiver.url}/shop`, tenants: ['acme'], events: ['order.*'], description: 'Made by the customer' });
    await relay.send(events());
    await relay.send({ id: 'evt_unwanted', type: 'note.added', data: { text: 'nobody listens' } });
    const count = async (query) => (await relay.api('GET', `/v1/deliveries?${query}`)).total;
    await until('all first attempts', async () => (await count('state=pending')) === (await count('state=pending&attempts=1')));
    await until('the endpoint to be disabled', async () => (await relay.api('GET', '/v1/endpoints/old')).state === 'disabled');
    await until('the alert', async () => (await relay.api('GET', '/v1/alerts')).firing.length > 0);
    const [discarded] = await relay.deliveries('endpoint=archive&state=held&limit=1');
    await relay.api('POST', `/v1/deliveries/${discarded.id}/discard`);
  }

  // one finds the newest delivery of a query string.
  async one(query) {
    const [delivery] = await this.relay.deliveries(`${query}&limit=1`);
    if (!delivery) throw new Error(`no delivery of ${query}`);
    return delivery;
  }

  // link makes a token for a tenant.
  async link(tenant, may = ['read', 'payload']) {
    return (await this.relay.api('POST', '/v1/links', { tenant, may })).token;
  }

  async end() {
    await this.relay.stop();
    await this.receiver.stop();
  }
}

// events are those of two tenants and of nobody.
function events() {
  const all = [];
  for (let i = 1; i <= 12; i++) {
    const tenant = ['acme', 'globex', undefined][i % 3];
    all.push({ id: `evt_order_${i}`, type: i % 4 ? 'order.created' : 'order.paid', tenant, key: `order-${i}`, data: { amount: 1200 * i, customer: `c-${i}` } });
    all.push({ id: `evt_invoice_${i}`, type: 'invoice.paid', tenant, key: `invoice-${i}`, data: { number: 9007199254740993n.toString(), lines: [{ text: 'Nuts & bolts', price: i }] } });
  }
  all.push({ id: 'evt_device', type: 'device.lost', data: { device: 'cam-7' } });
  return all;
}
