// Without JavaScript everything works that is not live.
import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { story } from './browser.mjs';
import { until } from './wait.mjs';
import { World } from './world.mjs';

let world;
before(async () => { world = await World.begin(); });
after(() => world.end());

// rows of the list that is shown, as ids.
const rows = (page) => page.locator('tr[data-id]').evaluateAll((all) => all.map((r) => r.dataset.id));

// total asks the API for the number of deliveries.
const total = async (query) => (await world.relay.api('GET', `/v1/deliveries?${query}`)).total;

story('filters without JavaScript show what the API finds, and pages follow each other', async (arrive) => {
  const v = await arrive(world.relay, { js: false });
  const { page } = v;
  await v.login();
  await v.open('/deliveries', 'deliveries');
  await page.getByLabel('Type', { exact: true }).fill('order.*');
  await page.getByLabel('State', { exact: true }).selectOption('failed');
  await page.getByRole('button', { name: 'Find' }).click();
  await v.at('deliveries');
  assert.match(page.url(), /state=failed/);
  assert.deepEqual(await rows(page), (await world.relay.deliveries('type=order.*&state=failed')).map((d) => d.id));
  assert.equal(await page.getByLabel('Type', { exact: true }).inputValue(), 'order.*');

  await v.open('/deliveries?limit=10', 'deliveries');
  const seen = await rows(page);
  for (let next = page.getByRole('link', { name: 'Next page' }); await next.count(); ) {
    await next.click();
    await v.at('deliveries');
    seen.push(...(await rows(page)));
  }
  assert.equal(new Set(seen).size, seen.length, 'a delivery is shown twice');
  assert.equal(seen.length, await total(''));
});

story('a filter that cannot be is refused where it was typed', async (arrive) => {
  const v = await arrive(world.relay, { js: false });
  const { page } = v;
  await v.login();
  await v.open('/deliveries', 'deliveries');
  v.expect(400, '/deliveries');
  await page.getByLabel('Since', { exact: true }).fill('yesterday');
  await page.getByRole('button', { name: 'Find' }).click();
  await page.getByRole('alert').waitFor();
  assert.equal(await page.getByLabel('Since', { exact: true }).inputValue(), 'yesterday');
});
