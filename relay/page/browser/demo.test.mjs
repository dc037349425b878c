// The page of "relay demo --page", which the pictures of the README are made of.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, mkdir, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before } from 'node:test';
import { artifacts, story } from './browser.mjs';
import { binary } from './relay.mjs';
import { until } from './wait.mjs';

const demo = { log: [], links: [] };
let folder;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'relay-demo-test-'));
  const child = spawn(binary, ['demo', '--page'], { env: { PATH: process.env.PATH, TMPDIR: folder }, stdio: ['ignore', 'pipe', 'pipe'] });
  demo.child = child;
  demo.ended = new Promise((resolve) => child.once('exit', resolve));
  for (const stream of [child.stdout, child.stderr]) createInterface({ input: stream }).on('line', (line) => demo.log.push(line));
  await until('the links of the demo', () => {
    demo.links = demo.log.flatMap((line) => line.match(/http:\S+\/enter\/\S+/) ?? []);
    return demo.log.some((line) => line.startsWith('Ctrl-C'));
  });
  demo.url = new URL(demo.links[0]).origin;
  demo.token = demo.links[0].split('/enter/')[1];
});
after(async () => {
  demo.child.kill('SIGINT');
  assert.equal(await demo.ended, 0);
  await rm(folder, { recursive: true });
});

async function api(path) {
  return (await fetch(demo.url + path, { headers: { Authorization: `Bearer ${demo.token}` } })).json();
}

const some = (query) => until(query, async () => (await api(`/v1/deliveries?${query}`)).items[0]);

story('the link of the demo logs in, and there is something to see', async (arrive) => {
  const failed = await some('endpoint=crm&state=failed');
  for (const query of ['endpoint=warehouse&state=pending&status=503', 'endpoint=newsletter&state=held', 'endpoint=analytics&state=delivered', 'endpoint=on-call&state=delivered']) await some(query);
  const v = await arrive(demo);
  const { page } = v;
  await page.setViewportSize({ width: 1280, height: 800 });
  await page.goto(demo.links[0]);
  await v.at('overview');
  assert.ok(!page.url().includes(demo.token), 'the address keeps the token');
  for (const endpoint of ['storefront', 'warehouse', 'crm', 'analytics', 'newsletter']) await page.locator('main').getByText(endpoint, { exact: true }).first().waitFor();
  await picture(page, 'overview');
  await v.open(`/deliveries/${failed.id}`, 'delivery');
  await page.getByText('unknown customer').first().waitFor();
  await picture(page, 'delivery');
});

story('the links of the demo\'s customers show what is theirs', async (arrive) => {
  for (const [i, [mine, other]] of [['acme', 'globex'], ['globex', 'acme']].entries()) {
    await some(`endpoint=${mine}-erp`);
    const v = await arrive(demo);
    await v.page.goto(demo.links[1 + i]);
    await v.at('overview');
    const text = await v.page.locator('main').innerText();
    assert.ok(text.includes(`${mine}-erp`) && !text.includes(other) && !text.includes('warehouse'), text);
  }
});

// picture leaves a screenshot that is small enough for the README.
async function picture(page, name) {
  const path = join(artifacts, 'images', `${name}.png`);
  await mkdir(join(artifacts, 'images'), { recursive: true });
  await page.screenshot({ path });
  const { size } = await stat(path);
  assert.ok(size < 150_000, `${path} has ${size} bytes`);
}
