// Every screen in both themes, wide and narrow: nothing that axe-core finds, nothing beyond the edge, and a screenshot.
import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before } from 'node:test';
import axe from 'axe-core';
import { artifacts, story } from './browser.mjs';
import { screens } from './screens.mjs';
import { until } from './wait.mjs';
import { World } from './world.mjs';

let world;
const folder = join(artifacts, 'screens');
before(async () => {
  await mkdir(folder, { recursive: true });
  world = await World.begin();
});
after(() => world.end());

// What depends on the theme alone. All else is the same in both, so it is looked at in one.
const colours = ['color-contrast', 'link-in-text-block'];

// look says what trouble a person would have with what is shown.
async function look(page, name) {
  const found = [];
  for (const theme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme: theme });
    await page.screenshot({ path: join(folder, `${name}-${theme}.png`), fullPage: true });
    if (theme === 'light') await page.evaluate(axe.source);
    const only = theme === 'light' ? {} : { runOnly: colours };
    const { violations } = await page.evaluate((only) => window.axe.run(document, { resultTypes: ['violations'], ...only }), only);
    for (const v of violations) {
      const where = v.nodes.slice(0, 3).map((n) => `${n.html.slice(0, 160)} (${n.failureSummary.split('\n').slice(1).join(';').trim()})`);
      found.push(`${name}, ${theme}: ${v.id}: ${v.help}: ${where.join(' | ')}`);
    }
  }
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  if (wide > 0) found.push(`${name}: ${wide} px beyond the edge`);
  return found;
}

for (const width of [1280, 360]) {
  story(`every screen is fit to be used in both themes, ${width} px wide`, async (arrive) => {
    const v = await arrive(world.relay, { width });
    v.expect(404, '/nothing-here');
    // No screen is read again, which would replace what is being looked at.
    await v.page.route('**', (route) => (route.request().headers()['relay-part'] ? undefined : route.continue()));
    await v.open('/login', 'login');
    const found = await look(v.page, `login-${width}`);
    await v.login();
    for (const [name, path, screen] of await screens(world)) {
      await v.open(path, screen);
      found.push(...(await look(v.page, `${name}-${width}`)));
    }
    assert.deepEqual(found, []);
  });
}

story('what is shown of a delivery takes the room that it needs', async (arrive) => {
  const { relay, receiver } = world;
  receiver.answer('/bytes', { status: 500, headers: ['Content-Type', 'application/octet-stream'], body: Buffer.from([...Array(80).keys()].map((i) => (i * 37) % 256)) });
  await relay.api('POST', '/v1/endpoints', { name: 'bytes', url: `${receiver.url}/bytes`, events: ['bytes.*'] });
  await relay.send({ id: 'evt_bytes', type: 'bytes.came', data: {} });
  await until('the answer', async () => (await relay.deliveries('endpoint=bytes&attempts=1')).length);
  const v = await arrive(relay, { width: 360 });
  await v.login();
  await v.open(`/deliveries/${(await world.one('endpoint=bytes')).id}`, 'delivery');
  const beyond = await v.page.locator('pre:visible', { has: v.page.locator('.j-hex') }).evaluate((pre) => pre.scrollWidth - pre.clientWidth);
  assert.ok(beyond <= 0, `rows of bytes are ${beyond} px wider than the screen of a telephone`);

  await v.open(`/deliveries/${(await world.one('endpoint=archive&state=held')).id}`, 'delivery');
  const gaps = await v.page.evaluate(() => {
    const boxes = [...document.querySelectorAll('main > *')].map((e) => e.getBoundingClientRect()).filter((r) => r.height > 0);
    return boxes.slice(1).map((r, i) => Math.round(r.top - boxes[i].bottom));
  });
  assert.deepEqual([...new Set(gaps)].length, 1, `gaps between the parts of the screen are ${gaps}`);
});
