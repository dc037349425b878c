// The page of "relay demo --page", which the pictures of the README are made of.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, mkdir, readFile, rm, stat } from 'node:fs/promises';
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
  const file = demo.log.find((line) => line.startsWith('  configuration')).split(/\s+/).at(-1);
  demo.token = (await readFile(file, 'utf8')).match(/token    = "(.+)"/)[1];
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
  await use(v, demo.links[0]);
  await v.at('overview');
  assert.equal(new URL(page.url()).pathname, '/', 'the address keeps the code');
  for (const endpoint of ['storefront', 'warehouse', 'crm', 'analytics', 'newsletter']) await page.locator('main').getByText(endpoint, { exact: true }).first().waitFor();
  await picture(page, 'overview');
  await v.open(`/deliveries/${failed.id}`, 'delivery');
  await page.getByText('unknown customer').first().waitFor();
  await picture(page, 'delivery');
});

// link is the newest link that logs in once, as soon as it is none that was used.
const used = new Set();
const link = () => until('a link that was not used', () => {
  const newest = demo.log.flatMap((line) => line.match(/http:\S+\/enter\/relay_once_\S+/) ?? []).at(-1);
  return !used.has(newest) && newest;
});

// use opens a link that logs in once.
async function use(visitor, link) {
  used.add(link);
  await visitor.page.goto(link);
}

for (const js of [true, false]) {
  story(`the link of the demo logs in once, and the next one comes at once${js ? '' : ', without JavaScript'}`, async (arrive) => {
    const first = await link();
    const v = await arrive(demo, { js });
    v.expect(410, '/enter/');
    await use(v, first);
    await v.at('overview');
    const next = await link();
    const other = await arrive(demo, { js });
    other.expect(410, '/enter/');
    await other.page.goto(first);
    await other.page.getByRole('heading', { name: 'This link was used' }).waitFor();
    await other.page.reload();
    await other.page.getByRole('heading', { name: 'This link was used' }).waitFor();
    await v.page.goto(first); // who is logged in stays so
    await v.page.getByRole('link', { name: 'Go on as administrator' }).click();
    await v.at('overview');
    await v.page.goBack();
    await v.page.reload();
    await v.open('/jobs', 'jobs');

    const answer = await fetch(next); // a preview
    assert.equal(answer.status, 200);
    assert.deepEqual(answer.headers.getSetCookie(), []);
    await use(other, next);
    await other.at('overview');
  });
}

story('a preview does not use the link of the demo up, and a browser that does not say who asks gets a button', async (arrive) => {
  const v = await arrive(demo);
  await v.open('/login', 'login');
  await v.page.evaluate((to) => fetch(to), await link());
  await v.context.setExtraHTTPHeaders({ 'Sec-Purpose': 'prefetch' });
  await use(v, await link());
  await v.page.getByText('It works once').waitFor();
  await v.context.setExtraHTTPHeaders({});
  await v.page.getByRole('button', { name: 'Open the page' }).click();
  await v.at('overview');
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
